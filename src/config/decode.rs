//! From JSON text to the types of [`super::file`], noting every fault with its place on the way.
//!
//! serde stops at the first fault and knows no places, so the types are read from a syntax tree that does. The macro
//! [`object!`] makes a type, its reader and its JSON Schema from one list of keys, so that they cannot differ.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use jsonc_parser::ast::Value;
use jsonc_parser::common::{Range, Ranged};
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::fault::{Faults, nearest};
use crate::place::Place;

/// A value and the place where it was written.
#[derive(Debug, Clone)]
pub struct At<T> {
    pub value: T,
    pub place: Place,
}

/// What can be read from a JSON value.
pub trait Decode: Sized {
    /// For "expected …".
    const EXPECTED: &'static str;

    /// `None` when it cannot be read; the faults are noted then. What can be read of it is.
    fn decode(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self>;

    /// What stands for a key that is not there; `None` when it must be.
    fn absent() -> Option<Self> {
        None
    }

    /// What stands for a key whose fault is noted already, so that the rest is read on; `None` gives the whole up.
    fn faulty() -> Option<Self> {
        Self::absent()
    }
}

/// The file that is being read, and what is wrong with it so far.
pub struct Reader<'a> {
    file: Arc<Path>,
    text: &'a str,
    pub faults: &'a mut Faults,
}

/// Reads one file.
pub fn decode<T: Decode>(file: &Path, text: &str, faults: &mut Faults) -> Option<T> {
    let strict = ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let mut reader = Reader { file: file.into(), text, faults };
    match parse_to_ast(text, &CollectOptions::default(), &strict) {
        Ok(tree) => match tree.value {
            Some(value) => T::decode(&value, &mut reader),
            None => {
                let place = Place { file: file.into(), position: None };
                reader.faults.add(&place, "the file is empty\nthe least that it can hold is {}");
                None
            }
        },
        Err(error) => {
            let place = reader.place(error.range());
            reader.faults.add(&place, format!("not valid JSON: {}", error.kind().to_string().to_lowercase()));
            None
        }
    }
}

impl<'a> Reader<'a> {
    fn place(&self, range: Range) -> Place {
        let before = &self.text[..range.start.min(self.text.len())];
        let line_start = before.rfind('\n').map_or(0, |index| index + 1);
        let position = (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
        Place { file: self.file.clone(), position: Some(position) }
    }

    pub fn fault(&mut self, value: &impl Ranged, message: impl std::fmt::Display) {
        let place = self.place(value.range());
        self.faults.add(&place, message);
    }

    pub fn expected<T: Decode>(&mut self, value: &Value<'_>) -> Option<T> {
        let found = match value {
            Value::StringLit(_) => "a string",
            Value::NumberLit(_) => "a number",
            Value::BooleanLit(_) => "true or false",
            Value::Object(_) => "an object",
            Value::Array(_) => "a list",
            Value::NullKeyword(_) => "null",
        };
        self.fault(value, format!("expected {}, found {found}", T::EXPECTED));
        None
    }

    /// The members of an object, where every key is one of `known` and stands there once.
    pub fn object<'v, T: Decode>(&mut self, value: &'v Value<'v>, known: &[&str]) -> Option<Members<'v>> {
        let Value::Object(object) = value else { return self.expected::<T>(value).and(None) };
        let mut members = BTreeMap::new();
        for property in &object.properties {
            let key = property.name.as_str();
            if !known.contains(&key) {
                let remedy = match nearest(key, known.iter().copied()) {
                    Some(word) => format!("did you mean {word:?}?"),
                    None => format!("known here are {}", known.join(", ")),
                };
                self.fault(property, format!("unknown key {key:?}\n{remedy}"));
            } else if members.insert(key, &property.value).is_some() {
                self.twice(property, key);
            }
        }
        Some(Members { range: object.range, members })
    }

    fn twice(&mut self, property: &impl Ranged, key: &str) {
        self.fault(property, format!("key {key:?} stands here twice\nkeep one of them"));
    }
}

/// The members of one object.
pub struct Members<'v> {
    range: Range,
    members: BTreeMap<&'v str, &'v Value<'v>>,
}

impl<'v> Members<'v> {
    pub fn field<T: Decode>(&self, key: &str, reader: &mut Reader<'_>) -> Option<T> {
        match self.members.get(key) {
            Some(value) => T::decode(value, reader).or_else(T::faulty),
            None => T::absent().or_else(|| {
                let place = reader.place(self.range);
                reader.faults.add(&place, format!("key {key:?} is missing\nit is {}", T::EXPECTED));
                T::faulty()
            }),
        }
    }
}

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

impl<T: Decode> Decode for At<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn decode(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let place = reader.place(value.range());
        Some(Self { value: T::decode(value, reader)?, place })
    }
}

/// A key that must be there. `None` is a fault that is noted already: no valid configuration comes of it, but the
/// faults of what stands beside it are found in the same run.
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

/// To the schema these are the values that they hold.
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

/// Defines an object of the configuration file: its type, its reader and its JSON Schema.
macro_rules! object {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $key:literal => $field:ident: $type:ty,)* }) => {
        #[derive(Debug, Clone, schemars::JsonSchema)]
        $(#[$meta])*
        #[schemars(deny_unknown_fields, transform = Self::require)]
        // Some keys are accepted for compatibility only.
        #[allow(dead_code)]
        pub struct $name { $($(#[$doc])* #[schemars(rename = $key)] pub $field: $type,)* }

        impl $name {
            /// The schema requires what the reader does; left to itself it would require every list and map.
            fn require(schema: &mut schemars::Schema) {
                let required = [$(<$type>::absent().is_none().then_some($key)),*];
                let required: Vec<&str> = required.into_iter().flatten().collect();
                schema.remove("required");
                if !required.is_empty() {
                    schema.insert("required".into(), required.into());
                }
            }
        }

        impl $crate::config::decode::Decode for $name {
            const EXPECTED: &'static str = "an object";

            fn decode(
                value: &jsonc_parser::ast::Value<'_>,
                reader: &mut $crate::config::decode::Reader<'_>,
            ) -> Option<Self> {
                let members = reader.object::<Self>(value, &[$($key),*])?;
                $(let $field = members.field::<$type>($key, reader);)*
                Some(Self { $($field: $field?,)* })
            }
        }
    };
}

/// Defines a choice between words: its type, its reader and its JSON Schema.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $word:literal => $variant:ident,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, schemars::JsonSchema)]
        pub enum $name { $($(#[$doc])* #[schemars(rename = $word)] $variant,)* }

        impl $crate::config::decode::Decode for $name {
            const EXPECTED: &'static str = concat!("one of", $(" \"", $word, "\""),*);

            fn decode(
                value: &jsonc_parser::ast::Value<'_>,
                reader: &mut $crate::config::decode::Reader<'_>,
            ) -> Option<Self> {
                match value {
                    jsonc_parser::ast::Value::StringLit(string) => match &*string.value {
                        $($word => Some(Self::$variant),)*
                        other => {
                            reader.fault(value, format!("unknown word {other:?}\nit is {}", Self::EXPECTED));
                            None
                        }
                    },
                    _ => reader.expected::<Self>(value),
                }
            }
        }
    };
}

pub(super) use {choice, object};
