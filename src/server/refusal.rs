//! Why a request is refused. The words go to the journal; the peer learns only that it was refused.

use crate::names::CredentialName;
use crate::policy::Denied;
use crate::providers::FetchError;
use crate::remedy::Remedy;
use crate::scope;
use crate::server::places::Full;

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Policy(Denied),
    #[error("there is no valid configuration: {0}")]
    Configuration(String),
    #[error(transparent)]
    Provider(Box<FetchError>),
    #[error("the value has {size} bytes, but systemd takes no more than {limit} under the name \"{name}\"")]
    TooLarge { size: usize, limit: usize, name: CredentialName },
    #[error(transparent)]
    Places(Full),
    #[error("item \"{item}\" changed in 1Password between two credentials of this start")]
    Apart { item: String },
    #[error("an earlier instance of opnix died while it answered")]
    Interrupted,
    #[error("the unit asks on the control socket")]
    WrongSocket,
    #[error("opnix is being stopped")]
    Stopping,
}

impl Refusal {
    /// Whether the unit has a right to the secret, and could not be given it now.
    pub fn is_for_want_of_the_value(&self) -> bool {
        match self {
            Self::Configuration(_)
            | Self::Provider(_)
            | Self::Places(_)
            | Self::Apart { .. }
            | Self::Interrupted
            | Self::Stopping => true,
            Self::Policy(_) | Self::TooLarge { .. } | Self::WrongSocket => false,
        }
    }

    /// The check that failed, in one word, for the journal's OPNIX_CHECK field.
    pub fn check(&self) -> &'static str {
        match self {
            Self::Policy(_) => "policy",
            Self::Configuration(_) => "configuration",
            Self::Provider(error) if matches!(**error, FetchError::TimedOut(_)) => "deadline",
            Self::Provider(_) => "provider",
            Self::TooLarge { .. } => "size",
            Self::Places(_) => "places",
            Self::Apart { .. } => "version",
            Self::Interrupted => "interrupted",
            Self::WrongSocket => "socket",
            Self::Stopping => "stopping",
        }
    }
}

impl Remedy for Refusal {
    fn remedy(&self) -> Option<String> {
        match self {
            Self::Policy(_) | Self::Configuration(_) | Self::TooLarge { .. } => None,
            Self::Provider(error) => error.remedy(),
            Self::Places(full) => full.remedy(),
            Self::Apart { .. } | Self::Interrupted => Some("start the unit again".to_owned()),
            Self::WrongSocket => {
                Some(format!("write LoadCredential=NAME:{} in it", scope::socket().display()))
            }
            Self::Stopping => Some("start it, then the unit".to_owned()),
        }
    }
}
