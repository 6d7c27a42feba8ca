//! What can go wrong with a call, in the words of the interface and in those for people.

use zlink::ReplyError;
use zlink::introspect;

use crate::remedy::Remedy;

/// What can go wrong with a call.
#[derive(Debug, Clone, PartialEq, ReplyError, introspect::ReplyError)]
#[zlink(interface = "io.opnix")]
pub enum Error {
    /// The service has no valid configuration.
    Unconfigured { faults: String },
    /// The configuration has no secret of this name.
    UnknownSecret { name: String },
    /// That is not a valid name of a unit or credential.
    InvalidName { name: String, reason: String },
    /// The token is damaged, or not there any more; the one from before stays in force.
    BadToken { reason: String },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unconfigured { faults } => write!(f, "the service has no valid configuration: {faults}"),
            Self::UnknownSecret { name } => write!(f, "the configuration has no secret {name:?}"),
            Self::InvalidName { reason, .. } => f.write_str(reason),
            Self::BadToken { reason } => {
                write!(f, "the token is not taken, and the one from before stays in force: {reason}")
            }
        }
    }
}

impl Remedy for Error {
    fn remedy(&self) -> Option<String> {
        match self {
            // Theirs are in the texts already.
            Self::Unconfigured { .. } | Self::InvalidName { .. } | Self::BadToken { .. } => None,
            Self::UnknownSecret { .. } => Some("`opnix status` lists them".to_owned()),
        }
    }
}
