//! Where secrets come from, and the one taxonomy of what can go wrong there.

mod items;
pub mod local;

use std::path::PathBuf;

use tracing::warn;

use crate::config;
use crate::reference::Reference;
use crate::secret::Secret;

/// The provider of a configuration.
#[derive(Debug)]
pub enum Provider {
    Local(local::Local),
}

/// Why a value cannot be had. Holds names and ids, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error(
        "there is no vault \"{vault}\"\ncheck its name, and that it is shared with this machine's account"
    )]
    VaultNotFound { vault: String },
    #[error("there is no item \"{item}\" in vault \"{vault}\"")]
    ItemNotFound { vault: String, item: String },
    #[error("item \"{item}\" has no section \"{section}\"")]
    SectionNotFound { item: String, section: String },
    #[error("item \"{item}\" has no field \"{field}\"")]
    FieldNotFound { item: String, field: String },
    #[error("item \"{item}\" has no file \"{file}\"")]
    FileNotFound { item: String, file: String },
    #[error("{what} \"{name}\" is ambiguous\nuse one of the ids {}", candidates.join(", "))]
    Ambiguous { what: &'static str, name: String, candidates: Vec<String> },
    #[error(
        "the value of {reference} is empty\nfill the field in, or remove the secret from the configuration"
    )]
    Empty { reference: String },
    #[error("{reference}: {what}")]
    Unsupported { reference: String, what: &'static str },
    #[error("{reference}: {what}")]
    Malformed { reference: String, what: &'static str },
    #[error("the vault file {path} cannot be used: {why}")]
    VaultFile { path: String, why: String },
    #[error("1Password did not answer within {0:?}")]
    TimedOut(std::time::Duration),
    #[error("no provider is configured\nset \"provider\" in secrets.json")]
    NoProvider,
}

impl Provider {
    pub fn new(configured: config::Provider) -> Self {
        match configured {
            config::Provider::Local { path, beside } => {
                warn!("secrets come from the file {}: this provider is for development only", path.display());
                let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
                Self::Local(local::Local::new(&path, credentials.as_deref(), &beside))
            }
        }
    }

    /// One result for each reference, in their order.
    pub async fn fetch(&self, references: Vec<Reference>) -> Vec<Result<Secret, FetchError>> {
        match self {
            Self::Local(local) => local.fetch(references).await,
        }
    }
}
