//! Vaults, items, fields and files in the shape of 1Password Connect's JSON, and how a reference finds its way in them.
//!
//! Values stay the raw JSON text that they were read as, so that no parser leaves a copy of them behind.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::FetchError;
use crate::reference::{Kind, Query, Reference};
use crate::secret::{Draft, Secret};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vault<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    items: Vec<Item<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    title: Cow<'a, str>,
    #[serde(borrow, default)]
    fields: Vec<Field<'a>>,
    #[serde(borrow, default)]
    files: Vec<File<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Field<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    label: Cow<'a, str>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    section: Option<Section<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    content: &'a RawValue,
    #[serde(borrow)]
    section: Option<Section<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    label: Cow<'a, str>,
}

/// What a reference can name: by id as it stands, or by name in any case.
trait Named {
    const WHAT: &'static str;
    fn id(&self) -> &str;
    fn name(&self) -> &str;

    fn answers_to(&self, wanted: &str) -> bool {
        self.id() == wanted || self.name().eq_ignore_ascii_case(wanted)
    }
}

macro_rules! named {
    ($($type:ident $what:literal $name:ident,)*) => {
        $(impl Named for $type<'_> {
            const WHAT: &'static str = $what;
            fn id(&self) -> &str { &self.id }
            fn name(&self) -> &str { &self.$name }
        })*
    };
}
named! { Vault "vault" name, Item "item" title, Field "field" label, File "file" name, Section "section" label, }

/// Finds the value that `reference` names.
pub(super) fn find(vaults: &[Vault<'_>], reference: &Reference) -> Result<Secret, FetchError> {
    let vault = only(vaults.iter(), &reference.vault)?
        .ok_or_else(|| FetchError::VaultNotFound { vault: reference.vault.clone() })?;
    let item = only(vault.items.iter(), &reference.item)?.ok_or_else(|| FetchError::ItemNotFound {
        vault: reference.vault.clone(),
        item: reference.item.clone(),
    })?;
    match &reference.query {
        None => {}
        Some(Query::Attribute(attribute)) if attribute == "value" => {}
        Some(Query::Attribute(_)) => {
            let what = "the local provider knows no attribute but `value`";
            return Err(FetchError::Unsupported { reference: reference.to_string(), what });
        }
        Some(Query::SshFormat(_)) => {
            let what = "the local provider converts no SSH keys";
            return Err(FetchError::Unsupported { reference: reference.to_string(), what });
        }
    }
    let in_section = |section: &Option<Section<'_>>| match (&reference.section, section) {
        (None, _) => true,
        (Some(wanted), Some(section)) => section.answers_to(wanted),
        (Some(_), None) => false,
    };
    let mut sections = item.fields.iter().map(|f| &f.section).chain(item.files.iter().map(|f| &f.section));
    if let Some(section) = reference.section.as_ref().filter(|_| !sections.any(in_section)) {
        return Err(FetchError::SectionNotFound { item: reference.item.clone(), section: section.clone() });
    }
    match reference.kind {
        Kind::Field => {
            let fields = item.fields.iter().filter(|field| in_section(&field.section));
            let field = only(fields, &reference.field)?.ok_or_else(|| FetchError::FieldNotFound {
                item: reference.item.clone(),
                field: reference.field.clone(),
            })?;
            let value = field.value.ok_or_else(|| FetchError::Empty { reference: reference.to_string() })?;
            text(value, reference)
        }
        Kind::File => {
            let files = item.files.iter().filter(|file| in_section(&file.section));
            let file = only(files, &reference.field)?.ok_or_else(|| FetchError::FileNotFound {
                item: reference.item.clone(),
                file: reference.field.clone(),
            })?;
            bytes(file.content, reference)
        }
    }
}

/// The one that answers to `wanted`. Two of them are an error, because one of them would be the wrong secret.
fn only<'v, T: Named>(all: impl Iterator<Item = &'v T>, wanted: &str) -> Result<Option<&'v T>, FetchError> {
    let mut found = all.filter(|one| one.answers_to(wanted));
    let (first, second) = (found.next(), found.next());
    if second.is_none() {
        return Ok(first);
    }
    let candidates = first.into_iter().chain(second).chain(found).map(|one| one.id().to_owned()).collect();
    Err(FetchError::Ambiguous { what: T::WHAT, name: wanted.to_owned(), candidates })
}

/// The text of a JSON string, written straight into its own buffer.
fn text(raw: &RawValue, reference: &Reference) -> Result<Secret, FetchError> {
    let malformed = |what| FetchError::Malformed { reference: reference.to_string(), what };
    let quoted = raw.get();
    let inside = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let inside = inside.ok_or_else(|| malformed("the value is no string"))?;
    // No escape is shorter than what it stands for.
    let mut draft = Draft::with_capacity(inside.len());
    unescape(inside, &mut draft).ok_or_else(|| malformed("the value holds half of a surrogate pair"))?;
    draft.finish().map_err(|_| FetchError::Empty { reference: reference.to_string() })
}

