//! Times and limits: docs/reference.md has them from the code, and what other documents say of a time is held against the code.

use std::fs;
use std::time::Duration;

use super::documents;
use crate::{files_below, root};

mod tables;

use tables::{HELD, INNER, LIMITS, NO_PROMISES, PROMISES, Place, TIMES};

/// The expression that the code has for a constant or field, or the text of a setting.
fn written((file, name): Place) -> String {
    let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let of_line = |line: &str| {
        let line = line.trim_start();
        if !file.ends_with(".rs") {
            return line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        }
        // A constant, or a field of a structure that is one.
        let (before, after) = line.split_once(&format!("{name}: "))?;
        let is_constant = before.ends_with("const ");
        let value = if is_constant { after.split_once(" = ")?.1 } else { after };
        let is_number = is_constant || before.is_empty() && value.contains(|c: char| c.is_ascii_digit());
        is_number.then(|| value.trim_end_matches([';', ',']).to_owned())
    };
    // In one line: one that makes several things says them one after the other.
    let lines = text.lines().flat_map(|line| line.split("{ ").flat_map(|part| part.split(", ")));
    lines.filter_map(of_line).next().unwrap_or_else(|| panic!("{file} has no {name}"))
}

/// What an expression of numbers comes to.
fn number(text: &str) -> u64 {
    let factor = |text: &str| -> u64 {
        let (number, shift) = text.split_once("<<").unwrap_or((text, "0"));
        let parse =
            |text: &str| text.trim().replace('_', "").parse::<u64>().unwrap_or_else(|_| panic!("{text}"));
        parse(number) << parse(shift)
    };
    text.split('*').map(factor).product()
}

fn time(place: Place) -> Duration {
    let text = written(place);
    let inner = text.trim_start_matches("Some(").trim_end_matches(" }").trim_end_matches(')');
    match inner.split_once("Duration::from_") {
        Some((_, call)) => match call.split_once('(').unwrap() {
            ("secs", seconds) => Duration::from_secs(number(seconds)),
            ("millis", millis) => Duration::from_millis(number(millis)),
            _ => panic!("{place:?}: {text}"),
        },
        None if inner == "HOUR" => time(("src/providers/budget.rs", "HOUR")),
        None if inner == "DAY" => time(("src/providers/budget.rs", "DAY")),
        None => humantime::parse_duration(inner).unwrap_or_else(|_| panic!("{place:?}: {text}")),
    }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

/// The table of times in docs/reference.md.
pub fn times() -> String {
    let rows = TIMES.map(|(what, setting, place)| {
        format!("| {what} | {} | {setting} |\n", humantime::format_duration(time(place)))
    });
    format!("| what | time | setting |\n|---|---|---|\n{}", rows.concat())
}

/// The table of sizes and numbers there.
pub fn limits() -> String {
    let rows = LIMITS.map(|(what, setting, place)| {
        let text = written(place);
        let text = text.trim_start_matches("Some(").trim_end_matches([' ', '}', ';', ')']);
        format!("| {what} | {} | {setting} |\n", thousands(number(text)))
    });
    format!("| what | limit | setting |\n|---|---|---|\n{}", rows.concat())
}

#[test]
fn each_time_of_the_code_is_documented_or_nobody_meets_it() {
    let inner: Vec<(&str, &str)> = INNER
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .flat_map(|(file, names)| names.split(' ').map(move |name| (file, name)))
        .collect();
    let known: Vec<(&str, &str)> = TIMES.iter().map(|(_, _, place)| *place).chain(inner).collect();
    let mut seen = Vec::new();
    for path in files_below(&root().join("src")) {
        let file = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if file.contains("tests") {
            continue;
        }
        for line in fs::read_to_string(&path).unwrap().lines() {
            // Those of tests are within a module.
            let Some((before, name)) =
                line.split_once("const ").filter(|(before, _)| !before.starts_with(' '))
            else {
                continue;
            };
            let is_public = before.is_empty() || before.starts_with("pub");
            if let Some((name, _)) = name.split_once(": Duration = ").filter(|_| is_public) {
                let is_known = known.contains(&(file.as_str(), name));
                assert!(
                    is_known,
                    "{file} {name}: to be told in TIMES, or to be listed in INNER ({})",
                    module_path!()
                );
                seen.push((file.clone(), name.to_owned()));
            }
        }
    }
    let constants = known.iter().filter(|(file, name)| {
        file.ends_with(".rs")
            && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_' || byte.is_ascii_digit())
    });
    for (file, name) in constants {
        assert!(
            seen.iter().any(|(of, seen)| of == file && seen == name),
            "there is no {name} in {file} any more"
        );
    }
}

const WORDS: [&str; 13] = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
];

