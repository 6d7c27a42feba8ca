//! Items with their fields and files, and what a reference names in them.
//!
//! Read from the JSON of 1Password Connect, which the provider `local` uses as well; the items of the SDK are converted to
//! the same types (`service_account/item.rs`). Values stay raw JSON text, so that no parser leaves a copy of them behind.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::naming::{Nameable, only};
use crate::providers::error::{FetchError, ObjectKind};
use crate::reference::{Kind, Query, Reference};

#[derive(Deserialize)]
pub struct Item<'a> {
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    #[serde(borrow)]
    pub title: Cow<'a, str>,
    /// The labels of sections, where fields and files name their section by id only.
    #[serde(borrow, default)]
    pub sections: Vec<Section<'a>>,
    #[serde(borrow, default)]
    pub fields: Vec<Field<'a>>,
    #[serde(borrow, default)]
    pub files: Vec<File<'a>>,
}

#[derive(Deserialize)]
pub struct Field<'a> {
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    #[serde(borrow, default)]
    pub label: Cow<'a, str>,
    #[serde(borrow)]
    pub value: Option<&'a RawValue>,
    #[serde(borrow)]
    pub section: Option<Section<'a>>,
    /// The current code, where the field is a one-time password.
    #[serde(borrow, alias = "otp")]
    pub totp: Option<&'a RawValue>,
    /// Whether the value is made from another field, and must be asked for by its reference.
    #[serde(skip)]
    pub derived: bool,
}

#[derive(Deserialize)]
pub struct File<'a> {
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// In base64; absent where it needs a request of its own.
    #[serde(borrow)]
    pub content: Option<&'a RawValue>,
    #[serde(borrow)]
    pub section: Option<Section<'a>>,
    /// In bytes.
    #[serde(default)]
    pub size: u64,
}

#[derive(Clone, Deserialize)]
pub struct Section<'a> {
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    #[serde(borrow, default)]
    pub label: Cow<'a, str>,
}

macro_rules! nameable {
    ($($type:ident $what:ident $name:ident,)*) => {
        $(impl Nameable for $type<'_> {
            const KIND: ObjectKind = ObjectKind::$what;
            fn id(&self) -> &str { &self.id }
            fn name(&self) -> &str { &self.$name }
        })*
    };
}
nameable! { Item Item title, Field Field label, File File name, Section Section label, }

/// What a reference names within an item.
pub enum Found<'i, 'a> {
    /// A JSON string.
    Text(&'a RawValue),
    /// Something that is made from a field, such as an SSH key in another format.
    Derived,
    File(&'i File<'a>),
}

impl<'a> Item<'a> {
    /// Finds what `reference` names in this item.
    pub fn find<'i>(&'i self, reference: &Reference) -> Result<Found<'i, 'a>, FetchError> {
        let item = &reference.item;
        let in_section = |section: &Option<Section<'_>>| match (&reference.section, section) {
            (None, _) => true,
            (Some(wanted), Some(section)) => self.is_section(section, wanted),
            (Some(wanted), None) => wanted.is_empty(),
        };
        let mut used = self.fields.iter().map(|f| &f.section).chain(self.files.iter().map(|f| &f.section));
        if let Some(section) = &reference.section
            && !self.sections.iter().any(|known| self.is_section(known, section))
            && !used.any(in_section)
        {
            return Err(FetchError::SectionNotFound { item: item.clone(), section: section.clone() });
        }
        match reference.kind {
            Kind::Field => {
                let fields = self.fields.iter().filter(|field| in_section(&field.section));
                let field = only(fields, &reference.field)?.ok_or_else(|| FetchError::FieldNotFound {
                    item: item.clone(),
                    field: reference.field.clone(),
                })?;
                field.view(reference)
            }
            Kind::File => {
                let files = self.files.iter().filter(|file| in_section(&file.section));
                let file = only(files, &reference.field)?;
                let missing =
                    || FetchError::FileNotFound { item: item.clone(), file: reference.field.clone() };
                file.map(Found::File).ok_or_else(missing)
            }
        }
    }

    /// Whether a section answers to `wanted`, by its own label or by the label that the item has for its id.
    fn is_section(&self, section: &Section<'_>, wanted: &str) -> bool {
        let mut same = self.sections.iter().filter(|other| other.id == section.id);
        let labelled = same.any(|other| other.answers_to(wanted));
        // A section whose label only the item has is not an unnamed one.
        let unnamed = section.label.is_empty() && !self.sections.is_empty();
        labelled || (section.answers_to(wanted) && !(wanted.is_empty() && unnamed))
    }
}

