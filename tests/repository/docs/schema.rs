//! The JSON Schema that editors get, held against the reader that decides: key by key, and value by value.

use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

use serde_json::{Map, Value, json};

use super::json_schema::{resolve, validate};
use crate::{files_below, root};

/// The least that `schema` and the reader allow under `key`.
fn least(key: &str, schema: &Value, whole: &Value) -> Value {
    let schema = resolve(schema, whole);
    if let Some(alternatives) = schema.get("anyOf").or(schema.get("oneOf")) {
        return least(key, &alternatives[0], whole);
    }
    if let Some(word) = schema.get("const") {
        return word.clone();
    }
    let name = schema["type"].as_str().or(schema["type"][0].as_str()).unwrap();
    match name {
        "boolean" => json!(true),
        "integer" => json!(1),
        "array" => json!([least(key, &schema["items"], whole)]),
        "object" if schema.get("properties").is_none() => {
            json!({"x": least(key, &schema["additionalProperties"], whole)})
        }
        "object" => {
            let keys = schema["properties"].as_object().unwrap();
            let mut needed: BTreeSet<&str> = schema["required"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|key| key.as_str().unwrap())
                .collect();
            // To have a secret or template delivered nowhere, or under no name, is a fault of another kind.
            if keys.contains_key("units") {
                needed.extend(["name", "path"]);
            }
            // And a template without its text.
            needed.extend(keys.contains_key("template_file").then_some("template"));
            needed.into_iter().map(|key| (key.to_owned(), least(key, &keys[key], whole))).collect()
        }
        _ => json!(match key {
            "host" => "https://connect.example.org",
            "reference" => "op://v/i/f",
            "template" => "{{ op://v/i/f }}",
            "template_file" => concat!(env!("CARGO_MANIFEST_DIR"), "/tests/repository/docs/template.txt"),
            "mirror_root" => "/run/x",
            "link_root" => "/home/x",
            "signal" => "SIGHUP",
            "deadline" | "short_deadline" | "interval" | "fresh_for" | "stale_for" | "grace" | "refresh" =>
                "30s",
            "unit" | "units" => "a.service",
            "mode" => "0400",
            "hosts" => "op.example.org",
            "path" | "library" | "authority" => "/srv/file",
            "symlinks" => "/srv/link",
            // A new key whose text must be of some kind finds no favour with the reader: give it a line above.
            _ => "x",
        }),
    }
}

/// The document that holds this value in its place.
type Within<'a> = Rc<dyn Fn(Value) -> Value + 'a>;

/// Every object that a document can hold: the key that it stands under, its schema, and its place.
type Found<'a> = Vec<(&'a str, &'a Map<String, Value>, Within<'a>)>;

fn objects<'a>(
    name: &'a str,
    schema: &'a Value,
    whole: &'a Value,
    within: Within<'a>,
    found: &mut Found<'a>,
) {
    let schema = resolve(schema, whole);
    for alternative in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
        objects(name, alternative, whole, within.clone(), found);
    }
    if let Some(items) = schema.get("items") {
        let within = within.clone();
        objects(name, items, whole, Rc::new(move |value| within(json!([value]))), found);
    }
    if let Some(members) = schema.get("additionalProperties").filter(|schema| schema.is_object()) {
        let within = within.clone();
        objects(name, members, whole, Rc::new(move |value| within(json!({"x": value}))), found);
    }
    let Some(keys) = schema.get("properties").and_then(Value::as_object) else { return };
    for (key, below) in keys {
        let within = within.clone();
        let put = move |value| within(with(least(name, schema, whole), key, value));
        objects(key, below, whole, Rc::new(put), found);
    }
    found.push((name, schema.as_object().unwrap(), within));
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    if key == "template_file" {
        // It stands instead of the text.
        object.as_object_mut().unwrap().remove("template");
    }
    object.as_object_mut().unwrap().insert(key.to_owned(), value);
    object
}

fn without(mut object: Value, key: &str) -> Value {
    object.as_object_mut().unwrap().remove(key);
    object
}

