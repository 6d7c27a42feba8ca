//! What names look like in a text.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use crate::config;

pub const UNIT_TYPES: [&str; 11] = [
    "service",
    "socket",
    "target",
    "timer",
    "mount",
    "automount",
    "swap",
    "path",
    "slice",
    "scope",
    "device",
];

/// How many bytes of the text are this name, if it begins with it, in whatever case.
pub fn begins_with(text: &str, name: &str) -> Option<usize> {
    let mut length = 0;
    let mut said = text.chars();
    for wanted in name.chars() {
        let next = said.next()?;
        if next != wanted && !next.to_lowercase().eq(wanted.to_lowercase()) {
            return None;
        }
        length += next.len_utf8();
    }
    Some(length)
}

/// Whether a name stands by itself between these two.
pub fn is_whole(before: char, name: &str, after: &str) -> bool {
    let is_inside = |outer: Option<char>, inner: Option<char>| {
        outer.is_some_and(char::is_alphanumeric) && inner.is_some_and(char::is_alphanumeric)
    };
    !is_inside(Some(before), name.chars().next())
        && !is_inside(after.chars().next(), name.chars().next_back())
}

/// What a reference that is not known says goes, to the end of its line: names may have spaces.
pub fn references(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("op://") {
        result.push_str(before);
        result.push_str("op://");
        let is_replaced = after.starts_with(['…', '\u{E000}']) || before.ends_with('\u{E000}');
        let end = after.find(['"', '`', '\n', '\u{E001}']).unwrap_or(after.len());
        result.push_str(if is_replaced { &after[..end] } else { "…" });
        rest = &after[end..];
    }
    result + rest
}

pub enum Part<'t> {
    Word(&'t str),
    /// Space, or what stands for a name already.
    Other(&'t str),
}

/// The words of a text, without quotes, and what stands between them.
pub fn words(text: &str, open: char, close: char) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let is_between = |c: char| c.is_whitespace() || "\"`'=<>{}|,;".contains(c) || c == open;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_name = first == open;
        let end = match is_name {
            true => rest.find(close).map_or(rest.len(), |at| at + close.len_utf8()),
            false if is_between(first) => first.len_utf8(),
            false => rest.find(is_between).unwrap_or(rest.len()),
        };
        let part = &rest[..end];
        parts.push(if is_name || is_between(first) { Part::Other(part) } else { Part::Word(part) });
        rest = &rest[end..];
    }
    parts
}

pub fn is_unit(word: &str) -> bool {
    word.rsplit_once('.').is_some_and(|(stem, kind)| !stem.is_empty() && UNIT_TYPES.contains(&kind))
}

pub fn is_host(word: &str) -> bool {
    const FILES: [&str; 9] = ["json", "md", "so", "conf", "pem", "sock", "d", "rs", "varlink"];
    let (host, port) = word.rsplit_once(':').unwrap_or((word, "0"));
    let labels: Vec<&str> = host.split('.').collect();
    let is_label = |label: &&str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let is_named = labels.last().is_some_and(|last| {
        last.len() > 1 && last.bytes().all(|b| b.is_ascii_alphabetic()) && !FILES.contains(last)
    });
    labels.len() > 1 && labels.iter().all(is_label) && is_named && port.bytes().all(|b| b.is_ascii_digit())
}

/// Of IP, with or without a port, a zone or the length of a network.
pub fn is_address(word: &str) -> bool {
    let alone = word.split(['/', '%']).next().unwrap_or(word);
    let alone = alone.strip_prefix('[').unwrap_or(alone);
    let alone = alone.strip_suffix(']').unwrap_or(alone);
    // An address of version 6 that a port follows without brackets.
    let is_with_port = || {
        word.rsplit_once(':')
            .is_some_and(|(before, port)| before.parse::<IpAddr>().is_ok() && port.parse::<u16>().is_ok())
    };
    word.parse::<SocketAddr>().is_ok() || alone.parse::<IpAddr>().is_ok() || is_with_port()
}

