//! Where secrets come from.

pub mod ask;
pub mod budget;
pub mod child;
mod error;
pub mod ledger;
pub mod local;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ask::service_account::library;
use child::token::TokenSource;
use child::{Endpoint, Remote};
pub use error::FetchError;
use ledger::Meter;

use tracing::warn;

use crate::config;
use crate::reference::Reference;
use crate::secret::Secret;

/// The provider of a configuration.
#[derive(Debug)]
pub enum Provider {
    /// Boxed: it is much larger than the other.
    Remote(Box<Remote>),
    Local(local::Local),
}

impl Provider {
    /// `token` names the file with the token, if it is not where [`TokenSource`] finds it; `limit` is how long a fetch may
    /// take; `meter` counts the requests.
    pub fn new(configured: config::Provider, token: Option<&Path>, limit: Duration, meter: Meter) -> Self {
        let remote =
            |endpoint| Self::Remote(Box::new(Remote::new(endpoint, TokenSource::find(token), limit, meter)));
        match configured {
            config::Provider::ServiceAccount { library, hosts } => {
                let installed = || Path::new(library::DIRECTORY).join(library::NAME);
                let library = library.unwrap_or_else(installed);
                remote(Endpoint::OnePassword { library, hosts })
            }
            config::Provider::Connect(server) => remote(Endpoint::Connect(server)),
            config::Provider::Local { path, beside } => {
                warn!("secrets come from the file {}: this provider is for development only", path.display());
                let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
                Self::Local(local::Local::new(&path, credentials.as_deref(), &beside))
            }
        }
    }

    /// Whose secrets they are, if that is known without a request. Not a secret.
    pub fn account(&self) -> Option<String> {
        match self {
            Self::Remote(remote) => remote.account(),
            Self::Local(local) => Some(local.account()),
        }
    }

    /// Gets ready for a fetch: signs in, where that is needed.
    pub async fn prepare(&self) -> Result<(), FetchError> {
        match self {
            Self::Remote(remote) => remote.prepare().await,
            Self::Local(_) => Ok(()),
        }
    }

    /// Says for each reference whether its value cannot have changed since it was fetched, where asking that costs less than
    /// fetching again.
    pub async fn unchanged(&self, references: &[Reference]) -> Result<Vec<bool>, FetchError> {
        match self {
            Self::Remote(remote) => remote.unchanged(references).await,
            Self::Local(_) => Ok(vec![false; references.len()]),
        }
    }

    /// One result for each reference, in their order.
    pub async fn fetch(&self, references: Vec<Reference>) -> Vec<Result<Secret, FetchError>> {
        match self {
            Self::Remote(remote) => remote.fetch(references).await,
            Self::Local(local) => local.fetch(references).await,
        }
    }
}