/// What the reader finds wrong.
fn faults(document: &Value) -> Vec<String> {
    let file =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("schema-{:?}.json", std::thread::current().id()));
    std::fs::write(&file, document.to_string()).unwrap();
    match opnix::internals::config::load_from_anybody(&[file]) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(|fault| fault.what.clone()).collect(),
    }
}

/// Of what is wrong, that which a schema can know: keys, types and words. It does not know names, paths or durations.
fn faults_of_shape(document: &Value) -> Vec<String> {
    let of_shape =
        |fault: &String| ["expected ", "unknown ", "key "].iter().any(|start| fault.starts_with(start));
    faults(document).into_iter().filter(of_shape).collect()
}

#[track_caller]
fn both_take(document: &Value, whole: &Value) {
    assert_eq!(validate(document, whole, whole), Ok(()), "the schema, on {document}");
    assert_eq!(faults(document), [""; 0], "the reader, on {document}");
}

#[track_caller]
fn both_refuse(document: &Value, whole: &Value) {
    assert!(validate(document, whole, whole).is_err(), "the schema takes {document}");
    assert_ne!(faults_of_shape(document), [""; 0], "the reader takes {document}");
}

#[test]
fn the_schema_and_the_reader_know_the_same_keys_and_types() {
    let whole = opnix::internals::config::schema();
    let mut found = Vec::new();
    objects("", &whole, &whole, Rc::new(|value| value), &mut found);
    let mut keys_seen = 0;
    for (name, object, within) in &found {
        let least_object = least(name, &Value::Object((*object).clone()), &whole);
        both_take(&within(least_object.clone()), &whole);
        both_refuse(&within(with(least_object.clone(), "unheard-of", json!(1))), &whole);
        for key in object.get("required").and_then(Value::as_array).into_iter().flatten() {
            both_refuse(&within(without(least_object.clone(), key.as_str().unwrap())), &whole);
        }
        for (key, schema) in object["properties"].as_object().unwrap() {
            both_take(&within(with(least_object.clone(), key, least(key, schema, &whole))), &whole);
            for value in [
                json!(null),
                json!(true),
                json!(7),
                json!(-1),
                json!(1.5),
                json!("?"),
                json!([]),
                json!({}),
                json!([[]]),
            ] {
                let document = within(with(least_object.clone(), key, value));
                let schema = validate(&document, &whole, &whole);
                let reader = faults_of_shape(&document);
                assert_eq!(
                    schema.is_ok(),
                    reader.is_empty(),
                    "{document}: schema {schema:?}, reader {reader:?}"
                );
            }
            keys_seen += 1;
        }
    }
    assert!(found.len() > 10 && keys_seen > 50, "{} objects, {keys_seen} keys", found.len());
}

#[test]
fn the_schema_and_the_reader_agree_on_all_configurations_of_the_tests() {
    let whole = opnix::internals::config::schema();
    let (mut taken, mut refused) = (0, 0);
    for path in files_below(&root().join("tests/cli")) {
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        // Some are no JSON, on purpose.
        let text = std::fs::read_to_string(&path).unwrap();
        let Ok(document) = serde_json::from_str(&text) else { continue };
        let (schema, reader) = (validate(&document, &whole, &whole), faults_of_shape(&document));
        assert_eq!(schema.is_ok(), reader.is_empty(), "{path:?}: schema {schema:?}, reader {reader:?}");
        *if schema.is_ok() { &mut taken } else { &mut refused } += 1;
    }
    assert!(taken >= 10 && refused >= 5, "{taken} taken, {refused} refused");
}

#[test]
fn every_configuration_in_the_documentation_is_valid_by_the_schema() {
    let whole = opnix::internals::config::schema();
    let examples = super::configurations();
    assert!(examples.len() >= 2, "the README and docs/configuration.md show one each");
    for (document, example) in examples {
        let example: Value = serde_json::from_str(&example).unwrap();
        assert_eq!(validate(&example, &whole, &whole), Ok(()), "{}", document.display());
    }
}