/// Undoes JSON's escapes. The text is known to be valid JSON, but for lone surrogates, which JSON allows.
fn unescape(mut rest: &str, draft: &mut Draft) -> Option<()> {
    while let Some((plain, escaped)) = rest.split_once('\\') {
        draft.push(plain.as_bytes());
        let mut length = 1;
        let character = match escaped.as_bytes().first()? {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = |text: &str| u16::from_str_radix(text.get(..4)?, 16).ok();
                let first = unit(&escaped[1..])?;
                length = 5;
                let second = escaped[5..].strip_prefix("\\u").and_then(unit).filter(|_| first >> 10 == 0x36);
                length += second.map_or(0, |_| 6);
                char::decode_utf16([first].into_iter().chain(second)).next()?.ok()?
            }
            other => *other as char,
        };
        draft.push(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &escaped[length..];
    }
    draft.push(rest.as_bytes());
    Some(())
}

fn bytes(raw: &RawValue, reference: &Reference) -> Result<Secret, FetchError> {
    let quoted = raw.get();
    let encoded = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
    let mut draft = Draft::with_capacity(base64::decoded_len_estimate(encoded.len()));
    let what = "the content of the file is no base64";
    draft
        .fill(|rest| STANDARD.decode_slice(encoded, rest))
        .map_err(|_| FetchError::Malformed { reference: reference.to_string(), what })?;
    draft.finish().map_err(|_| FetchError::Empty { reference: reference.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VAULT: &str = r#"[{"id": "vlt1", "name": "Infra Secrets", "items": [
        {"id": "itm1", "title": "OpenAI", "fields": [
            {"id": "f1", "label": "credential", "value": "sk-1"},
            {"id": "f2", "label": "password", "value": "top"},
            {"id": "f3", "label": "password", "value": "prod\n\"\u00e9\ud83d\ude00/\/", "section": {"id": "s1", "label": "Prod"}},
            {"id": "f4", "label": "blank", "value": ""},
            {"id": "f5", "label": "unset"},
            {"id": "f6", "label": "number", "value": 7},
            {"id": "f7", "label": "half", "value": "\ud83dx"}],
         "files": [{"id": "x1", "name": "key.pem", "content": "AAH/"}, {"id": "x2", "name": "bad", "content": "?"},
            {"id": "x3", "name": "void", "content": ""}]},
        {"id": "itm2", "title": "Twin"}, {"id": "itm3", "title": "twin"}]}]"#;

    fn get(reference: &str, kind: Kind) -> Result<Vec<u8>, FetchError> {
        let vaults: Vec<Vault<'_>> = serde_json::from_str(VAULT).unwrap();
        let reference = Reference { kind, ..reference.parse().unwrap() };
        find(&vaults, &reference).map(|secret| secret.expose().to_vec())
    }

    fn field(reference: &str) -> Result<Vec<u8>, FetchError> {
        get(reference, Kind::Field)
    }

    #[test]
    fn names_count_in_any_case_and_ids_as_they_stand() {
        assert_eq!(field("op://infra SECRETS/openai/Credential").unwrap(), b"sk-1");
        assert_eq!(field("op://vlt1/itm1/f1").unwrap(), b"sk-1");
        assert!(matches!(field("op://VLT1/itm1/f1"), Err(FetchError::VaultNotFound { .. })));
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
        let Err(FetchError::Ambiguous { what, candidates, .. }) = field("op://vlt1/TWIN/x") else { panic!() };
        assert_eq!((what, candidates.len()), ("item", 2));
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
        assert!(matches!(field("op://other/itm1/f1"), Err(FetchError::VaultNotFound { .. })));
        assert!(matches!(field("op://vlt1/other/f1"), Err(FetchError::ItemNotFound { .. })));
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
    fn a_file_is_raw_bytes() {
        assert_eq!(get("op://vlt1/itm1/key.pem", Kind::File).unwrap(), [0, 1, 255]);
    }

    proptest! {
        #[test]
        fn every_text_survives_its_json_form(value in "\\PC{1,40}|[\u{0}-\u{1f}\"\\\\\u{10000}-\u{10020}]{1,20}") {
            let json = serde_json::to_string(&value).unwrap();
            let ascii: String = value.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
            for quoted in [json, format!("\"{ascii}\"")] {
                let raw: &RawValue = serde_json::from_str(&quoted).unwrap();
                let secret = text(raw, &"op://v/i/f".parse().unwrap()).unwrap();
                prop_assert_eq!(secret.expose(), value.as_bytes());
            }
        }
    }
}
