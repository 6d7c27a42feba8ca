//! Reads items from the JSON of 1Password Connect. What cannot be read harms nothing but what depends on it.

use std::borrow::Cow;

use super::items::{Code, Field, File, Item, Place, Section, Value};
use super::members::{Members, Unreadable};

impl<'a> Item<'a> {
    /// As Connect has it.
    pub fn read(item: &Members<'a>) -> Self {
        let mut reader = Reader { spoiled: false };
        let state = reader.text(item, "state");
        let item = Self {
            id: reader.text(item, "id"),
            title: reader.text(item, "title"),
            gone: is_gone(&state),
            sections: reader.entries(item, "sections", |section, reader| reader.section(section)),
            fields: reader.entries(item, "fields", |field, reader| reader.field(field)),
            files: reader.entries(item, "files", |file, reader| File {
                id: reader.text(file, "id"),
                name: reader.text(file, "name"),
                content: reader.optional(file.raw("content")),
                section: reader.place(file),
                size: file.number("size").ok().flatten(),
            }),
            spoiled: false,
        };
        // Something without an id may be anything: what is not in it is not denied.
        Self { spoiled: reader.spoiled || item.id.is_empty(), ..item }
    }
}

/// As Connect has it in the member `state` of items.
pub fn is_gone(state: &str) -> bool {
    ["ARCHIVED", "DELETED"].iter().any(|gone| state.eq_ignore_ascii_case(gone))
}

/// Reads members, and remembers whether some could not be read.
pub struct Reader {
    pub spoiled: bool,
}

impl Reader {
    pub fn optional<T>(&mut self, member: Result<Option<T>, Unreadable>) -> Option<T> {
        self.spoiled |= member.is_err();
        member.ok().flatten()
    }

    pub fn text<'a>(&mut self, of: &Members<'a>, name: &str) -> Cow<'a, str> {
        self.optional(of.text(name)).unwrap_or_default()
    }

    /// The entries of a list that are objects.
    pub fn entries<'a, T>(
        &mut self,
        of: &Members<'a>,
        name: &str,
        read: impl Fn(&Members<'a>, &mut Self) -> T,
    ) -> Vec<T> {
        let list = of.list(name);
        self.spoiled |= list.is_err();
        let objects = list.unwrap_or_default().into_iter().map(Members::of);
        objects
            .filter_map(|object| {
                self.spoiled |= object.is_err();
                Some(read(&object.ok()?, self))
            })
            .collect()
    }

    fn section<'a>(&mut self, section: &Members<'a>) -> Section<'a> {
        Section { id: self.text(section, "id"), label: self.text(section, "label") }
    }

    fn place<'a>(&mut self, of: &Members<'a>) -> Place<'a> {
        let read = |section: Members<'a>| {
            let text = |name| Ok(section.text(name)?.unwrap_or_default());
            Ok(Section { id: text("id")?, label: text("label")? })
        };
        let place = of.object("section").and_then(|section| section.map(read).transpose());
        self.spoiled |= place.is_err();
        place
    }

    fn field<'a>(&mut self, field: &Members<'a>) -> Field<'a> {
        let kind = field.text("type").ok().flatten().unwrap_or_default();
        // Of some the code has the name that it has in the SDK.
        let code = field.raw("totp").and_then(|totp| Ok(totp.or(field.raw("otp")?)));
        Field {
            id: self.text(field, "id"),
            label: self.text(field, "label"),
            section: self.place(field),
            value: match field.raw("value") {
                Ok(value) => value.map_or(Value::Nothing, Value::Text),
                Err(Unreadable) => Value::Unreadable,
            },
            code: match code {
                Ok(Some(code)) if code.get() != "\"\"" => Code::Text(code),
                Ok(None) if !["OTP", "TOTP"].contains(&&*kind) => Code::NotOne,
                Ok(_) => Code::Failed,
                Err(Unreadable) => Code::Unreadable,
            },
        }
    }
}
