//! Secret references: `op://vault/item/[section/]field[?attribute=…|?ssh-format=…]`.
//!
//! The syntax is that of 1Password's own tools, read as strictly as their SDK reads it: names of ASCII letters,
//! digits, space, `.`, `_` and `-`. Any other character is percent-encoded (`my%2Ffile`), which they do not know, or the id
//! of the vault, item, section or field stands for its name.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::remedy::Remedy;

/// What is percent-encoded where a name is written.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b' ').remove(b'.').remove(b'_').remove(b'-');

/// Where a value is: in one field or file of one item of one vault. Each part is a name or an id, as it is in 1Password.
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
    /// `?attribute=otp`: its one-time password now, the only attribute that is not another name for the value.
    Attribute(String),
    /// `?ssh-format=openssh`: an SSH key in that format.
    SshFormat(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("{0:?} is no secret reference")]
    Scheme(String),
    #[error("{0:?} is no whole secret reference")]
    Parts(String),
    #[error("secret reference {0:?} has no {1}")]
    EmptyPart(String, &'static str),
    #[error("secret reference {text:?}: {character:?} cannot stand in the {part}")]
    Character { text: String, part: &'static str, character: char },
    #[error("secret reference {text:?}: the {part} is not percent-encoded text")]
    Encoding { text: String, part: &'static str },
    #[error("secret reference {0:?} has a variable in it")]
    Variable(String),
    #[error("secret reference {0:?}: unknown query {1:?}")]
    Query(String, String),
}

impl Remedy for ReferenceError {
    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Scheme(_) => "it starts with `op://`: op://vault/item/field".into(),
            Self::Parts(_) => {
                "it has three or four parts: op://vault/item/field or op://vault/item/section/field; a / in a name is %2F".into()
            }
            Self::EmptyPart(..) => "write op://vault/item/field".into(),
            Self::Character { part, character, .. } => {
                let encoded = utf8_percent_encode(character.encode_utf8(&mut [0; 4]), ENCODED).to_string();
                format!("write it as {encoded}, or use the id of the {part} instead of its name")
            }
            Self::Encoding { .. } => {
                "after each % stand two hexadecimal digits, together in UTF-8; a % itself is %25".into()
            }
            Self::Variable(_) => "variables are not replaced: write the name itself".into(),
            Self::Query(..) => {
                "known are ?attribute=otp, ?attribute=value, ?attribute=content of a file, and ?ssh-format=…; a ? in a name is %3F".into()
            }
        })
    }
}

impl Reference {
    /// Whether 1Password's own tools can read this name.
    pub fn is_plain(name: &str) -> bool {
        name.chars().all(|c| c.is_ascii_alphanumeric() || " ._-".contains(c))
    }

    /// Whether the value is valid for a moment only: a one-time password.
    pub fn is_momentary(&self) -> bool {
        matches!(&self.query, Some(Query::Attribute(attribute)) if ["otp", "totp"].contains(&attribute.as_str()))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let rest = text.strip_prefix("op://").ok_or_else(|| ReferenceError::Scheme(text.into()))?;
        // Of 1Password's own tools, `op run` and `op inject` replace them.
        if rest.contains('$') {
            return Err(ReferenceError::Variable(text.into()));
        }
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, parse_query(text, query)?),
            None => (rest, None),
        };
        let parts: Vec<&str> = path.split('/').collect();
        let (vault, item, section, field) = match parts[..] {
            [vault, item, field] => (vault, item, None, field),
            [vault, item, section, field] => (vault, item, Some(section), field),
            _ => return Err(ReferenceError::Parts(text.into())),
        };
        let name = |part: &'static str, value: &str| {
            if value.is_empty() {
                return Err(ReferenceError::EmptyPart(text.into(), part));
            }
            let allowed = |c: char| c.is_ascii_alphanumeric() || " ._-%".contains(c);
            if let Some(character) = value.chars().find(|c| !allowed(*c)) {
                return Err(ReferenceError::Character { text: text.into(), part, character });
            }
            let encoding = || ReferenceError::Encoding { text: text.into(), part };
            let is_hex = |digits: &str| {
                digits.len() >= 2 && digits.bytes().take(2).all(|digit| digit.is_ascii_hexdigit())
            };
            if !value.split('%').skip(1).all(is_hex) {
                return Err(encoding());
            }
            let name = percent_decode_str(value).decode_utf8().map_err(|_| encoding())?;
            if name.contains('\0') { Err(encoding()) } else { Ok(name.into_owned()) }
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

