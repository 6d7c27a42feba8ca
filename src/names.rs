//! Unit and credential names, as systemd accepts them, the patterns that stand for units, and systemd's limits.

use std::fmt;
use std::str::FromStr;

use crate::counted::counted;
use crate::remedy::Remedy;

/// The unit types that can load credentials.
const SUFFIXES: [&str; 4] = [".service", ".socket", ".mount", ".swap"];
/// systemd's UNIT_NAME_MAX, without its final NUL.
const UNIT_NAME_MAX: usize = 255;
/// systemd's limit on file and descriptor names, in bytes.
const CREDENTIAL_NAME_MAX: usize = 255;
/// The longest abstract socket address, in bytes: `sun_path` of 108 without the NUL that systemd writes first.
const ADDRESS_MAX: usize = 107;
/// systemd's limit on a unit's credentials, names and values together, in bytes.
pub const CREDENTIALS_MAX: usize = 1 << 20;
/// What systemd puts before the unit's name in the address that it asks from: NUL, 16 hex digits, `/unit/`.
const ADDRESS_PREFIX: usize = 1 + 16 + "/unit/".len();

/// The name of a unit that can load credentials, with its escapes: `opencode@blue.service`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitName(String);

/// The name under which a unit finds a secret in `$CREDENTIALS_DIRECTORY`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialName(String);

/// One unit, or every instance of a template: `opencode@*.service`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnitPattern {
    Unit(UnitName),
    /// The template's own name: `opencode@.service`.
    Instances(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("unit name {0:?} has no suffix")]
    NoSuffix(String),
    #[error("{0:?} cannot load credentials")]
    WrongType(String),
    /// The name, and the pattern for all instances.
    #[error("{0:?} is a template, not a unit")]
    Template(String, String),
    #[error("{0:?} is no unit name")]
    NotAUnit(String),
    #[error("{0:?} is no unit pattern")]
    Wildcard(String),
    #[error("{0:?} is no credential name")]
    NotACredential(String),
    #[error(
        "unit {units} and credential \"{credential}\" are {} too long together",
        counted(*excess, "byte")
    )]
    TooLong { units: UnitPattern, credential: CredentialName, excess: usize },
}

impl Remedy for NameError {
    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::NoSuffix(name) => format!("write {name}.service"),
            Self::WrongType(_) => "only service, socket, mount and swap units can".into(),
            Self::Template(_, pattern) => format!("write {pattern} for all its instances"),
            Self::NotAUnit(_) => "a unit name has 1 to 255 of the characters A-Z a-z 0-9 : - _ . \\ @".into(),
            Self::Wildcard(_) => "`*` can stand only for the whole instance, as in opencode@*.service".into(),
            Self::NotACredential(_) => "it has 1 to 255 printable ASCII characters without `/` and `:` \
                                        and is neither `.` nor `..`"
                .into(),
            Self::TooLong { .. } => format!(
                "systemd could not even ask (its socket address holds {ADDRESS_MAX} bytes); shorten one of the names"
            ),
        })
    }
}

impl UnitName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The template that this unit is an instance of: `opencode@blue.service` gives `opencode@.service`.
    pub fn template(&self) -> Option<String> {
        let (prefix, rest) = self.0.split_once('@')?;
        let suffix = &rest[rest.rfind('.')?..];
        Some(format!("{prefix}@{suffix}"))
    }
}

impl FromStr for UnitName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (prefix, suffix) = split(text)?;
        if let Some(("", _)) = prefix.split_once('@') {
            return Err(NameError::NotAUnit(text.into()));
        }
        if let Some((template, "")) = prefix.split_once('@') {
            return Err(NameError::Template(text.into(), format!("{template}@*{suffix}")));
        }
        Ok(Self(text.into()))
    }
}

/// Name and suffix of what may be a unit or a template.
fn split(text: &str) -> Result<(&str, &str), NameError> {
    let valid = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if text.is_empty() || text.len() > UNIT_NAME_MAX || !text.chars().all(valid) {
        return Err(NameError::NotAUnit(text.into()));
    }
    if let Some(suffix) = SUFFIXES.iter().find(|suffix| text.ends_with(**suffix)) {
        let prefix = &text[..text.len() - suffix.len()];
        return if prefix.is_empty() { Err(NameError::NotAUnit(text.into())) } else { Ok((prefix, suffix)) };
    }
    let others = [".target", ".timer", ".path", ".slice", ".scope", ".device", ".automount"];
    if others.iter().any(|suffix| text.ends_with(suffix)) {
        return Err(NameError::WrongType(text.into()));
    }
    Err(NameError::NoSuffix(text.into()))
}

impl UnitPattern {
    pub fn matches(&self, unit: &UnitName) -> bool {
        match self {
            Self::Unit(name) => name == unit,
            Self::Instances(template) => unit.template().as_ref() == Some(template),
        }
    }

    /// The length of the shortest unit name that this stands for, in bytes.
    fn shortest(&self) -> usize {
        match self {
            Self::Unit(name) => name.0.len(),
            Self::Instances(template) => template.len() + 1,
        }
    }

