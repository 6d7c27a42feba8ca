//! Items with their fields and files, and what a reference names in them.
//!
//! They are read from the JSON of 1Password Connect, which the provider `local` uses as well (`reader.rs`), or from that of the
//! SDK (`service_account/item.rs`).

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::members::Unreadable;
use super::naming::{Nameable, names};
use crate::providers::error::{FetchError, ObjectKind};
use crate::reference::{Kind, Query, Reference};

pub struct Item<'a> {
    /// Empty: it is not told.
    pub id: Cow<'a, str>,
    pub title: Cow<'a, str>,
    /// Archived or deleted.
    pub gone: bool,
    /// The labels of sections, where fields and files name their section by id only.
    pub sections: Vec<Section<'a>>,
    pub fields: Vec<Field<'a>>,
    pub files: Vec<File<'a>>,
    /// Something of it could not be read: what is not found may be there.
    pub spoiled: bool,
}

pub struct Field<'a> {
    pub id: Cow<'a, str>,
    pub label: Cow<'a, str>,
    pub section: Place<'a>,
    pub value: Value<'a>,
    pub code: Code<'a>,
}

pub enum Value<'a> {
    /// A JSON string.
    Text(&'a RawValue),
    Nothing,
    /// It is made from another field, and must be asked for by its reference.
    Derived,
    /// Of a kind that the provider has no text for.
    Unknown,
    Unreadable,
}

/// The current one-time password.
pub enum Code<'a> {
    /// The field is none.
    NotOne,
    /// A JSON string.
    Text(&'a RawValue),
    /// The provider can make none of what is in the field. Its words for why are left out: they may quote it.
    Failed,
    Unreadable,
}

pub struct File<'a> {
    pub id: Cow<'a, str>,
    pub name: Cow<'a, str>,
    /// In base64; absent where it needs a request of its own.
    pub content: Option<&'a RawValue>,
    pub section: Place<'a>,
    /// In bytes.
    pub size: Option<u64>,
}

#[derive(Clone)]
pub struct Section<'a> {
    pub id: Cow<'a, str>,
    pub label: Cow<'a, str>,
}

/// The section that a field or file is in, if it is in one.
pub type Place<'a> = Result<Option<Section<'a>>, Unreadable>;

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
    /// Something that is made from this field, such as an SSH key in another format.
    Derived(&'i Field<'a>),
    File(&'i File<'a>),
}

/// What is in sections.
trait Placed: Nameable {
    fn place(&self) -> &Place<'_>;
}

impl Placed for Field<'_> {
    fn place(&self) -> &Place<'_> {
        &self.section
    }
}

impl Placed for File<'_> {
    fn place(&self) -> &Place<'_> {
        &self.section
    }
}

impl<'a> Item<'a> {
    /// Finds what `reference` names in this item.
    pub fn find<'i>(&'i self, reference: &Reference) -> Result<Found<'i, 'a>, FetchError> {
        let item = &reference.item;
        let places = self.fields.iter().map(Placed::place).chain(self.files.iter().map(Placed::place));
        let found = if let Some(section) = &reference.section
            && !self.sections.iter().any(|known| self.is_section(known, section))
            && !places.into_iter().any(|place| self.is_at(place, reference))
        {
            let has = names(section, &self.sections);
            Err(FetchError::SectionNotFound { item: item.clone(), section: section.clone(), has })
        } else {
            self.find_in_section(reference)
        };
        match found {
            Err(
                FetchError::SectionNotFound { .. }
                | FetchError::FieldNotFound { .. }
                | FetchError::FileNotFound { .. },
            ) if self.spoiled => Err(malformed(
                reference,
                &format!("a part of item \"{item}\" cannot be read, which may be what is asked for"),
            )),
            found => found,
        }
    }

    fn find_in_section<'i>(&'i self, reference: &Reference) -> Result<Found<'i, 'a>, FetchError> {
        let (item, name) = (reference.item.clone(), reference.field.clone());
        match reference.kind {
            Kind::Field => match self.only(&self.fields, reference)? {
                Some(field) => field.view(reference),
                None => {
                    let other = !self.matching(&self.files, reference).is_empty();
                    let has = self.names_beside(&self.fields, reference);
                    Err(FetchError::FieldNotFound { item, field: name, other, has })
                }
            },
            Kind::File => self.only(&self.files, reference)?.map(Found::File).ok_or_else(|| {
                let other = !self.matching(&self.fields, reference).is_empty();
                let has = self.names_beside(&self.files, reference);
                FetchError::FileNotFound { item, file: name, other, has }
            }),
        }
    }

    /// What there is where the reference looks.
    fn names_beside<T: Placed>(&self, all: &[T], reference: &Reference) -> Vec<String> {
        names(&reference.field, all.iter().filter(|one| self.is_at(one.place(), reference)))
    }

    fn matching<'i, T: Placed>(&self, all: &'i [T], reference: &Reference) -> Vec<&'i T> {
        let named = |one: &&T| one.answers_to(&reference.field) && self.is_at(one.place(), reference);
        all.iter().filter(named).collect()
    }

    /// The one that the reference names. Two of them are an error, because one of them would be the wrong secret.
    fn only<'i, T: Placed>(&self, all: &'i [T], reference: &Reference) -> Result<Option<&'i T>, FetchError> {
        match self.matching(all, reference)[..] {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            ref several => Err(FetchError::Ambiguous {
                what: T::KIND,
                name: reference.field.clone(),
                candidates: several.iter().filter_map(|one| self.exact(all, one, reference)).collect(),
            }),
        }
    }

    /// A reference that names only this one.
    fn exact<T: Placed>(&self, all: &[T], one: &T, reference: &Reference) -> Option<String> {
        let within = |section: &str| Reference { section: Some(section.to_owned()), ..reference.clone() };
        let section = one.place().as_ref().ok()?.as_ref();
        let by_section = match section {
            Some(section) if !self.is_section(section, "") => {
                let listed = self.sections.iter().find(|known| known.id == section.id);
                let label = listed.map_or(&section.label, |known| &known.label);
                vec![within(label), within(&section.id)]
            }
            _ => vec![within("")],
        };
        let by_id = Reference { field: one.id().to_owned(), ..reference.clone() };
        let exact = |candidate: &Reference| matches!(self.matching(all, candidate)[..], [only] if std::ptr::eq(only, one));
        let mut texts = by_section.into_iter().chain([by_id]).filter(exact).map(|exact| exact.to_string());
        texts.find(|text| text.parse::<Reference>().is_ok())
    }

    fn is_at(&self, place: &Place<'_>, reference: &Reference) -> bool {
        match (&reference.section, place) {
            (None, _) => true,
            (Some(wanted), Ok(Some(section))) => self.is_section(section, wanted),
            (Some(wanted), Ok(None)) => wanted.is_empty(),
            (Some(_), Err(Unreadable)) => false,
        }
    }

    /// Whether a section answers to `wanted`, by its own label or by the label that the item has for its id. One that has no
    /// label anywhere is what fields outside of sections are in: Connect's has the id `add more`.
    fn is_section(&self, section: &Section<'_>, wanted: &str) -> bool {
        let mut same = self.sections.iter().filter(|other| other.id == section.id);
        if wanted.is_empty() {
            return section.label.is_empty() && same.all(|other| other.label.is_empty());
        }
        section.answers_to(wanted) || same.any(|other| other.answers_to(wanted))
    }
}