impl<'a> Field<'a> {
    /// The view of the field that the query asks for.
    fn view<'i>(&self, reference: &Reference) -> Result<Found<'i, 'a>, FetchError> {
        let unsupported =
            |what: &str| FetchError::Unsupported { reference: reference.to_string(), what: what.into() };
        match &reference.query {
            None if self.derived => Ok(Found::Derived),
            None => {
                let empty = || FetchError::Empty { reference: reference.to_string() };
                self.value.map(Found::Text).ok_or_else(empty)
            }
            Some(Query::Attribute(attribute)) if ["otp", "totp"].contains(&attribute.as_str()) => {
                self.totp.map(Found::Text).ok_or_else(|| unsupported("the field is not a one-time password"))
            }
            Some(Query::Attribute(_)) => Err(unsupported("the only attribute that opnix knows is `otp`")),
            Some(Query::SshFormat(_)) => Ok(Found::Derived),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::ask::value::{bytes, text};
    use crate::secret::Secret;

    const ITEM: &str = r#"{"id": "itm1", "title": "OpenAI", "category": "LOGIN",
        "sections": [{"id": "s1", "label": "Prod"}, {"id": "s2", "label": "Empty"}],
        "fields": [
            {"id": "f1", "type": "STRING", "label": "credential", "value": "sk-1"},
            {"id": "f2", "label": "password", "value": "top"},
            {"id": "f3", "label": "password", "value": "prod\n\"\u00e9\ud83d\ude00/\/", "section": {"id": "s1"}},
            {"id": "f4", "label": "blank", "value": ""},
            {"id": "f5", "label": "unset"},
            {"id": "f6", "label": "number", "value": 7},
            {"id": "f7", "label": "half", "value": "\ud83dx"},
            {"id": "f8", "label": "one-time password", "value": "otpauth://totp/x", "totp": "123456"}],
        "files": [{"id": "x1", "name": "key.pem", "content": "AAH/"}, {"id": "x2", "name": "bad", "content": "?"},
            {"id": "x3", "name": "void", "content": ""}]}"#;

    fn get(reference: &str, kind: Kind) -> Result<Vec<u8>, FetchError> {
        let item: Item<'_> = serde_json::from_str(ITEM).unwrap();
        let reference = Reference { kind, ..reference.parse().unwrap() };
        let secret = match item.find(&reference)? {
            Found::Text(value) => text(value, &reference)?,
            Found::File(file) => bytes(file.content.unwrap(), &reference)?,
            Found::Derived => Secret::copy_from(b"a key").unwrap(),
        };
        Ok(secret.expose().to_vec())
    }

    fn field(reference: &str) -> Result<Vec<u8>, FetchError> {
        get(reference, Kind::Field)
    }

    #[test]
    fn names_count_in_any_case_and_ids_as_they_stand() {
        assert_eq!(field("op://vlt1/itm1/Credential").unwrap(), b"sk-1");
        assert_eq!(field("op://vlt1/itm1/f1").unwrap(), b"sk-1");
        assert_eq!(field("op://vlt1/itm1/F1").unwrap(), b"sk-1");
        assert_eq!(field("op://vlt1/itm1//password").unwrap(), b"top");
    }

    #[test]
    fn values_are_unescaped_byte_for_byte() {
        assert_eq!(field("op://vlt1/itm1/prod/password").unwrap(), "prod\n\"é😀//".as_bytes());
    }

    #[test]
    fn two_that_answer_to_one_name_are_an_error_with_their_ids() {
        let Err(FetchError::Ambiguous { candidates, .. }) = field("op://vlt1/itm1/password") else {
            panic!()
        };
        assert_eq!(candidates, ["f2", "f3"]);
    }

    #[test]
    fn an_empty_or_missing_value_is_an_error() {
        for reference in ["op://vlt1/itm1/blank", "op://vlt1/itm1/unset"] {
            assert!(matches!(field(reference), Err(FetchError::Empty { .. })), "{reference}");
        }
        assert!(matches!(get("op://vlt1/itm1/void", Kind::File), Err(FetchError::Empty { .. })));
    }

    #[test]
    fn what_is_not_there_is_named() {
        assert!(matches!(field("op://vlt1/itm1/empty/f1"), Err(FetchError::FieldNotFound { .. })));
        assert!(matches!(field("op://vlt1/itm1/other/f1"), Err(FetchError::SectionNotFound { .. })));
        assert!(matches!(field("op://vlt1/itm1/other"), Err(FetchError::FieldNotFound { .. })));
        assert!(matches!(get("op://vlt1/itm1/other", Kind::File), Err(FetchError::FileNotFound { .. })));
    }

    #[test]
    fn what_cannot_be_read_is_malformed() {
        for reference in ["op://vlt1/itm1/number", "op://vlt1/itm1/half"] {
            assert!(matches!(field(reference), Err(FetchError::Malformed { .. })), "{reference}");
        }
        assert!(matches!(get("op://vlt1/itm1/bad", Kind::File), Err(FetchError::Malformed { .. })));
    }

    #[test]
    fn a_query_asks_for_another_view() {
        assert_eq!(field("op://v/i/one-time password?attribute=otp").unwrap(), b"123456");
        assert_eq!(field("op://v/i/one-time password").unwrap(), b"otpauth://totp/x");
        assert_eq!(field("op://v/i/credential?ssh-format=openssh").unwrap(), b"a key");
        for unknown in ["op://v/i/credential?attribute=otp", "op://v/i/credential?attribute=age"] {
            assert!(matches!(field(unknown), Err(FetchError::Unsupported { .. })), "{unknown}");
        }
    }

    #[test]
    fn a_file_is_raw_bytes() {
        assert_eq!(get("op://vlt1/itm1/key.pem", Kind::File).unwrap(), [0, 1, 255]);
    }
}
