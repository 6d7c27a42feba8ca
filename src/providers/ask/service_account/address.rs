//! The address in a token: which hosts opnix may connect to.

use std::net::IpAddr;

use crate::remedy::Remedy;

/// The hosts of 1Password's accounts.
const HOSTS: [&str; 3] = ["1password.com", "1password.ca", "1password.eu"];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("the token names the host {host:?}, which is not 1Password's")]
    Foreign { host: String },
    #[error("the token names the address {address:?}: {why}")]
    Malformed { address: String, why: &'static str },
}

impl Remedy for AddressError {
    fn remedy(&self) -> Option<String> {
        match self {
            Self::Foreign { .. } => {
                Some("if it is yours, add it to \"hosts\" of the provider in secrets.json".into())
            }
            Self::Malformed { .. } => None,
        }
    }
}

/// The host and port, if they are allowed: `host` and `https://host`; on the loopback, for tests, also any port and `http`. This
/// is stricter than the core's own parser, so that the host that is checked here is the one that it connects to.
pub fn check_address(address: &str, hosts: &[String]) -> Result<(String, u16), AddressError> {
    let wrong = |why| AddressError::Malformed { address: address.to_owned(), why };
    let (scheme, authority) = match address.split_once("://") {
        Some((scheme, authority)) => (Some(scheme), authority),
        None => (None, address),
    };
    let (host, port) = match authority.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
        Some((host, Ok(port))) => (host, Some(port)),
        Some((_, Err(_))) => return Err(wrong("after a colon only a port can stand")),
        None => (authority, None),
    };
    let usual = if scheme == Some("http") { 80 } else { 443 };
    let named = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-';
    if host.is_empty() || !host.bytes().all(named) {
        return Err(wrong("it holds more than a host name"));
    }
    let host = host.to_ascii_lowercase();
    if host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        return match scheme {
            None | Some("http" | "https") => Ok((host, port.unwrap_or(usual))),
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
    if own.into_iter().any(below) { Ok((host, usual)) } else { Err(AddressError::Foreign { host }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(address: &str) -> Result<(String, u16), AddressError> {
        check_address(address, &["op.example.org".into()])
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
            assert!(address(good).is_ok(), "{good}");
        }
        assert_eq!(address("https://ACME.1password.eu"), Ok(("acme.1password.eu".into(), 443)));
        assert_eq!(address("127.0.0.1:8443"), Ok(("127.0.0.1".into(), 8443)));
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
        fn any_text_is_judged_without_panic(text in "\\PC{0,40}") {
            let _ = address(&text);
        }
    }
}
