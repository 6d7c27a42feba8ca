//! The members of a JSON object. What comes from a server may hold anything: only what is used is looked at, and what is wrong
//! with it is the fault of that member alone. Values stay raw JSON text, so that no parser leaves a copy of them behind.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

pub struct Members<'a>(Vec<(String, &'a RawValue)>);

/// A member that is not of the type that it must be of, or that is there more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

impl<'a> Members<'a> {
    pub fn of(object: &'a RawValue) -> Result<Self, Unreadable> {
        serde_json::from_str(object.get()).map_err(|_| Unreadable)
    }

    /// `None` if it is absent or null.
    pub fn raw(&self, name: &str) -> Result<Option<&'a RawValue>, Unreadable> {
        let mut found = self.0.iter().filter(|(member, _)| member == name).map(|(_, value)| *value);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(Unreadable),
            (value, None) => Ok(value.filter(|value| value.get() != "null")),
        }
    }

    pub fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, Unreadable> {
        #[derive(Deserialize)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
        Ok(self.parsed::<Text<'a>>(name)?.map(|text| text.0))
    }

    pub fn number(&self, name: &str) -> Result<Option<u64>, Unreadable> {
        self.parsed(name)
    }

    pub fn object(&self, name: &str) -> Result<Option<Members<'a>>, Unreadable> {
        self.parsed(name)
    }

    /// Absent and null are an empty list.
    pub fn list(&self, name: &str) -> Result<Vec<&'a RawValue>, Unreadable> {
        Ok(self.parsed(name)?.unwrap_or_default())
    }

    fn parsed<T: Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, Unreadable> {
        let raw = self.raw(name)?;
        raw.map(|raw| serde_json::from_str(raw.get()).map_err(|_| Unreadable)).transpose()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_must_be_right() {
        let text = r#"{"a": "x\ty", "b": null, "c": 7, "twice": 1, "twice": 2, "list": [{}, 3], "minus": -1, "half": 0.5}"#;
        let members: Members<'_> = serde_json::from_str(text).unwrap();
        assert_eq!(members.text("a").unwrap().as_deref(), Some("x\ty"));
        assert_eq!((members.text("b"), members.text("absent")), (Ok(None), Ok(None)));
        assert_eq!((members.number("c"), members.text("c")), (Ok(Some(7)), Err(Unreadable)));
        assert_eq!(members.number("twice"), Err(Unreadable));
        assert_eq!((members.number("minus"), members.number("half")), (Err(Unreadable), Err(Unreadable)));
        assert_eq!(members.list("list").unwrap().len(), 2);
        assert!(members.list("b").unwrap().is_empty());
        assert!(members.object("list").is_err());
        assert!(serde_json::from_str::<Members<'_>>("[]").is_err());
    }
}
