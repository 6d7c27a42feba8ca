//! Secret references: `op://vault/item/[section/]field[?attribute=…|?ssh-format=…]`.
//!
//! The syntax is that of 1Password's own tools, read as strictly as their SDK reads it: names of ASCII letters,
//! digits, space, `.`, `_` and `-`; anything else must be written as the id of the vault, item, section or field.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::remedy::Remedy;

/// Where a value is: in one field or file of one item of one vault. Each part is a name or an id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reference {
    pub vault: String,
    pub item: String,
    /// `None`: any section, or none. An empty one (`op://v/i//f`) stands for the fields that are in no section.
    pub section: Option<String>,
    pub field: String,
    pub query: Option<Query>,
    pub kind: Kind,
}

/// What a reference names. The text of the reference does not say; the configuration does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// A text field.
    Field,
    /// A Document or an attachment, as raw bytes.
    File,
}

/// What of the field is meant, if not its value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Query {
    /// `?attribute=otp`: an attribute of the field or file.
    Attribute(String),
    /// `?ssh-format=openssh`: an SSH key in that format.
    SshFormat(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("{0:?} is no secret reference")]
    Scheme(String),
    #[error("secret reference {0:?} has {1} parts")]
    Parts(String, usize),
    #[error("secret reference {0:?} has no {1}")]
    EmptyPart(String, &'static str),
    #[error("secret reference {text:?}: {character:?} cannot stand in the {part}")]
    Character { text: String, part: &'static str, character: char },
    #[error("secret reference {0:?}: unknown query {1:?}")]
    Query(String, String),
}

impl Remedy for ReferenceError {
    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Scheme(_) => "it starts with `op://`: op://vault/item/field".into(),
            Self::Parts(..) => {
                "it has three or four: op://vault/item/field or op://vault/item/section/field".into()
            }
            Self::EmptyPart(..) => "write op://vault/item/field".into(),
            Self::Character { part, .. } => format!("use the id of the {part} instead of its name"),
            Self::Query(..) => "known are ?attribute=… and ?ssh-format=…".into(),
        })
    }
}

impl Reference {
    /// Whether the value is valid for a moment only: a one-time password.
    pub fn is_momentary(&self) -> bool {
        matches!(&self.query, Some(Query::Attribute(attribute)) if ["otp", "totp"].contains(&attribute.as_str()))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let rest = text.strip_prefix("op://").ok_or_else(|| ReferenceError::Scheme(text.into()))?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(parse_query(text, query)?)),
            None => (rest, None),
        };
        let parts: Vec<&str> = path.split('/').collect();
        let (vault, item, section, field) = match parts[..] {
            [vault, item, field] => (vault, item, None, field),
            [vault, item, section, field] => (vault, item, Some(section), field),
            _ => return Err(ReferenceError::Parts(text.into(), parts.len())),
        };
        let name = |part: &'static str, value: &str| {
            if value.is_empty() {
                return Err(ReferenceError::EmptyPart(text.into(), part));
            }
            let allowed = |c: char| c.is_ascii_alphanumeric() || " ._-".contains(c);
            match value.chars().find(|c| !allowed(*c)) {
                Some(character) => Err(ReferenceError::Character { text: text.into(), part, character }),
                None => Ok(value.to_owned()),
            }
        };
        Ok(Self {
            vault: name("vault", vault)?,
            item: name("item", item)?,
            section: match section {
                Some("") => Some(String::new()),
                section => section.map(|section| name("section", section)).transpose()?,
            },
            field: name("field", field)?,
            query,
            kind: Kind::Field,
        })
    }
}

/// Whether this is an id that 1Password made: 16 bytes in base32. The last two bits of the last character are unused
/// and 0.
pub fn is_id(text: &str) -> bool {
    let digit = |b: u8| matches!(b, b'a'..=b'z' | b'2'..=b'7');
    text.len() == 26 && text.bytes().all(digit) && text.ends_with(['a', 'e', 'i', 'm', 'q', 'u', 'y', '4'])
}

fn parse_query(text: &str, query: &str) -> Result<Query, ReferenceError> {
    let unknown = || ReferenceError::Query(text.into(), query.into());
    let (key, value) = query.split_once('=').ok_or_else(unknown)?;
    if value.is_empty() || !value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        return Err(unknown());
    }
    match key {
        "attribute" | "attr" => Ok(Query::Attribute(value.into())),
        "ssh-format" => Ok(Query::SshFormat(value.into())),
        _ => Err(unknown()),
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "op://{}/{}/", self.vault, self.item)?;
        if let Some(section) = &self.section {
            write!(f, "{section}/")?;
        }
        f.write_str(&self.field)?;
        match &self.query {
            Some(Query::Attribute(value)) => write!(f, "?attribute={value}"),
            Some(Query::SshFormat(value)) => write!(f, "?ssh-format={value}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Reference, ReferenceError> {
        text.parse()
    }

    #[test]
    fn the_full_syntax_is_read() {
        let reference = parse("op://Infrastructure Secrets/OpenAI/prod/credential?attribute=otp").unwrap();
        assert_eq!(reference.vault, "Infrastructure Secrets");
        assert_eq!(reference.item, "OpenAI");
        assert_eq!(reference.section.as_deref(), Some("prod"));
        assert_eq!(reference.field, "credential");
        assert_eq!(reference.query, Some(Query::Attribute("otp".into())));
        let key = parse("op://Infra/deploy/private key?ssh-format=openssh").unwrap();
        assert_eq!(key.query, Some(Query::SshFormat("openssh".into())));
    }

    #[test]
    fn an_empty_section_is_kept() {
        let reference = parse("op://v/i//f").unwrap();
        assert_eq!(reference.section.as_deref(), Some(""));
        assert_eq!(reference.to_string(), "op://v/i//f");
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(matches!(parse("OP://v/i/f"), Err(ReferenceError::Scheme(_))));
        assert!(matches!(parse("op://v/i"), Err(ReferenceError::Parts(_, 2))));
        assert!(matches!(parse("op://v/i/s/f/x"), Err(ReferenceError::Parts(_, 5))));
        assert!(matches!(parse("op:///i/f"), Err(ReferenceError::EmptyPart(_, "vault"))));
        assert!(matches!(parse("op://v/i/"), Err(ReferenceError::EmptyPart(_, "field"))));
        assert!(matches!(
            parse("op://v/ä/f"),
            Err(ReferenceError::Character { part: "item", character: 'ä', .. })
        ));
        assert!(matches!(parse("op://v/i/f?x=1"), Err(ReferenceError::Query(..))));
        assert!(matches!(parse("op://v/i/f?attribute="), Err(ReferenceError::Query(..))));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "(op://)?\\PC{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_shown_reads_back_as_the_same(
            vault in "[a-zA-Z0-9 ._-]{1,12}", item in "[a-zA-Z0-9 ._-]{1,12}",
            section in proptest::option::of("[a-zA-Z0-9 ._-]{1,12}"), field in "[a-zA-Z0-9 ._-]{1,12}",
            query in proptest::option::of("[a-z]{1,8}"),
        ) {
            let reference = Reference { vault, item, section, field, query: query.map(Query::Attribute), kind: Kind::Field };
            prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
    }
}