/// One that says by its beginning or its end that it is one.
pub fn is_relative_path(word: &str) -> bool {
    const FILES: [&str; 12] =
        ["json", "conf", "pem", "crt", "key", "sock", "env", "txt", "toml", "yaml", "yml", "token"];
    let name = word.rsplit('/').next().unwrap_or(word);
    ["./", "../", "~/"].iter().any(|beginning| word.starts_with(beginning))
        || name.rsplit_once('.').is_some_and(|(_, kind)| FILES.contains(&kind))
}

/// A token, a hash, a machine's or an item's id: long, and of letters and digits together.
pub fn is_secret_or_id(word: &str) -> bool {
    let is_of_one = |b: u8| b.is_ascii_alphanumeric() || b"+/=_-".contains(&b);
    let longest = word.split('.').map(str::len).max().unwrap_or(0);
    word.starts_with("ops_")
        || word.starts_with("eyJ")
        || longest >= 20
            && word.bytes().all(|b| is_of_one(b) || b == b'.')
            && word.bytes().any(|b| b.is_ascii_digit())
            && word.bytes().any(|b| b.is_ascii_alphabetic())
}

/// `FILE:LINE:COLUMN`
pub fn without_position(word: &str) -> (&str, &str) {
    let mut path = word;
    for _ in 0..2 {
        match path.rsplit_once(':') {
            Some((before, number)) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => {
                path = before
            }
            _ => break,
        }
    }
    (path, &word[path.len()..])
}

/// Keys of the configuration, and what they can be: no names.
pub fn is_word_of_the_configuration(word: &str) -> bool {
    static WORDS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
        let mut words = BTreeSet::new();
        collect(&config::schema(), &mut words);
        words
    });
    let is_number = !word.is_empty() && word.len() < 8 && word.bytes().all(|b| b.is_ascii_digit());
    let others = [
        "token",
        "opnix.cache-key",
        "opnix",
        "root",
        "yes",
        "connect",
        "local",
        "service_account",
        "infinity",
    ];
    is_number || others.contains(&word) || WORDS.contains(word)
}

fn collect(schema: &serde_json::Value, words: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(members) => {
            if let Some(properties) = members.get("properties").and_then(serde_json::Value::as_object) {
                words.extend(properties.keys().cloned());
            }
            for key in ["enum", "const"] {
                let values =
                    members.get(key).map(|values| values.as_array().cloned().unwrap_or(vec![values.clone()]));
                words.extend(
                    values.into_iter().flatten().filter_map(|value| value.as_str().map(str::to_owned)),
                );
            }
            members.values().for_each(|member| collect(member, words));
        }
        serde_json::Value::Array(elements) => elements.iter().for_each(|element| collect(element, words)),
        _ => {}
    }
}

/// A text in a file of the configuration.
#[derive(Debug, PartialEq)]
pub struct Text {
    /// That it is the value of, if it is one.
    pub key: Option<String>,
    pub text: String,
}

/// The texts in a file of the configuration, valid or not: each may be a name.
pub fn texts(file: &str) -> Vec<Text> {
    let mut texts: Vec<Text> = Vec::new();
    let mut chars = file.char_indices();
    let mut before = 0;
    while let Some((at, c)) = chars.next() {
        if c != '"' {
            continue;
        }
        let mut end = None;
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => drop(chars.next()),
                '"' => {
                    end = Some(at + 1);
                    break;
                }
                _ => {}
            }
        }
        let literal = &file[at..end.unwrap_or(file.len())];
        let plain = || literal.trim_matches('"').to_owned();
        let text = serde_json::from_str(literal).unwrap_or_else(|_| plain());
        let is_value = file[before..at].trim() == ":";
        let key = texts.last().filter(|_| is_value).map(|key| key.text.clone());
        texts.push(Text { key, text });
        before = at + literal.len();
    }
    texts
}
