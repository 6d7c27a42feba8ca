//! A file while it is read: its syntax tree, the places in it, and the faults.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jsonc_parser::ast::Value;
use jsonc_parser::common::{Range, Ranged};
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use crate::config::fault::Faults;
use crate::place::Place;
use crate::remedy::{Problem, Remedy};
use crate::similar::did_you_mean;

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

    /// `None` when it cannot be read. All faults in it are noted, also where only a part of it cannot be read.
    fn decode(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self>;

    /// What stands for a key that is not there; `None` when it must be.
    fn absent() -> Option<Self> {
        None
    }

    /// What stands for a key whose fault is noted already, so that the other keys are read too; `None` gives up the
    /// object.
    fn faulty() -> Option<Self> {
        Self::absent()
    }
}

/// The file that is being read, and what is wrong with it so far.
pub struct Reader<'a> {
    file: Arc<Path>,
    text: &'a str,
    positions: Positions,
    faults: &'a mut Faults,
}

/// Lines and columns of a text, without counting from its start for each: it may be one line of a megabyte.
struct Positions {
    /// Where each line begins.
    lines: Vec<usize>,
    /// How many characters there are before each block.
    characters: Vec<usize>,
}

impl Positions {
    /// In bytes.
    const BLOCK: usize = 1024;

    fn new(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let mut characters = vec![0];
        for block in text.as_bytes().chunks(Self::BLOCK) {
            characters.push(characters[characters.len() - 1] + count(block));
        }
        Self { lines: [0].into_iter().chain(breaks).collect(), characters }
    }

    /// Both from 1.
    fn of(&self, text: &str, at: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= at);
        (line, self.before(text, at) - self.before(text, self.lines[line - 1]) + 1)
    }

    /// How many characters there are before this byte.
    fn before(&self, text: &str, at: usize) -> usize {
        let block = at / Self::BLOCK;
        self.characters[block] + count(&text.as_bytes()[block * Self::BLOCK..at])
    }
}

/// The characters that begin in these bytes.
fn count(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
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
    let positions = Positions::new(text);
    let mut reader = Reader { file: file.into(), text, positions, faults };
    match parse_to_ast(text, &CollectOptions::default(), &strict) {
        Ok(tree) => match tree.value {
            Some(value) => T::decode(&value, &mut reader),
            None => {
                let place = Place { file: file.into(), position: None };
                let problem = Problem::new("the file is empty", "the least that it can hold is {}");
                reader.faults.add(&place, &problem);
                None
            }
        },
        Err(error) => {
            let place = reader.place(error.range());
            let what = format!("not valid JSON: {}", error.kind().to_string().to_lowercase());
            reader.faults.add(&place, &Problem::plain(what));
            None
        }
    }
}

impl<'a> Reader<'a> {
    fn place(&self, range: Range) -> Place {
        let position = self.positions.of(self.text, range.start.min(self.text.len()));
        Place { file: self.file.clone(), position: Some(position) }
    }

    pub fn fault(&mut self, value: &impl Ranged, error: &impl Remedy) {
        let place = self.place(value.range());
        self.faults.add(&place, error);
    }

    /// Notes that `value` is something else than a `T`.
    pub fn expected<T: Decode>(&mut self, value: &Value<'_>) -> Option<T> {
        let found = match value {
            Value::StringLit(_) => "a string",
            Value::NumberLit(_) => "a number",
            Value::BooleanLit(_) => "true or false",
            Value::Object(_) => "an object",
            Value::Array(_) => "a list",
            Value::NullKeyword(_) => "null",
        };
        self.fault(value, &Problem::plain(format!("expected {}, found {found}", T::EXPECTED)));
        None
    }

    /// The members of an object, in which every key must be one of `known` and stand once.
    pub fn object<'v, T: Decode>(&mut self, value: &'v Value<'v>, known: &[&str]) -> Option<Members<'v>> {
        let Value::Object(object) = value else { return self.expected::<T>(value).and(None) };
        let mut members = BTreeMap::new();
        for property in &object.properties {
            let key = property.name.as_str();
            if !known.contains(&key) {
                let remedy = did_you_mean(key, known.iter().copied())
                    .unwrap_or_else(|| format!("known here are {}", known.join(", ")));
                self.fault(property, &Problem::new(format!("unknown key {key:?}"), remedy));
            } else if members.insert(key, &property.value).is_some() {
                self.twice(property, key);
            }
        }
        Some(Members { range: object.range, members })
    }

    /// Notes that a key stands twice.
    pub fn twice(&mut self, property: &impl Ranged, key: &str) {
        self.fault(property, &Problem::new(format!("key {key:?} stands here twice"), "keep one of them"));
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
                let problem =
                    Problem::new(format!("key {key:?} is missing"), format!("it is {}", T::EXPECTED));
                reader.faults.add(&place, &problem);
                T::faulty()
            }),
        }
    }
}

impl<T: Decode> Decode for At<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn decode(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let place = reader.place(value.range());
        Some(Self { value: T::decode(value, reader)?, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_that_are_counted_from_the_start() {
        let text: String =
            (0..4000).map(|number| ["é", "\n", "x", "😀", "\r\n"][number * number % 5]).collect();
        let positions = Positions::new(&text);
        for (at, _) in text.char_indices().chain([(text.len(), ' ')]) {
            let before = &text[..at];
            let start = before.rfind('\n').map_or(0, |at| at + 1);
            let counted = (before.matches('\n').count() + 1, before[start..].chars().count() + 1);
            assert_eq!(positions.of(&text, at), counted, "{at}");
        }
    }
}