impl<'a> Field<'a> {
    /// The view of the field that the query asks for.
    fn view<'i>(&'i self, reference: &Reference) -> Result<Found<'i, 'a>, FetchError> {
        let unsupported =
            |what: &str| FetchError::Unsupported { reference: reference.to_string(), what: what.into() };
        let unreadable = || malformed(reference, "the field cannot be read");
        match &reference.query {
            None => match self.value {
                Value::Text(value) => Ok(Found::Text(value)),
                Value::Nothing => Err(FetchError::Empty { reference: reference.to_string() }),
                Value::Derived => Ok(Found::Derived(self)),
                Value::Unknown => {
                    Err(unsupported("the field is of a kind that 1Password's SDK does not know"))
                }
                Value::Unreadable => Err(unreadable()),
            },
            Some(Query::Attribute(_)) => match &self.code {
                Code::Text(code) => Ok(Found::Text(code)),
                Code::NotOne => Err(unsupported("the field is not a one-time password")),
                Code::Unreadable => Err(unreadable()),
                Code::Failed => Err(malformed(
                    reference,
                    "1Password can make no one-time password of what is in the field",
                )),
            },
            Some(Query::SshFormat(_)) => Ok(Found::Derived(self)),
        }
    }
}

fn malformed(reference: &Reference, what: &str) -> FetchError {
    FetchError::Malformed { reference: reference.to_string(), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::ask::value::{bytes, text};
    use crate::remedy::Remedy;
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
        let item = Item::read(&serde_json::from_str(ITEM).unwrap());
        let reference = Reference { kind, ..reference.parse().unwrap() };
        let secret = match item.find(&reference)? {
            Found::Text(value) => text(value, &reference)?,
            Found::File(file) => bytes(file.content.unwrap(), &reference)?,
            Found::Derived(_) => Secret::copy_from(b"a key").unwrap(),
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
    fn two_that_answer_to_one_name_are_an_error_that_says_how_to_name_each() {
        let Err(FetchError::Ambiguous { candidates, .. }) = field("op://vlt1/itm1/password") else {
            panic!()
        };
        assert_eq!(candidates, ["op://vlt1/itm1//password", "op://vlt1/itm1/Prod/password"]);
        for (candidate, value) in candidates.iter().zip(["top", "prod\n\"é😀//"]) {
            assert_eq!(field(candidate).unwrap(), value.as_bytes());
        }
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
    fn an_error_names_what_there_is_and_the_similar_one_first_and_no_value() {
        let remedy = |result: Result<Vec<u8>, FetchError>| result.unwrap_err().remedy().unwrap();
        let all = r#"it has the fields "credential", "blank", "half", "number", "one-time password", "password", "unset""#;
        assert_eq!(
            remedy(field("op://vlt1/itm1/credentail")),
            format!(r#"did you mean "credential"? {all}"#)
        );
        assert!(
            remedy(field("op://vlt1/itm1/other"))
                .starts_with("check the reference against the item in 1Password: it has")
        );
        assert_eq!(remedy(field("op://vlt1/itm1/prod/pasword")), r#"did you mean "password"?"#);
        let sections = r#"did you mean "Prod"? it has the sections "Prod", "Empty""#;
        assert_eq!(remedy(field("op://vlt1/itm1/prdo/password")), sections);
        let files = r#"did you mean "key.pem"? it has the files "key.pem", "bad", "void""#;
        assert_eq!(remedy(get("op://vlt1/itm1/keys.pem", Kind::File)), files);
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
        assert_eq!(field("op://v/i/credential?attribute=value").unwrap(), b"sk-1");
        let otp = field("op://v/i/credential?attribute=otp");
        assert!(matches!(otp, Err(FetchError::Unsupported { .. })), "{otp:?}");
    }

    #[test]
    fn a_file_is_raw_bytes() {
        assert_eq!(get("op://vlt1/itm1/key.pem", Kind::File).unwrap(), [0, 1, 255]);
    }
}
