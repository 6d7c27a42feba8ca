//! As much of JSON Schema as ours is made of.

use serde_json::Value;

/// What JSON Schema says of `value`, with a panic for whatever our schema is not made of.
///
/// By hand, because the crates that do it bring forty others along.
pub fn validate(value: &Value, schema: &Value, whole: &Value) -> Result<(), String> {
    let no = |why: String| Err(format!("{value}: {why}"));
    for (keyword, wanted) in schema.as_object().unwrap() {
        let any = || {
            let alternatives = wanted.as_array().unwrap().iter();
            alternatives.map(|schema| validate(value, schema, whole)).filter(Result::is_ok).count()
        };
        match keyword.as_str() {
            "$defs" | "$schema" | "title" | "description" | "format" => {}
            "$ref" => validate(value, resolve(schema, whole), whole)?,
            "anyOf" if any() == 0 => return no("none of the alternatives".into()),
            "oneOf" if any() != 1 => return no("not one of the alternatives".into()),
            "anyOf" | "oneOf" => {}
            "const" if value != wanted => return no(format!("not {wanted}")),
            "const" => {}
            "minimum" if value.is_number() && value.as_i64() < wanted.as_i64() => {
                return no(format!("below {wanted}"));
            }
            "minimum" => {}
            "type" => {
                let types = wanted.as_array().cloned().unwrap_or_else(|| vec![wanted.clone()]);
                if !types.iter().any(|name| is_of(value, name.as_str().unwrap())) {
                    return no(format!("not of type {wanted}"));
                }
            }
            "required" => {
                let mut keys = wanted.as_array().unwrap().iter().map(|key| key.as_str().unwrap());
                if let Some(key) = keys.find(|key| value.is_object() && value.get(key).is_none()) {
                    return no(format!("{key} is required"));
                }
            }
            "items" => {
                value.as_array().into_iter().flatten().try_for_each(|item| validate(item, wanted, whole))?
            }
            "properties" => {
                for (key, member) in value.as_object().into_iter().flatten() {
                    wanted.get(key).map_or(Ok(()), |schema| validate(member, schema, whole))?;
                }
            }
            "additionalProperties" => {
                let known =
                    |key: &String| schema.get("properties").is_some_and(|keys| keys.get(key).is_some());
                for (key, member) in value.as_object().into_iter().flatten().filter(|(key, _)| !known(key)) {
                    match wanted {
                        Value::Bool(false) => return no(format!("{key} is not known")),
                        schema => validate(member, schema, whole)?,
                    }
                }
            }
            other => panic!("our schema has a new keyword: {other}; teach it to this test"),
        }
    }
    Ok(())
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("our schema has a new type: {other}"),
    }
}

pub fn resolve<'a>(schema: &'a Value, whole: &'a Value) -> &'a Value {
    match schema.get("$ref") {
        Some(path) => whole.pointer(path.as_str().unwrap().strip_prefix('#').unwrap()).unwrap(),
        None => schema,
    }
}
