//! An item as the SDK returns it, and its conversion to an [`Item`].

use std::borrow::Cow;

use crate::providers::ask::items::{Code, Field, File, Item, Place, Section, Value};
use crate::providers::ask::members::{Members, Unreadable};
use crate::providers::ask::reader::Reader;

/// What the SDK derives from an SSH key has names like the fields of the item.
const OF_SSH_KEYS: [&str; 3] = ["public key", "fingerprint", "key type"];

pub fn read<'a>(item: &Members<'a>) -> Item<'a> {
    // The SDK always gives these.
    let is_whole = ["id", "fields", "sections"].iter().all(|name| matches!(item.raw(name), Ok(Some(_))));
    let mut reader = Reader { spoiled: !is_whole };
    let mut fields = reader.entries(item, "fields", field);
    let has_key = fields.iter().any(|(_, is_key)| *is_key);
    let notes = match item.raw("notes") {
        Ok(notes) => notes.map_or(Value::Unreadable, Value::Text),
        Err(Unreadable) => Value::Unreadable,
    };
    let named = |id: &'static str, label: &'static str, value| Field {
        id: Cow::Borrowed(id),
        label: Cow::Borrowed(label),
        section: Ok(None),
        value,
        code: Code::NotOne,
    };
    let derived = OF_SSH_KEYS.into_iter().filter(|_| has_key);
    let derived = derived.map(|label| named(label, label, Value::Derived));
    let fields = fields.drain(..).map(|(field, _)| field);
    let fields = fields.chain([named("notesPlain", "notes", notes)]).chain(derived).collect();
    let attached = reader.entries(item, "files", |attached, reader| {
        let section = place(attached);
        Some(file(&reader.optional(attached.object("attributes"))?, section, reader))
    });
    let document = reader.optional(item.object("document"));
    let document = document.map(|document| file(&document, Ok(None), &mut reader));
    let sections = reader.entries(item, "sections", |section, reader| Section {
        id: reader.text(section, "id"),
        label: reader.text(section, "title"),
    });
    Item {
        id: reader.text(item, "id"),
        title: reader.text(item, "title"),
        gone: false,
        sections,
        fields,
        files: attached.into_iter().flatten().chain(document).collect(),
        spoiled: reader.spoiled,
    }
}

/// And whether it is an SSH key.
fn field<'a>(field: &Members<'a>, reader: &mut Reader) -> (Field<'a>, bool) {
    let kind = field.text("fieldType").ok().flatten().unwrap_or_default();
    let details = field.object("details").ok().flatten();
    let detail = details.as_ref().and_then(|details| details.text("type").ok().flatten());
    let value = match field.raw("value") {
        // The SDK gives no value of a kind that it does not know.
        Ok(value) if kind == "Unsupported" && value.is_none_or(|value| value.get() == "\"\"") => {
            Value::Unknown
        }
        Ok(value) => value.map_or(Value::Unreadable, Value::Text),
        Err(Unreadable) => Value::Unreadable,
    };
    let read = Field {
        id: reader.text(field, "id"),
        label: reader.text(field, "title"),
        section: place(field),
        value,
        code: match &details {
            Some(details) if detail.as_deref() == Some("Otp") => code(details),
            _ if kind == "Totp" => Code::Failed,
            _ => Code::NotOne,
        },
    };
    reader.spoiled |= read.section.is_err();
    (read, detail.as_deref() == Some("SshKey"))
}

fn code<'a>(details: &Members<'a>) -> Code<'a> {
    let Ok(Some(content)) = details.object("content") else { return Code::Unreadable };
    match content.raw("code") {
        Ok(code) => code.map_or(Code::Failed, Code::Text),
        Err(Unreadable) => Code::Unreadable,
    }
}

fn place<'a>(of: &Members<'a>) -> Place<'a> {
    let id = of.text("sectionId")?.filter(|id| !id.is_empty());
    Ok(id.map(|id| Section { id, label: Cow::Borrowed("") }))
}

fn file<'a>(attributes: &Members<'a>, section: Place<'a>, reader: &mut Reader) -> File<'a> {
    File {
        id: reader.text(attributes, "id"),
        name: reader.text(attributes, "name"),
        content: None,
        section,
        size: attributes.number("size").ok().flatten(),
    }
}
