//! Where secrets come from.

pub mod ask;
pub mod budget;
pub mod child;
mod error;
pub mod ledger;
pub mod local;
mod step;

use std::path::PathBuf;
use std::time::Duration;

use ask::List;
use ask::resolve::Fetched;
use ask::service_account::library;
use child::token::TokenSource;
pub use child::{Comparable, Confirmed};
use child::{Endpoint, Give, Remote};
pub use error::FetchError;
use ledger::Meter;
use tokio::time::timeout;
use tracing::warn;

use crate::config;
use crate::counters::{self, Asked};
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
    /// `meter` counts the requests.
    pub fn new(configured: config::Provider, token: TokenSource, meter: Meter) -> Self {
        let remote = |endpoint| Self::Remote(Box::new(Remote::new(endpoint, token, meter)));
        match configured {
            config::Provider::ServiceAccount { library, hosts } => {
                let library = library.unwrap_or_else(library::default_path);
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

    /// The vaults that the token may read.
    pub async fn vaults(&self) -> Result<List, FetchError> {
        match self {
            Self::Remote(remote) => remote.vaults().await,
            Self::Local(_) => Ok(List::default()),
        }
    }

    /// Says for each reference whether its value cannot have changed since it was fetched, where asking that costs less than
    /// fetching again.
    pub async fn unchanged(&self, references: &[Reference]) -> Result<Confirmed, FetchError> {
        let confirmed = match self {
            Self::Remote(remote) => remote.unchanged(references).await,
            Self::Local(local) => local.read().await.map(|_| Confirmed {
                before: None,
                now: None,
                unchanged: vec![false; references.len()],
            }),
        };
        counters::called(Asked::Vaults, confirmed.as_ref());
        confirmed
    }

    /// Whether the token is another one than was last used: what is known of that one does not count any more.
    pub fn has_new_token(&self) -> bool {
        match self {
            Self::Remote(remote) => remote.has_new_token(),
            Self::Local(_) => false,
        }
    }

    /// The token, unless something is wrong with it that shows without a request.
    pub fn check_token(&self, token: Secret) -> Result<Secret, FetchError> {
        match self {
            Self::Remote(remote) => remote.check_token(token),
            Self::Local(_) => Ok(token),
        }
    }

    /// What is wrong with the token, as far as that shows without a request.
    pub fn token_error(&self) -> Option<FetchError> {
        match self {
            Self::Remote(remote) => remote.token_error(),
            Self::Local(_) => None,
        }
    }

    pub fn needs_token(&self) -> bool {
        matches!(self, Self::Remote(_))
    }

    /// `give` is told the results for the references of some numbers, as soon as they are there: what was read together, together.
    /// When all is over without an error, it was told all of them.
    pub async fn fetch(&self, references: Vec<Reference>, give: Give<'_>) -> Result<(), FetchError> {
        // A call that brings nothing but this has not succeeded.
        let mut down = None;
        let mut counted = |results: Vec<(usize, Fetched)>, comparable| {
            for (_, result) in &results {
                counters::fetched(result.as_ref());
                let is_down = |error: &&FetchError| error.consequences().provider_is_down;
                down = down.take().or_else(|| result.as_ref().err().filter(is_down).cloned());
            }
            give(results, comparable);
        };
        let end = match self {
            Self::Remote(remote) => remote.fetch(references, &mut counted).await,
            Self::Local(local) => {
                let results = local.fetch(references).await;
                counted(results.into_iter().enumerate().collect(), None);
                Ok(())
            }
        };
        counters::called(
            Asked::Values,
            end.as_ref().map_err(Clone::clone).and(down.map_or(Ok(&()), Err)).as_ref(),
        );
        end
    }

    /// One result for each reference, in their order: what is there within this time.
    pub async fn fetch_all(&self, references: &[Reference], limit: Duration) -> Vec<Fetched> {
        let mut results: Vec<Option<Fetched>> = references.iter().map(|_| None).collect();
        let mut give = |told: Vec<(usize, Fetched)>, _| {
            told.into_iter().for_each(|(index, result)| results[index] = Some(result));
        };
        let fetch = async {
            self.prepare().await?;
            self.fetch(references.to_vec(), &mut give).await
        };
        let end = timeout(limit, fetch).await.unwrap_or(Err(FetchError::TimedOut(limit)));
        let missing = end.err().unwrap_or_else(FetchError::no_result);
        results.into_iter().map(|result| result.unwrap_or_else(|| Err(missing.clone()))).collect()
    }
}
