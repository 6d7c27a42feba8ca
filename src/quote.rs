//! How a value is quoted in a text, so that whoever reads the text gets the value unchanged.

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
}

/// Why a value cannot stand in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    #[error(transparent)]
    Empty(#[from] Empty),
    #[error("the value is not text, or has a NUL in it: it cannot be a variable or a JSON string")]
    NoText,
}

impl Form {
    /// Writes `value` in pieces, which are the same each time.
    pub fn write(self, value: &[u8], write: &mut impl FnMut(&[u8])) -> Result<(), RenderError> {
        if self == Self::Verbatim {
            write(value);
            return Ok(());
        }
        let text = std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'));
        let text = text.ok_or(RenderError::NoText)?;
        let quote: &[u8] = if self == Self::Shell { b"'" } else { b"\"" };
        write(quote);
        let mut plain = 0;
        for (at, byte) in text.bytes().enumerate() {
            let escaped: Option<&[u8]> = match (self, byte) {
                (Self::Shell, b'\'') => Some(b"'\\''"),
                (Self::Shell, _) => None,
                (_, b'\x22') => Some(b"\\\""),
                (_, b'\\') => Some(b"\\\\"),
                (Self::Env, b'$') => Some(b"\\$"),
                (Self::Env, b'`') => Some(b"\\`"),
                (Self::Json, b'\n') => Some(b"\\n"),
                (Self::Json, b'\r') => Some(b"\\r"),
                (Self::Json, b'\t') => Some(b"\\t"),
                (Self::Json, ..0x20) => Some(&CONTROL[usize::from(byte)]),
                _ => None,
            };
            if let Some(escaped) = escaped {
                write(&value[plain..at]);
                write(escaped);
                plain = at + 1;
            }
        }
        write(&value[plain..]);
        write(quote);
        Ok(())
    }
}

/// The control characters in JSON.
const CONTROL: [[u8; 6]; 0x20] = {
    let mut all = [*b"\\u0000"; 0x20];
    let mut byte = 0;
    while byte < all.len() {
        all[byte][4] = b'0' + (byte / 16) as u8;
        all[byte][5] = b"0123456789abcdef"[byte % 16];
        byte += 1;
    }
    all
};
