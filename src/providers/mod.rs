//! Where secrets come from, and the one taxonomy of what can go wrong there.

mod error;
mod items;
pub mod local;
pub mod service_account;

use std::path::PathBuf;

pub use error::{FetchError, Named, Policy};
use tracing::warn;

use crate::config;
use crate::reference::Reference;
use crate::secret::Secret;

/// The provider of a configuration.
#[derive(Debug)]
pub enum Provider {
    Local(local::Local),
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
