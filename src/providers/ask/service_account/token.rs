//! The service account token, `ops_…`: checked before anything is sent, so that a forged or damaged one never makes opnix
//! connect to anybody but 1Password. Errors name the faulty member, never its content.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::address::{AddressError, check_address};
use crate::providers::FetchError;
use crate::reference::is_id;
use crate::remedy::Remedy;
use crate::secret::Secret;

/// A token that is complete and names an allowed host.
pub struct Token {
    secret: Secret,
    email: String,
    account: String,
    /// Of the server that it is for.
    host: String,
    port: u16,
    is_plain: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is not a service account token: it does not start with `ops_`")]
    Prefix,
    #[error("the token is damaged: {0}")]
    Damaged(&'static str),
    #[error(transparent)]
    Address(#[from] AddressError),
}

impl Remedy for TokenError {
    fn remedy(&self) -> Option<String> {
        match self {
            Self::Damaged(_) => Some("copy it again from 1Password, whole".into()),
            Self::Address(error) => error.remedy(),
            Self::Prefix => {
                Some("make one for a service account in 1Password (Developer, Service Accounts), and copy it whole".into())
            }
        }
    }
}

impl From<TokenError> for FetchError {
    fn from(error: TokenError) -> Self {
        Self::TokenMalformed { what: error.to_string(), remedy: error.remedy() }
    }
}

/// The members of a token. Borrowed from its decoded text, so that no copy is left behind: a genuine token has no
/// escapes in it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members<'a> {
    sign_in_address: &'a str,
    email: &'a str,
    secret_key: &'a str,
    srp_x: &'a str,
    #[serde(borrow)]
    muk: Key<'a>,
    #[serde(borrow)]
    user_auth: UserAuth<'a>,
    device_uuid: &'a str,
    #[serde(borrow)]
    throttle_secret: ThrottleSecret<'a>,
}

#[derive(Deserialize)]
struct Key<'a> {
    kty: &'a str,
    alg: &'a str,
    k: &'a str,
}

#[derive(Deserialize)]
struct UserAuth<'a> {
    method: &'a str,
    alg: &'a str,
    iterations: u32,
    salt: &'a str,
}

#[derive(Deserialize)]
struct ThrottleSecret<'a> {
    seed: &'a str,
    uuid: &'a str,
}

impl Token {
    /// `hosts` are allowed besides 1Password's own, each with all hosts below it.
    pub fn check(token: Secret, hosts: &[String]) -> Result<Self, TokenError> {
        let encoded = token.expose().strip_prefix(b"ops_").ok_or(TokenError::Prefix)?;
        let mut json = Zeroizing::new(vec![0; base64::decoded_len_estimate(encoded.len())]);
        let length = URL_SAFE_NO_PAD
            .decode_slice(encoded, &mut json)
            .map_err(|_| TokenError::Damaged("what follows `ops_` is not base64"))?;
        let members: Members<'_> = serde_json::from_slice(&json[..length])
            .map_err(|_| TokenError::Damaged("a member is missing or of the wrong type"))?;
        members.check()?;
        let (host, port) = check_address(members.sign_in_address, hosts)?;
        let email = members.email.to_lowercase();
        let account = format!("{email} at {}", members.sign_in_address);
        let is_plain = members.sign_in_address.starts_with("http://");
        Ok(Self { secret: token, email, account, host, port, is_plain })
    }

    /// The token itself, for the settings of the core.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    pub fn into_secret(self) -> Secret {
        self.secret
    }

    /// The same as a URL. Only on the loopback it can be one without TLS.
    pub fn url(&self) -> String {
        let scheme = if self.is_plain { "http" } else { "https" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }

    /// Where 1Password is for this account.
    pub fn endpoint(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Of the service account. Not a secret.
    pub fn email(&self) -> &str {
        &self.email
    }

    /// Whose token it is. Not a secret.
    pub fn account(&self) -> &str {
        &self.account
    }
}

impl Members<'_> {
    fn check(&self) -> Result<(), TokenError> {
        let base64_of = |text: &str, length| {
            let mut bytes = Zeroizing::new([0; 64]);
            URL_SAFE_NO_PAD.decode_slice(text, &mut bytes[..]).is_ok_and(|decoded| decoded == length)
        };
        let hex_of = |text: &str, length: usize| {
            text.len() == 2 * length && text.bytes().all(|b| b.is_ascii_hexdigit())
        };
        let email =
            self.email.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.'));
        let auth = &self.user_auth;
        let checks = [
            ("email", email),
            ("secretKey", is_secret_key(self.secret_key)),
            ("srpX", hex_of(self.srp_x, 32)),
            ("muk", self.muk.kty == "oct" && self.muk.alg == "A256GCM" && base64_of(self.muk.k, 32)),
            ("userAuth", auth.method == "SRPg-4096" && auth.alg == "PBES2g-HS256" && auth.iterations > 0),
            ("userAuth.salt", base64_of(auth.salt, 16)),
            ("deviceUuid", is_id(self.device_uuid)),
            ("throttleSecret.seed", hex_of(self.throttle_secret.seed, 32)),
            ("throttleSecret.uuid", is_id(self.throttle_secret.uuid)),
        ];
        match checks.iter().find(|(_, valid)| !valid) {
            None => Ok(()),
            Some((member, _)) => Err(TokenError::Damaged(member)),
        }
    }
}

