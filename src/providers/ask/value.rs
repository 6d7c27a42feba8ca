//! From the JSON strings that hold values to secrets, without copies that nobody wipes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use crate::providers::error::FetchError;
use crate::reference::Reference;
use crate::secret::{Draft, Secret};

/// The text of a JSON string, decoded into a buffer that is wiped.
pub fn text(raw: &RawValue, reference: &Reference) -> Result<Secret, FetchError> {
    let malformed =
        |what: &str| FetchError::Malformed { reference: reference.to_string(), what: what.into() };
    let quoted = raw.get();
    let inside = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let inside = inside.ok_or_else(|| malformed("the value is not a string"))?;
    // No escape is shorter than what it stands for.
    let mut draft = Draft::with_capacity(inside.len());
    unescape(inside, &mut draft).ok_or_else(|| malformed("the value holds half of a surrogate pair"))?;
    draft.finish().map_err(|_| FetchError::Empty { reference: reference.to_string() })
}

/// Undoes JSON's escapes. The text is known to be valid JSON, which may still contain lone surrogates.
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

/// The bytes of a JSON string in base64.
pub fn bytes(raw: &RawValue, reference: &Reference) -> Result<Secret, FetchError> {
    let quoted = raw.get();
    let encoded = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
    let mut draft = Draft::with_capacity(base64::decoded_len_estimate(encoded.len()));
    let what = || "the content of the file is not base64".to_owned();
    draft
        .fill(|rest| STANDARD.decode_slice(encoded, rest))
        .map_err(|_| FetchError::Malformed { reference: reference.to_string(), what: what() })?;
    draft.finish().map_err(|_| FetchError::Empty { reference: reference.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
