//! What a peer says by the address that it asks from.

use std::fmt;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;

use nix::sys::socket::{UnixAddr, getpeername};

use crate::names::{CredentialName, UnitName};

/// What the address of the peer says: `\0<hex>/unit/<UNIT>/<CREDENTIAL>`. Anybody can write anything there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    pub unit: UnitName,
    pub credential: CredentialName,
}

/// What a peer with this address claims, whether it holds or not.
pub fn claim_of(address: &SocketAddr) -> Option<Claim> {
    Claim::parse(address.as_abstract_name()?)
}

/// Whether an address is of the form that systemd asks from for a unit.
pub fn is_of_a_unit(abstract_name: &[u8]) -> bool {
    abstract_name.windows(6).any(|part| part == b"/unit/")
}

/// An address as people read it.
pub(super) fn spell(address: &SocketAddr) -> String {
    match (address.as_abstract_name(), address.as_pathname()) {
        (Some(name), _) => format!("the address \"@{}\"", name.escape_ascii()),
        (None, Some(path)) => format!("the address {path:?}"),
        (None, None) => "no address".to_owned(),
    }
}

/// Whether systemd asks there for a credential of a unit: by the address that it asks from.
pub fn asks_for_a_unit(stream: &impl AsRawFd) -> bool {
    let address = getpeername::<UnixAddr>(stream.as_raw_fd());
    address.is_ok_and(|address| address.as_abstract().is_some_and(is_of_a_unit))
}

/// Whether the peer has an abstract address, as systemd has when it asks for a secret, of a unit or for something else. Those who
/// ask the control socket have none.
pub fn is_named(stream: &impl AsRawFd) -> bool {
    let address = getpeername::<UnixAddr>(stream.as_raw_fd());
    address.is_ok_and(|address| address.as_abstract().is_some())
}

impl Claim {
    /// `name` is the address without its first NUL.
    pub(super) fn parse(name: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(name).ok()?;
        let (id, rest) = text.split_once("/unit/")?;
        let hex = (1..=16).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit());
        let (unit, credential) = rest.split_once('/').filter(|_| hex)?;
        Some(Self { unit: unit.parse().ok()?, credential: credential.parse().ok()? })
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "credential \"{}\" for unit {}", self.credential, self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(name: &str) -> Option<(String, String)> {
        Claim::parse(name.as_bytes()).map(|claim| (claim.unit.to_string(), claim.credential.to_string()))
    }

    #[test]
    fn the_address_that_systemd_asks_from_is_read() {
        let expected = Some(("opencode@blue.service".into(), "openai-api-key".into()));
        assert_eq!(claim("6b8b4567327b23c6/unit/opencode@blue.service/openai-api-key"), expected);
        assert_eq!(claim("a/unit/esc-a\\x2db@x.service/k").unwrap().0, "esc-a\\x2db@x.service");
    }

    #[test]
    fn any_other_address_is_malformed() {
        let long = "1".repeat(17) + "/unit/a.service/k";
        for bad in [
            "",
            "a",
            "/unit/a.service/k",
            "xyz/unit/a.service/k",
            &long,
            "a/unit/a.service",
            "a/unit/a.service/",
            "a/unit/a.service/k/l",
            "a/unit//k",
            "a/unit/a/k",
            "a/unit/a@.service/k",
            "a/bus/a.service/k",
            "a/unit/a.service/k\0",
        ] {
            assert_eq!(claim(bad), None, "{bad:?}");
        }
        assert_eq!(Claim::parse(b"a/unit/a.service/\xff"), None);
    }

    proptest! {
        #[test]
        fn parsing_an_address_never_panics(name in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Claim::parse(&name);
        }

        #[test]
        fn what_systemd_writes_is_read_back(id in any::<u64>(), unit in "[a-zA-Z0-9:_.\\\\-]{1,20}", key in "[!-.0-9;-~]{1,20}") {
            prop_assume!(key != "." && key != "..");
            let name = format!("{id:016x}/unit/{unit}.service/{key}");
            prop_assert_eq!(claim(&name), Some((format!("{unit}.service"), key)));
        }
    }
}