/// `None`: the query names what is meant without it.
fn parse_query(text: &str, query: &str) -> Result<Option<Query>, ReferenceError> {
    let unknown = || ReferenceError::Query(text.into(), query.into());
    let (key, value) = query.split_once('=').ok_or_else(unknown)?;
    if value.is_empty() || !value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        return Err(unknown());
    }
    match (key, value) {
        ("attribute" | "attr", "otp" | "totp") => Ok(Some(Query::Attribute(value.into()))),
        // Of a field, and of a file.
        ("attribute" | "attr", "value" | "content") => Ok(None),
        ("ssh-format", _) => Ok(Some(Query::SshFormat(value.into()))),
        _ => Err(unknown()),
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |name: &'_ str| utf8_percent_encode(name, ENCODED).to_string();
        write!(f, "op://{}/{}/", name(&self.vault), name(&self.item))?;
        if let Some(section) = &self.section {
            write!(f, "{}/", name(section))?;
        }
        f.write_str(&name(&self.field))?;
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
    fn names_are_decoded_part_by_part() {
        let reference = parse("op://My%2fVault/A%20%26%20B/%c3%9cber/my%20file%2525.bin").unwrap();
        assert_eq!(
            (reference.vault.as_str(), reference.item.as_str(), reference.section.as_deref()),
            ("My/Vault", "A & B", Some("Über"))
        );
        assert_eq!(reference.field, "my file%25.bin");
        assert_eq!(reference.to_string(), "op://My%2FVault/A %26 B/%C3%9Cber/my file%2525.bin");
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
        assert!(matches!(parse("op://v/i"), Err(ReferenceError::Parts(_))));
        assert!(matches!(parse("op://v/i/s/f/x"), Err(ReferenceError::Parts(_))));
        assert!(matches!(parse("op:///i/f"), Err(ReferenceError::EmptyPart(_, "vault"))));
        assert!(matches!(parse("op://v/i/"), Err(ReferenceError::EmptyPart(_, "field"))));
        assert!(matches!(
            parse("op://v/ä/f"),
            Err(ReferenceError::Character { part: "item", character: 'ä', .. })
        ));
        let remedy = parse("op://v/ä/f").unwrap_err().remedy().unwrap();
        assert_eq!(remedy, "write it as %C3%A4, or use the id of the item instead of its name");
        for bad in ["100%", "%", "%zz", "%4", "a%C3", "%00", "%ff", "%-1"] {
            let error = parse(&format!("op://v/i/{bad}"));
            assert!(matches!(error, Err(ReferenceError::Encoding { part: "field", .. })), "{bad}: {error:?}");
        }
        for text in ["op://$APP_ENV/db/password", "op://${VAULT:-V}/App/a", "op://v/i/$x"] {
            assert!(matches!(parse(text), Err(ReferenceError::Variable(_))), "{text}");
        }
        assert!(matches!(parse("op://v/i/f?x=1"), Err(ReferenceError::Query(..))));
        assert!(matches!(parse("op://v/i/f?attribute="), Err(ReferenceError::Query(..))));
        assert!(matches!(parse("op://v/i/f?attribute=purpose"), Err(ReferenceError::Query(..))));
        for what in ["value", "content"] {
            assert_eq!(parse(&format!("op://v/i/f?attribute={what}")), parse("op://v/i/f"));
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "(op://)?\\PC{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_shown_reads_back_as_the_same(
            vault in "[^\\x00]{1,12}", item in "\\PC{1,12}",
            section in proptest::option::of("[a-zA-Z0-9 ._%/$?|-]{1,12}"), field in "[^\\x00]{1,12}",
            query in proptest::option::of("otp|totp"),
        ) {
            let reference = Reference { vault, item, section, field, query: query.map(Query::Attribute), kind: Kind::Field };
            prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
    }
}
