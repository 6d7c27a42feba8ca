//! The values that any key can have: strings, numbers, lists, maps, and keys that may or must be there.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use jsonc_parser::ast::Value;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::reader::{At, Decode, Reader};

impl Decode for String {
    const EXPECTED: &'static str = "a string";

    fn decode(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match value {
            Value::StringLit(string) => Some(string.value.to_string()),
            _ => reader.expected::<Self>(value),
        }
    }
}

impl Decode for bool {
    const EXPECTED: &'static str = "true or false";

    fn decode(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match value {
            Value::BooleanLit(boolean) => Some(boolean.value),
            _ => reader.expected::<Self>(value),
        }
    }
}

impl Decode for u32 {
    const EXPECTED: &'static str = "a whole number";

    fn decode(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match value {
            Value::NumberLit(number) => number.value.parse().ok().or_else(|| reader.expected::<Self>(value)),
            _ => reader.expected::<Self>(value),
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn decode(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match value {
            Value::NullKeyword(_) => Some(None),
            _ => T::decode(value, reader).map(Some),
        }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Decode> Decode for Vec<T> {
    const EXPECTED: &'static str = "a list";

    fn decode(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::Array(array) = value else { return reader.expected::<Self>(value) };
        Some(array.elements.iter().filter_map(|element| T::decode(element, reader)).collect())
    }

    fn absent() -> Option<Self> {
        Some(Vec::new())
    }
}

impl<T: Decode> Decode for BTreeMap<String, T> {
    const EXPECTED: &'static str = "an object";

    fn decode(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::Object(object) = value else { return reader.expected::<Self>(value) };
        let mut members = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for property in &object.properties {
            let key = property.name.as_str();
            if !seen.insert(key) {
                reader.twice(property, key);
            } else if let Some(member) = T::decode(&property.value, reader) {
                members.insert(key.to_owned(), member);
            }
        }
        Some(members)
    }

    fn absent() -> Option<Self> {
        Some(BTreeMap::new())
    }
}

/// A key that must be there. `None` means that its fault is noted already: the configuration is not valid then, but the
/// faults of the keys beside it are found in the same run.
#[derive(Debug, Clone)]
pub struct Required<T>(pub Option<T>);

impl<T: Decode> Decode for Required<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn decode(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        T::decode(value, reader).map(|value| Self(Some(value)))
    }

    fn faulty() -> Option<Self> {
        Some(Self(None))
    }
}

/// In the schema these are the values that they hold.
macro_rules! transparent {
    ($($wrapper:ident)*) => {$(
        impl<T: JsonSchema> JsonSchema for $wrapper<T> {
            fn inline_schema() -> bool {
                T::inline_schema()
            }

            fn schema_name() -> Cow<'static, str> {
                T::schema_name()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                T::json_schema(generator)
            }
        }
    )*};
}

transparent!(At Required);
