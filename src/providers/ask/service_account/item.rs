//! An item as the SDK returns it, and its conversion to an [`Item`].

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::providers::ask::items::{Field, File, Item, Section};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SdkItem<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    title: Cow<'a, str>,
    #[serde(borrow)]
    fields: Vec<SdkField<'a>>,
    #[serde(borrow)]
    sections: Vec<SdkSection<'a>>,
    #[serde(borrow)]
    notes: &'a RawValue,
    #[serde(borrow, default)]
    files: Vec<SdkFile<'a>>,
    #[serde(borrow)]
    document: Option<Attributes<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SdkField<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    title: Cow<'a, str>,
    #[serde(borrow)]
    section_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value: &'a RawValue,
    #[serde(borrow)]
    details: Option<Details<'a>>,
}

#[derive(Deserialize)]
struct Details<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct OneTimePassword<'a> {
    #[serde(borrow)]
    code: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct SdkSection<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    title: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SdkFile<'a> {
    #[serde(borrow)]
    attributes: Attributes<'a>,
    #[serde(borrow)]
    section_id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Attributes<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    size: u64,
}

impl<'a> From<SdkItem<'a>> for Item<'a> {
    fn from(item: SdkItem<'a>) -> Self {
        let section = |id: Cow<'a, str>| Section { id, label: Cow::Borrowed("") };
        let notes = Field {
            id: Cow::Borrowed("notesPlain"),
            label: Cow::Borrowed("notes"),
            value: Some(item.notes),
            section: None,
            totp: None,
            derived: false,
        };
        // What the SDK derives from an SSH key has names like the fields of the item.
        let has_key =
            item.fields.iter().any(|field| field.details.as_ref().is_some_and(|d| d.kind == "SshKey"));
        let derived =
            ["public key", "fingerprint", "key type"].into_iter().filter(|_| has_key).map(|label| Field {
                id: Cow::Borrowed(label),
                label: Cow::Borrowed(label),
                value: None,
                section: None,
                totp: None,
                derived: true,
            });
        let fields = item.fields.into_iter().map(|field| Field {
            id: field.id,
            label: field.title,
            value: Some(field.value),
            section: field.section_id.filter(|id| !id.is_empty()).map(section),
            totp: field.details.and_then(code),
            derived: false,
        });
        let file = |attributes: Attributes<'a>, section| File {
            id: attributes.id,
            name: attributes.name,
            content: None,
            section,
            size: attributes.size,
        };
        let attached = item.files.into_iter().map(|attached| {
            file(attached.attributes, Some(attached.section_id).filter(|id| !id.is_empty()).map(section))
        });
        Self {
            id: item.id,
            title: item.title,
            sections: item.sections.into_iter().map(|s| Section { id: s.id, label: s.title }).collect(),
            fields: fields.chain([notes]).chain(derived).collect(),
            files: attached.chain(item.document.map(|document| file(document, None))).collect(),
        }
    }
}

fn code(details: Details<'_>) -> Option<&RawValue> {
    let content = details.content.filter(|_| details.kind == "Otp")?;
    serde_json::from_str::<OneTimePassword<'_>>(content.get()).ok()?.code
}