    /// Whether systemd can ask for this. It cannot if the address that it would ask from is too long: the unit then
    /// fails with 243/CREDENTIALS before any request is made (systemd issue 36709).
    pub fn can_ask_for(&self, credential: &CredentialName) -> Result<(), NameError> {
        let length = ADDRESS_PREFIX + self.shortest() + "/".len() + credential.0.len();
        match length.saturating_sub(ADDRESS_MAX) {
            0 => Ok(()),
            excess => Err(NameError::TooLong { units: self.clone(), credential: credential.clone(), excess }),
        }
    }
}

impl FromStr for UnitPattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if !text.contains('*') {
            return text.parse().map(Self::Unit);
        }
        let wrong = || NameError::Wildcard(text.into());
        let (prefix, rest) = text.split_once("@*").ok_or_else(wrong)?;
        if prefix.contains('@') || !rest.starts_with('.') {
            return Err(wrong());
        }
        // Everything but the instance must be the name of a unit: try it with one.
        format!("{prefix}@i{rest}").parse::<UnitName>().map_err(|_| wrong())?;
        if !SUFFIXES.contains(&rest) {
            return Err(wrong());
        }
        Ok(Self::Instances(format!("{prefix}@{rest}")))
    }
}

impl CredentialName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The largest value that systemd takes under this name, in bytes.
    pub fn size_limit(&self) -> usize {
        CREDENTIALS_MAX - self.0.len()
    }
}

impl FromStr for CredentialName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let valid = |b: u8| (b' '..=b'~').contains(&b) && b != b'/' && b != b':';
        let length_fits = (1..=CREDENTIAL_NAME_MAX).contains(&text.len());
        if !length_fits || !text.bytes().all(valid) || text == "." || text == ".." {
            return Err(NameError::NotACredential(text.into()));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for UnitPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit(name) => name.fmt(f),
            Self::Instances(template) => f.write_str(&template.replacen('@', "@*", 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_unit_name_needs_a_suffix_that_can_load_credentials() {
        assert!("opencode.service".parse::<UnitName>().is_ok());
        assert!("esc-a\\x2db@x.service".parse::<UnitName>().is_ok());
        assert_eq!("opencode".parse::<UnitName>(), Err(NameError::NoSuffix("opencode".into())));
        assert_eq!("a.timer".parse::<UnitName>(), Err(NameError::WrongType("a.timer".into())));
        for bad in ["", ".service", "@x.service", "a b.service", "a/b.service", "ä.service"] {
            assert_eq!(bad.parse::<UnitName>(), Err(NameError::NotAUnit(bad.into())), "{bad}");
        }
    }

    #[test]
    fn a_template_is_no_unit_and_the_error_gives_the_pattern() {
        let error = "opencode@.service".parse::<UnitName>().unwrap_err();
        assert_eq!(error.remedy().unwrap(), "write opencode@*.service for all its instances");
    }

    #[test]
    fn a_pattern_stands_for_the_instances_of_its_template_only() {
        let pattern: UnitPattern = "opencode@*.service".parse().unwrap();
        let matches = |unit: &str| pattern.matches(&unit.parse().unwrap());
        assert!(matches("opencode@blue.service"));
        assert!(matches("opencode@a.b@c.service"));
        assert!(!matches("opencode.service"));
        assert!(!matches("opencode-x@blue.service"));
        assert!(!matches("opencode@blue.socket"));
    }

    #[test]
    fn a_wildcard_elsewhere_is_refused() {
        for bad in [
            "*",
            "*.service",
            "open*.service",
            "a@b*.service",
            "a@*b.service",
            "a@*.timer",
            "@*.service",
            "a@b@*.service",
        ] {
            assert!(matches!(bad.parse::<UnitPattern>(), Err(NameError::Wildcard(..))), "{bad}");
        }
    }

    #[test]
    fn credential_names_are_those_that_systemd_accepts() {
        for good in ["openai-api-key", "a.b", "with space", "..."] {
            assert!(good.parse::<CredentialName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a\nb", "ä", &"x".repeat(256)] {
            assert!(bad.parse::<CredentialName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_name_counts_for_the_size_of_a_credential() {
        assert_eq!("key".parse::<CredentialName>().unwrap().size_limit(), (1 << 20) - 3);
    }

    #[test]
    fn an_address_of_107_bytes_fits_and_one_of_108_does_not() {
        let unit: UnitPattern = format!("{}.service", "u".repeat(42)).parse().unwrap();
        let fits: CredentialName = "c".repeat(107 - 23 - 50 - 1).parse().unwrap();
        let long: CredentialName = "c".repeat(107 - 23 - 50).parse().unwrap();
        assert_eq!(unit.can_ask_for(&fits), Ok(()));
        assert!(matches!(unit.can_ask_for(&long), Err(NameError::TooLong { excess: 1, .. })));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_text(text in "\\PC{0,40}") {
            if let Ok(unit) = text.parse::<UnitName>() { prop_assert_eq!(unit.as_str(), text.as_str()); }
            if let Ok(pattern) = text.parse::<UnitPattern>() { prop_assert_eq!(pattern.to_string(), text); }
        }

        #[test]
        fn every_instance_matches_its_template(prefix in "[a-z_-]{1,8}", instance in "[a-zA-Z0-9:_.@\\\\-]{1,12}") {
            let unit: UnitName = format!("{prefix}@{instance}.service").parse().unwrap();
            let pattern: UnitPattern = format!("{prefix}@*.service").parse().unwrap();
            prop_assert!(pattern.matches(&unit));
            prop_assert!(UnitPattern::Unit(unit.clone()).matches(&unit));
        }
    }
}
