//! The service account token, `ops_…`: checked before anything is sent, so that a forged or damaged one never makes opnix
//! connect to anybody but 1Password. Errors name the faulty member, never its content.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::reference::is_id;
use crate::remedy::Remedy;
use crate::secret::Secret;

/// The hosts of 1Password's accounts.
const HOSTS: [&str; 3] = ["1password.com", "1password.ca", "1password.eu"];

/// A token that is complete and names an allowed host.
pub struct Token {
    secret: Secret,
    account: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is no service account token: it does not start with `ops_`")]
    Prefix,
    #[error("the token is damaged: {0}")]
    Damaged(&'static str),
    #[error("the token names the host {host:?}, which is not 1Password's")]
    Host { host: String },
    #[error("the token names the address {address:?}: {why}")]
    Address { address: String, why: &'static str },
}

impl Remedy for TokenError {
    fn remedy(&self) -> Option<String> {
        match self {
            Self::Damaged(_) => Some("copy it again from 1Password, whole".into()),
            Self::Host { .. } => {
                Some("if it is yours, add it to \"hosts\" of the provider in secrets.json".into())
            }
            Self::Prefix | Self::Address { .. } => None,
        }
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
            .map_err(|_| TokenError::Damaged("what follows `ops_` is no base64"))?;
        let members: Members<'_> = serde_json::from_slice(&json[..length])
            .map_err(|_| TokenError::Damaged("a member is missing or of the wrong type"))?;
        members.check()?;
        check_address(members.sign_in_address, hosts)?;
        let account = format!("{} at {}", members.email.to_lowercase(), members.sign_in_address);
        Ok(Self { secret: token, account })
    }

    /// The token itself, for the settings of the core.
    pub fn secret(&self) -> &Secret {
        &self.secret
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

/// Allowed are `host` and `https://host`; on the loopback, for tests, also any port and `http`. This is stricter than the
/// core's own parser, so that the host that is checked here is the one that it connects to.
fn check_address(address: &str, hosts: &[String]) -> Result<(), TokenError> {
    let wrong = |why| TokenError::Address { address: address.to_owned(), why };
    let (scheme, authority) = match address.split_once("://") {
        Some((scheme, authority)) => (Some(scheme), authority),
        None => (None, address),
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => (host, Some(port)),
        Some(_) => return Err(wrong("after a colon only a port can stand")),
        None => (authority, None),
    };
    let named = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-';
    if host.is_empty() || !host.bytes().all(named) {
        return Err(wrong("it holds more than a host name"));
    }
    let host = host.to_ascii_lowercase();
    if host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        return match scheme {
            None | Some("http" | "https") => Ok(()),
            Some(_) => Err(wrong("only http and https are known")),
        };
    }
    if scheme.is_some_and(|scheme| scheme != "https") || port.is_some() {
        return Err(wrong("only https at its own port is allowed"));
    }
    let own = HOSTS.into_iter().chain(hosts.iter().map(String::as_str));
    let below = |allowed: &str| {
        host.strip_suffix(&allowed.to_ascii_lowercase())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if own.into_iter().any(below) { Ok(()) } else { Err(TokenError::Host { host }) }
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

    fn address(address: &str) -> Result<(), TokenError> {
        check_address(address, &["op.example.org".into()])
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

    #[test]
    fn only_1password_and_the_loopback_are_talked_to() {
        for good in [
            "my.1password.com",
            "https://acme.1password.eu",
            "ACME.1Password.ca",
            "1password.com",
            "op.example.org",
            "eu.op.example.org",
            "http://127.0.0.1:8083",
            "https://127.0.0.1:8083",
            "127.0.0.1:8443",
        ] {
            assert_eq!(address(good), Ok(()), "{good}");
        }
        for bad in [
            "evil.example",
            "evil1password.com",
            "1password.com.evil.example",
            "https://1password.com@evil.example",
            "https://evil.example/.1password.com",
            "https://evil.example#.1password.com",
            "https://evil.example?.1password.com",
            "https://evil.example\\.1password.com",
            "http://my.1password.com",
            "https://my.1password.com:8443",
            "https://my.1password.com/sub",
            "ftp://127.0.0.1",
            "http://10.0.0.1",
            "localhost:8443",
            "",
            "https://",
            "my.1password.com\n",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_panic(text in "(ops_)?\\PC{0,60}", host in "\\PC{0,40}") {
            prop_assume!(!text.is_empty());
            let _ = Token::check(Secret::copy_from(text.as_bytes()).unwrap(), &[]);
            let _ = address(&host);
        }
    }
}