/// `A3-SSSSSS-KKKKKK-KKKKK-KKKKK-KKKKK-KKKKK`, of digits and letters that cannot be mistaken for each other.
fn is_secret_key(text: &str) -> bool {
    let allowed = |part: &str| part.bytes().all(|b| b"23456789ABCDEFGHJKLMNPQRSTVWXYZ".contains(&b));
    let mut parts = text.split('-');
    parts.next() == Some("A3")
        && [6, 6, 5, 5, 5, 5]
            .iter()
            .all(|length| parts.next().is_some_and(|part| part.len() == *length && allowed(part)))
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn members() -> serde_json::Value {
        serde_json::json!({
            "signInAddress": "acme.1password.eu", "email": "a1b2@1passwordserviceaccounts.com",
            "secretKey": "A3-ABCDEF-GHJKLM-NPQRS-TVWXY-Z2345-67892", "srpX": "0f".repeat(32),
            "muk": {"kty": "oct", "kid": "mp", "alg": "A256GCM", "k": "A".repeat(43), "ext": true, "key_ops": []},
            "userAuth": {"method": "SRPg-4096", "alg": "PBES2g-HS256", "iterations": 650000, "salt": "A".repeat(22)},
            "deviceUuid": "abcdefghijklmnopqrstuvwxya",
            "throttleSecret": {"seed": "0f".repeat(32), "uuid": "abcdefghijklmnopqrstuvwxye"},
        })
    }

    fn check(members: &serde_json::Value) -> Result<Token, TokenError> {
        let text = format!("ops_{}", URL_SAFE_NO_PAD.encode(members.to_string()));
        Token::check(Secret::copy_from(text.as_bytes()).unwrap(), &["op.example.org".into()])
    }

    #[test]
    fn a_whole_token_is_taken() {
        assert!(check(&members()).is_ok());
    }

    #[test]
    fn every_member_is_needed_and_checked() {
        for member in
            ["signInAddress", "email", "secretKey", "srpX", "muk", "userAuth", "deviceUuid", "throttleSecret"]
        {
            let mut without = members();
            without.as_object_mut().unwrap().remove(member);
            assert!(matches!(check(&without), Err(TokenError::Damaged(_))), "{member}");
        }
        for (member, wrong) in [
            ("/email", "nobody"),
            ("/secretKey", "A3-ABCDEF-GHIKLM-NPQRS-TVWXY-Z2345-67892"),
            ("/srpX", "0f"),
            ("/muk/k", "AAAA"),
            ("/muk/kty", "RSA"),
            ("/userAuth/method", "SRP-4096"),
            ("/userAuth/salt", "?"),
            ("/deviceUuid", "abcdefghijklmnopqrstuvwxyz"),
            ("/throttleSecret/seed", "xyz"),
            ("/throttleSecret/uuid", "ABCDEFGHIJKLMNOPQRSTUVWXYA"),
        ] {
            let mut faulty = members();
            *faulty.pointer_mut(member).unwrap() = wrong.into();
            let Err(TokenError::Damaged(named)) = check(&faulty) else { panic!("{member}") };
            assert!(member.replace('/', ".").contains(named), "{member}: {named}");
        }
    }

    #[test]
    fn what_is_no_token_is_said_to_be_none_and_not_repeated() {
        let of = |text: &str| Token::check(Secret::copy_from(text.as_bytes()).unwrap(), &[]).err().unwrap();
        assert_eq!(of("hunter2"), TokenError::Prefix);
        for text in ["ops_", "ops_hunter2!", "ops_aHVudGVyMg"] {
            assert!(!of(text).to_string().contains("hunter2"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_panic(text in "(ops_)?\\PC{1,60}") {
            let _ = Token::check(Secret::copy_from(text.as_bytes()).unwrap(), &[]);
        }
    }
}
