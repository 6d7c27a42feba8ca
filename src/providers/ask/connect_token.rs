//! The token of a Connect server: a JSON web token. Whether it is a good one only the server knows; here it is only looked at
//! whether it is one at all, and until when. Errors never repeat any of it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::remedy::Remedy;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectTokenError {
    #[error("the token is not a Connect token, which is a JSON web token: `eyJ…`, with two dots in it")]
    NoWebToken,
    #[error("the Connect token is damaged: {0}")]
    Damaged(&'static str),
}

impl Remedy for ConnectTokenError {
    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::NoWebToken => {
                "make one for the Connect server in 1Password (Developer, Connect servers), and copy it whole"
                    .into()
            }
            Self::Damaged(_) => "copy it again from 1Password, whole".into(),
        })
    }
}

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "alg")]
    _alg: String,
}

/// What RFC 7519 names. What else 1Password says in it is its own business.
#[derive(Deserialize)]
struct Claims {
    exp: Option<u64>,
}

/// When it expires, in seconds since 1970, if it says so and is a token.
pub fn check(token: &[u8]) -> Result<Option<u64>, ConnectTokenError> {
    let parts: Vec<&[u8]> = token.split(|byte| *byte == b'.').collect();
    let [header, claims, signature] = parts[..] else {
        return Err(match token.starts_with(b"eyJ") {
            true => ConnectTokenError::Damaged("it does not have three parts"),
            false => ConnectTokenError::NoWebToken,
        });
    };
    if !header.starts_with(b"eyJ") {
        return Err(ConnectTokenError::NoWebToken);
    }
    let _: Header = json(header).ok_or(ConnectTokenError::Damaged("its header"))?;
    let claims: Claims = json(claims).ok_or(ConnectTokenError::Damaged("its claims"))?;
    let is_encoded = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    if signature.is_empty() || !signature.iter().all(is_encoded) {
        return Err(ConnectTokenError::Damaged("its signature"));
    }
    Ok(claims.exp)
}

fn json<T: DeserializeOwned>(part: &[u8]) -> Option<T> {
    let mut text = Zeroizing::new(vec![0; base64::decoded_len_estimate(part.len())]);
    let length = URL_SAFE_NO_PAD.decode_slice(part, &mut text).ok()?;
    serde_json::from_slice(&text[..length]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(header: &str, claims: &str) -> String {
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        format!("{header}.{claims}.c2lnbmF0dXJl")
    }

    #[test]
    fn a_json_web_token_is_taken_and_says_until_when_it_is_good() {
        let of = |claims: &str| check(token(r#"{"alg":"ES256","kid":"made-up"}"#, claims).as_bytes());
        assert_eq!(of("{}"), Ok(None));
        assert_eq!(of(r#"{"exp":1800000000,"1password.com/vts":[]}"#), Ok(Some(1_800_000_000)));
        assert_eq!(of("[]"), Err(ConnectTokenError::Damaged("its claims")));
    }

    #[test]
    fn what_is_damaged_is_not_taken_and_not_repeated() {
        let whole = token(r#"{"alg":"ES256"}"#, r#"{"iss":"hunter2"}"#);
        for length in 0..whole.len() - "c2lnbmF0dXJl".len() + 1 {
            assert!(check(&whole.as_bytes()[..length]).is_err(), "{length}");
        }
        for wrong in
            ["hunter2", "a.b.c", "eyJ.eyJ.hunter2", &format!("{whole}="), &format!("{whole} hunter2")]
        {
            let error = check(wrong.as_bytes()).unwrap_err();
            assert!(!error.lines().contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = check(&bytes);
        }
    }
}
