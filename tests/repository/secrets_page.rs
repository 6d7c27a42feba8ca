//! secrets.json(5), made from the schema.

use std::collections::{BTreeSet, VecDeque};

use roff::{Inline, Roff, bold, italic, roman};
use serde_json::Value;

const KEYS_WITHOUT_USE: [&str; 1] = ["$schema"];

pub fn page(schema: &Value, example: &str) -> String {
    let mut page = Roff::new();
    page.control("TH", ["secrets.json", "5", "", concat!("opnix ", env!("CARGO_PKG_VERSION"))]);
    section(&mut page, "NAME");
    page.text([roman("secrets.json - which systemd units get which 1Password secrets")]);
    section(&mut page, "SYNOPSIS");
    page.text([bold("/etc/opnix/secrets.json")]);
    page.control("br", []);
    page.text([bold("/etc/opnix/secrets.d/*.json")]);
    section(&mut page, "DESCRIPTION");
    paragraph(&mut page, text(schema, "description"));
    paragraph(
        &mut page,
        "It is JSON. The files are joined: `secrets`, `templates` and other lists are added to each other. A fault anywhere makes the whole \
         configuration invalid: `opnix check` names each, with file, line and column. It takes effect by `systemctl reload opnix.service`. \
         Nobody but root may be able to write to it. A duration is a number with a unit, such as `30s`, `15m`, `12h` or `7d`.",
    );
    section(&mut page, "KEYS");
    let mut open = keys(&mut page, schema, schema);
    let mut seen = BTreeSet::new();
    while let Some(name) = open.pop_front() {
        let definition = &schema["$defs"][&name];
        if !seen.insert(name.clone()) || definition.get("properties").is_none() {
            continue;
        }
        section(&mut page, &heading(&name));
        paragraph(&mut page, text(definition, "description"));
        open.extend(keys(&mut page, definition, schema));
    }
    section(&mut page, "EXAMPLE");
    page.control("nf", []);
    for line in example.lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []);
    section(&mut page, "FILES");
    for (file, what) in [
        ("/etc/opnix/secrets.json", "The configuration. It holds references, never secrets."),
        ("/etc/opnix/secrets.d/*.json", "More of it, in the order of the names; need not be there."),
        ("/usr/share/doc/opnix/secrets.json.example", "An example."),
        ("/usr/share/doc/opnix/docs/secrets.schema.json", "The same as this page, for programs."),
        ("/usr/share/doc/opnix/docs/configuration.md", "What each key is for, at more length."),
    ] {
        page.control("TP", []);
        page.text([bold(file)]);
        page.text([roman(what)]);
    }
    section(&mut page, "SEE ALSO");
    let pages = ["opnix", "opnix-check", "opnix-explain", "opnix-schema", "systemd.exec", "systemd.time"];
    let sections = ["(1)", "(1)", "(1)", "(1)", "(5)", "(7)"];
    let mut line: Vec<Inline> = Vec::new();
    for (number, (page, section)) in pages.iter().zip(sections).enumerate() {
        line.extend([bold(*page), roman(section), roman(if number + 1 < pages.len() { ", " } else { "" })]);
    }
    page.text(line);
    page.render()
}

fn section(page: &mut Roff, name: &str) {
    page.control("SH", [name]);
}

fn paragraph(page: &mut Roff, text: &str) {
    page.control("PP", []);
    page.text(inline(text));
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

/// What stands between backticks is bold.
fn inline(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate();
    parts.map(|(number, part)| if number % 2 == 1 { bold(part) } else { roman(part) }).collect()
}

/// `SecretEntry`: `SECRET ENTRY`.
fn heading(name: &str) -> String {
    let mut heading = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !heading.is_empty() {
            heading.push(' ');
        }
        heading.extend(c.to_uppercase());
    }
    heading
}

