//! Where secrets come from, and the one taxonomy of what can go wrong there.

mod error;
mod items;
pub mod local;
pub mod service_account;
pub mod token_source;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::{FetchError, Named, Policy};
use token_source::TokenSource;
use tracing::warn;

use crate::config;
use crate::reference::Reference;
use crate::secret::Secret;

/// The provider of a configuration.
#[derive(Debug)]
pub enum Provider {
    ServiceAccount(service_account::ServiceAccount),
    Local(local::Local),
}

impl Provider {
    /// `token` names the file with the token, if it is not where [`TokenSource`] finds it; `limit` is how long a fetch may
    /// take.
    pub fn new(configured: config::Provider, token: Option<&Path>, limit: Duration) -> Self {
        match configured {
            config::Provider::ServiceAccount { library, hosts } => {
                let token = TokenSource::find(token);
                Self::ServiceAccount(service_account::ServiceAccount::new(library, hosts, token, limit))
            }
            config::Provider::Local { path, beside } => {
                warn!("secrets come from the file {}: this provider is for development only", path.display());
                let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
                Self::Local(local::Local::new(&path, credentials.as_deref(), &beside))
            }
        }
    }

    /// Gets ready for a fetch, so far as that takes time by itself.
    pub async fn prepare(&self) {
        match self {
            Self::ServiceAccount(account) => account.prepare().await,
            Self::Local(_) => {}
        }
    }

    /// One result for each reference, in their order.
    pub async fn fetch(&self, references: Vec<Reference>) -> Vec<Result<Secret, FetchError>> {
        match self {
            Self::ServiceAccount(account) => account.fetch(references).await,
            Self::Local(local) => local.fetch(references).await,
        }
    }
}
