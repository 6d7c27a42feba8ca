//! How a value is written into a text, so that whoever reads the text gets the value unchanged.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::secret::Empty;

/// How a value stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Verbatim,
    /// In double quotes, as `EnvironmentFile=` reads them (`systemd.exec(5)`).
    Env,
    /// In single quotes, as shells read them.
    Shell,
    /// A JSON string with its quotes (RFC 8259).
    Json,
    /// A YAML scalar in double quotes (YAML 1.2, and 1.1).
    Yaml,
    /// Percent-encoded, for any part of a URL (RFC 3986).
    Url,
    /// A string of standard SQL with its quotes, which all servers read alike.
    Sql,
    /// The same of MySQL and MariaDB, in which a backslash escapes.
    Mysql,
    /// The same of PostgreSQL, in which it does, too: `E'…'`.
    Postgres,
    /// A field of `PGPASSFILE`.
    Pgpass,
    /// In double quotes, for the settings of unit files that take words, such as `Environment=` (`systemd.syntax(7)`).
    Unit,
    /// As it is, if all readers of INI files read it so.
    Ini,
    /// In double quotes, as redis.conf has it. Any bytes.
    Redis,
    /// As it is, with exactly one line break at its end.
    Line,
    Base64,
    /// Its SHA-256, in hexadecimal digits.
    Sha256,
}

/// Why a value cannot stand in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    #[error(transparent)]
    Empty(#[from] Empty),
    #[error("the value cannot be written in the form {form}: {why}")]
    Unfit { form: &'static str, why: &'static str },
}

/// What stands in a URL as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// What readers of INI files take for themselves, or for more than one line.
const INI: &str = "-_.,:/@+*=<> ";
/// What they take for a truth value, or for nothing.
const WORDS: [&str; 8] = ["true", "false", "yes", "no", "on", "off", "null", "none"];
/// How many bytes are encoded at a time. A multiple of three, so that base64 has no gaps.
const CHUNK: usize = 48;

impl Form {
    /// As templates name them.
    pub const NAMED: [(&'static str, Self); 15] = [
        ("env", Self::Env),
        ("json", Self::Json),
        ("shell", Self::Shell),
        ("yaml", Self::Yaml),
        ("url", Self::Url),
        ("sql", Self::Sql),
        ("mysql", Self::Mysql),
        ("postgres", Self::Postgres),
        ("pgpass", Self::Pgpass),
        ("unit", Self::Unit),
        ("ini", Self::Ini),
        ("redis", Self::Redis),
        ("line", Self::Line),
        ("base64", Self::Base64),
        ("sha256", Self::Sha256),
    ];

    pub fn named(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(known, _)| *known == name).map(|(_, form)| *form)
    }

    fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, form)| *form == self).map_or("verbatim", |(name, _)| name)
    }

    fn unfit(self, why: &'static str) -> RenderError {
        RenderError::Unfit { form: self.name(), why }
    }

    /// Writes `value` in pieces, which are the same each time.
    pub fn write(self, value: &[u8], write: &mut impl FnMut(&[u8])) -> Result<(), RenderError> {
        match self {
            Self::Verbatim => write(value),
            Self::Line => {
                let end = value.iter().rposition(|byte| !b"\r\n".contains(byte));
                let end = end.ok_or_else(|| self.unfit("it is nothing but line breaks"))?;
                write(&value[..=end]);
                write(b"\n");
            }
            Self::Base64 => {
                let mut encoded = Zeroizing::new([0; CHUNK / 3 * 4]);
                for chunk in value.chunks(CHUNK) {
                    // It has room for each.
                    let length = STANDARD.encode_slice(chunk, &mut encoded[..]).unwrap_or_default();
                    write(&encoded[..length]);
                }
            }
            Self::Sha256 => Sha256::digest(value).iter().for_each(|byte| write(&hex(*byte))),
            Self::Url if value == b"." || value == b".." => {
                return Err(self.unfit("as a part of a path it is not there, or leads out of it"));
            }
            Self::Url if value.contains(&0) => return Err(self.unfit("it has a NUL in it")),
            Self::Url => percent_encode(value, UNRESERVED).for_each(|piece| write(piece.as_bytes())),
            Self::Redis => {
                write(b"\"");
                value.iter().for_each(|byte| match byte {
                    b'"' | b'\\' => write(&[b'\\', *byte]),
                    b' '..=b'~' => write(&[*byte]),
                    byte => write(&[&b"\\x"[..], &hex(*byte)].concat()),
                });
                write(b"\"");
            }
            _ => self.write_text(value, write)?,
        }
        Ok(())
    }

    fn write_text(self, value: &[u8], write: &mut impl FnMut(&[u8])) -> Result<(), RenderError> {
        let text = std::str::from_utf8(value).map_err(|_| self.unfit("it is not text in UTF-8"))?;
        self.fits(text)?;
        let (open, close) = self.quotes();
        write(open.as_bytes());
        let mut plain = 0;
        for (at, character) in text.char_indices() {
            if let Some(escaped) = self.escaped(character) {
                write(&value[plain..at]);
                write(escaped.as_bytes());
                plain = at + character.len_utf8();
            }
        }
        write(&value[plain..]);
        write(close.as_bytes());
        Ok(())
    }

    fn fits(self, text: &str) -> Result<(), RenderError> {
        let why = match self {
            _ if text.contains('\0') => "it has a NUL in it",
            // systemd takes such text for none.
            Self::Env | Self::Unit if text.chars().any(is_noncharacter) => {
                "it has a character in it that is none"
            }
            Self::Sql if text.contains('\r') => "clients leave carriage returns out: use mysql or postgres",
            Self::Mysql if has_escape_after_others(text) => {
                "it has a backslash or carriage return after a character that is not ASCII, of which it would be a part in some \
                 character sets"
            }
            Self::Sql if text.contains('\\') => {
                "of a backslash, servers make different things: use mysql or postgres"
            }
            Self::Pgpass if text.contains(['\n', '\r']) => "it has a line break in it",
            Self::Ini if WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)) => {
                "some readers of INI files take it for a truth value, or for nothing"
            }
            Self::Ini if text.starts_with(' ') || text.ends_with(' ') => "it begins or ends with a space",
            Self::Ini if text.chars().any(|c| !(c.is_alphanumeric() || INI.contains(c))) => {
                "it has a character in it that some readers of INI files take for something else"
            }
            _ => return Ok(()),
        };
        Err(self.unfit(why))
    }

    fn quotes(self) -> (&'static str, &'static str) {
        match self {
            Self::Shell | Self::Sql | Self::Mysql => ("'", "'"),
            Self::Postgres => ("E'", "'"),
            Self::Pgpass | Self::Ini => ("", ""),
            _ => ("\"", "\""),
        }
    }

    /// What stands for a character that would mean something else.
    fn escaped(self, character: char) -> Option<&'static str> {
        let has_codes = matches!(self, Self::Json | Self::Yaml | Self::Unit);
        Some(match (self, character) {
            (Self::Shell, '\'') => "'\\''",
            (Self::Sql | Self::Mysql | Self::Postgres, '\'') => "''",
            (Self::Mysql | Self::Postgres | Self::Pgpass, '\\') => "\\\\",
            (Self::Pgpass, ':') => "\\:",
            // Clients leave it out where a line ends.
            (Self::Mysql | Self::Postgres, '\r') => "\\r",
            (Self::Env | Self::Json | Self::Yaml | Self::Unit, '"') => "\\\"",
            (Self::Env | Self::Json | Self::Yaml | Self::Unit, '\\') => "\\\\",
            (Self::Env, '$') => "\\$",
            (Self::Env, '`') => "\\`",
            (Self::Unit, '%') => "%%",
            (_, '\n') if has_codes => "\\n",
            (_, '\r') if has_codes => "\\r",
            (_, '\t') if has_codes => "\\t",
            (Self::Json | Self::Yaml | Self::Unit, ..'\x20') => CONTROL[character as usize].as_str(),
            // What YAML does not take as it is, or takes for a line break.
            (Self::Yaml, '\x7f'..='\u{9f}') => CONTROL[character as usize - 0x7f + 0x20].as_str(),
            (Self::Yaml, '\u{2028}') => "\\u2028",
            (Self::Yaml, '\u{2029}') => "\\u2029",
            (Self::Yaml, '\u{feff}') => "\\ufeff",
            (Self::Yaml, '\u{fffe}') => "\\ufffe",
            (Self::Yaml, '\u{ffff}') => "\\uffff",
            _ => return None,
        })
    }
}

fn is_noncharacter(character: char) -> bool {
    matches!(character, '\u{fdd0}'..='\u{fdef}') || character as u32 & 0xfffe == 0xfffe
}

fn has_escape_after_others(text: &str) -> bool {
    text.chars()
        .zip(text.chars().skip(1))
        .any(|(before, escaped)| !before.is_ascii() && "\\\r".contains(escaped))
}

fn hex(byte: u8) -> [u8; 2] {
    [DIGITS[usize::from(byte / 16)], DIGITS[usize::from(byte % 16)]]
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// `\u0000`, of the control characters below 0x20, then of those from 0x7f on.
const CONTROL: [Code; 0x20 + 0x21] = {
    let mut all = [Code(*b"\\u0000"); 0x20 + 0x21];
    let mut at = 0;
    while at < all.len() {
        let byte = if at < 0x20 { at } else { at - 0x20 + 0x7f };
        all[at].0[4] = DIGITS[byte / 16];
        all[at].0[5] = DIGITS[byte % 16];
        at += 1;
    }
    all
};

#[derive(Clone, Copy)]
struct Code([u8; 6]);

impl Code {
    fn as_str(&'static self) -> &'static str {
        // All of it is ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}