/// The keys of an object, each with its type and what it is for; returns what else they may be made of.
fn keys(page: &mut Roff, object: &Value, schema: &Value) -> VecDeque<String> {
    let mut used = VecDeque::new();
    let required =
        |key: &str| object["required"].as_array().is_some_and(|keys| keys.iter().any(|name| name == key));
    for (key, property) in object["properties"].as_object().into_iter().flatten() {
        if KEYS_WITHOUT_USE.contains(&key.as_str()) {
            continue;
        }
        page.control("TP", []);
        let must = if required(key) { ", required" } else { "" };
        page.text([
            bold(key),
            roman(" ("),
            italic(kind(property, schema, &mut used)),
            roman(format!("{must})")),
        ]);
        page.text(inline(text(property, "description")));
        for name in words(property, schema) {
            page.control("br", []);
            let (name, what) = name;
            page.text([bold(name), roman(format!(": {what}"))]);
        }
    }
    used
}

/// The definitions that a property leads to, itself or in a list.
fn references(property: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(name) = property["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
        found.push(name.to_owned());
    }
    for part in ["anyOf", "oneOf", "allOf"] {
        property[part].as_array().into_iter().flatten().for_each(|value| found.extend(references(value)));
    }
    for part in ["items", "additionalProperties"] {
        if property[part].is_object() {
            found.extend(references(&property[part]));
        }
    }
    found
}

/// What it is: `text`, `list of SECRET ENTRY` and so on.
fn kind(property: &Value, schema: &Value, used: &mut VecDeque<String>) -> String {
    let name = |kind: &str| match kind {
        "string" => "text".to_owned(),
        "integer" => "number".to_owned(),
        "boolean" => "true or false".to_owned(),
        "object" => "object".to_owned(),
        kind => kind.to_owned(),
    };
    let mut kinds: Vec<String> = Vec::new();
    match &property["type"] {
        Value::String(kind) if kind == "array" => {
            kinds.push(format!("list of {}", kind_of(&property["items"], schema, used)));
        }
        Value::String(kind) if kind == "object" => {
            let values = &property["additionalProperties"];
            let of = if values.is_object() {
                format!(" of {}", kind_of(values, schema, used))
            } else {
                String::new()
            };
            kinds.push(format!("object{of}"));
        }
        Value::String(kind) => kinds.push(name(kind)),
        Value::Array(several) => {
            let several = several.iter().filter_map(Value::as_str).filter(|kind| *kind != "null");
            for kind in several {
                match kind {
                    "array" => kinds.push(format!("list of {}", kind_of(&property["items"], schema, used))),
                    kind => kinds.push(name(kind)),
                }
            }
        }
        _ => {}
    }
    if let Some(path) = property["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
        let definition = &schema["$defs"][path];
        if definition.get("properties").is_some() {
            used.push_back(path.to_owned());
            kinds.push(heading(path));
        } else if definition["oneOf"]
            .as_array()
            .is_some_and(|words| words.iter().all(|word| word.get("const").is_some()))
        {
            kinds.push("word".to_owned());
        } else {
            kinds.push(kind_of(definition, schema, used));
        }
    }
    for part in ["anyOf", "oneOf"] {
        for value in property[part].as_array().into_iter().flatten().filter(|value| value["type"] != "null") {
            let kind =
                if value.get("const").is_some() { "word".to_owned() } else { kind_of(value, schema, used) };
            kinds.push(kind);
        }
    }
    let mut seen = BTreeSet::new();
    kinds.retain(|kind| !kind.is_empty() && seen.insert(kind.clone()));
    kinds.join(" or ")
}

fn kind_of(value: &Value, schema: &Value, used: &mut VecDeque<String>) -> String {
    kind(value, schema, used)
}

/// The words that a property may be, with what each is for.
fn words(property: &Value, schema: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for name in references(property) {
        for word in schema["$defs"][&name]["oneOf"].as_array().into_iter().flatten() {
            if let Some(word_is) = word["const"].as_str() {
                found.push((word_is.to_owned(), text(word, "description").to_owned()));
            }
        }
    }
    found
}