/// The times that a text names, each with where it stands there.
fn named(text: &str) -> Vec<(usize, Duration)> {
    let mut found = Vec::new();
    let starts = text.char_indices().filter(|(at, c)| {
        c.is_alphanumeric()
            && !text[..*at].ends_with(|before: char| {
                before.is_alphanumeric()
                    || "-.,".contains(before) && text[..*at - 1].ends_with(|c: char| c.is_ascii_digit())
            })
    });
    for (at, _) in starts {
        if let Some(time) = beginning(&text[at..]) {
            found.push((at, time));
        }
    }
    found
}

/// The time that a text begins with.
fn beginning(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 6] = [
        ("ms", 1),
        ("second", 1000),
        ("minute", 60_000),
        ("hour", 3_600_000),
        ("day", 86_400_000),
        ("s", 1000),
    ];
    for (words, seconds) in [("half a minute", 30), ("a quarter of an hour", 900)] {
        if text.starts_with(words) {
            return Some(Duration::from_secs(seconds));
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let count = match word {
        "a" | "an" => Some(1),
        _ => WORDS
            .iter()
            .position(|known| known.eq_ignore_ascii_case(word))
            .map(|at| at as u64)
            .or(word.parse().ok()),
    };
    if let Some(count) = count {
        let rest = rest.strip_prefix([' ', '-'])?;
        let unit = rest.split(|c: char| !c.is_alphabetic()).next()?;
        let unit = UNITS.iter().find(|(name, _)| unit == *name || unit.strip_suffix('s') == Some(name))?;
        return Some(Duration::from_millis(count * unit.1));
    }
    word.starts_with(|c: char| c.is_ascii_digit()).then(|| humantime::parse_duration(word).ok()).flatten()
}

/// The prose of a document, in one line.
fn prose(name: &str) -> String {
    let path = documents().into_iter().find(|path| path.ends_with(name)).unwrap();
    let text = fs::read_to_string(path).unwrap();
    let outside = text.split("```").step_by(2).collect::<Vec<_>>().join(" ");
    // Tables that are made are held against what makes them.
    let made = |part: &str| {
        part.lines()
            .filter(|line| !line.starts_with("| 1") && !line.contains(" h | "))
            .collect::<Vec<_>>()
            .join(" ")
    };
    made(&outside).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn each_time_that_the_documentation_names_is_that_of_the_code() {
    for (document, phrase, place) in PROMISES {
        let text = prose(document);
        assert!(text.contains(phrase), "{document} does not say {phrase:?}");
        let times: Vec<Duration> = named(phrase).into_iter().map(|(_, time)| time).collect();
        assert!(
            times.contains(&time(place)),
            "{document}: {phrase:?} says {times:?}, and {place:?} is {:?}",
            time(place)
        );
    }
    for document in HELD {
        let text = prose(document);
        let promises = PROMISES.iter().map(|(of, phrase, _)| (*of, *phrase));
        let phrases: Vec<&str> =
            promises.chain(NO_PROMISES).filter(|(of, _)| *of == document).map(|(_, phrase)| phrase).collect();
        for (at, time) in named(&text) {
            let is_held = phrases.iter().any(|phrase| {
                text.match_indices(phrase).any(|(begin, _)| (begin..begin + phrase.len()).contains(&at))
            });
            let from = text[..at].char_indices().rev().nth(60).map_or(0, |(at, _)| at);
            let to = text[at..].char_indices().nth(40).map_or(text.len(), |(more, _)| at + more);
            assert!(
                is_held,
                "{document} says {time:?}, and nobody holds it against the code: … {} …",
                &text[from..to]
            );
        }
    }
}
