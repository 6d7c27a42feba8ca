//! Why a request is refused. The words go to the journal; the peer learns only that it was refused.

use crate::names::CredentialName;
use crate::peer::Unidentified;
use crate::policy::Denied;
use crate::providers::FetchError;
use crate::server::park::ParkError;

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Peer(Unidentified),
    #[error(transparent)]
    Policy(Denied),
    #[error("there is no valid configuration: {0}")]
    Configuration(String),
    #[error(transparent)]
    Provider(FetchError),
    #[error("the value has {size} bytes, but systemd takes no more than {limit} under the name \"{name}\"")]
    TooLarge { size: usize, limit: usize, name: CredentialName },
    #[error(transparent)]
    Park(ParkError),
    #[error("an earlier instance of opnix died while it answered\nstart the unit again")]
    Interrupted,
    #[error("opnix is being stopped\nstart it, then the unit")]
    Stopping,
}

impl Refusal {
    /// The check that failed, in one word, for the journal's OPNIX_CHECK field.
    pub fn check(&self) -> &'static str {
        match self {
            Self::Peer(_) => "peer",
            Self::Policy(_) => "policy",
            Self::Configuration(_) => "configuration",
            Self::Provider(FetchError::TimedOut(_)) => "deadline",
            Self::Provider(_) => "provider",
            Self::TooLarge { .. } => "size",
            Self::Park(_) => "park",
            Self::Interrupted => "interrupted",
            Self::Stopping => "stopping",
        }
    }
}
