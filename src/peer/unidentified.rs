//! Why a peer is not the unit that it claims to be.

use nix::errno::Errno;

use super::cgroup::Legacy;
use crate::remedy::Remedy;

/// Why a claim does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unidentified {
    #[error("the peer's address is not one that systemd asks from")]
    MalformedAddress,
    #[error("the peer has uid {found}, not {expected}: it is not the service manager")]
    WrongUid { found: u32, expected: u32 },
    #[error("the peer is gone")]
    Gone,
    #[error("the peer sits in no cgroup that says its unit")]
    NoCgroup,
    #[error("the peer's name is forged: it sits in cgroup {cgroup:?}")]
    Forged { cgroup: String },
    #[error("the peer belongs to a user's service manager: it sits in cgroup {cgroup:?}")]
    UserManager { cgroup: String },
    #[error(transparent)]
    Legacy(Legacy),
    #[error("the kernel does not say who the peer is: {0}")]
    Kernel(Errno),
}

impl Unidentified {
    /// The check that failed, in one word, for the journal's OPNIX_CHECK field.
    pub fn check(&self) -> &'static str {
        if matches!(self, Self::Legacy(_)) { "hierarchy" } else { "peer" }
    }
}

impl Remedy for Unidentified {
    fn remedy(&self) -> Option<String> {
        if let Self::Legacy(legacy) = self { legacy.remedy() } else { None }
    }
}
