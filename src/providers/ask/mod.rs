//! What a 1Password can be asked: vaults, items and files by their ids; and how a reference finds its way among them.

pub mod connect;
pub mod items;
pub mod resolve;
pub mod service_account;

use std::fmt;

use crate::providers::error::FetchError;

/// What a request is for, by the names that the user gave: for the errors that it can end with.
pub enum Target<'a> {
    Account,
    Vault { vault: &'a str },
    Item { vault: &'a str, item: &'a str },
}

impl Target<'_> {
    pub fn vault_not_found(&self) -> FetchError {
        match self {
            Self::Account => FetchError::Broken { why: "a vault is missing that was not asked for".into() },
            Self::Vault { vault } | Self::Item { vault, .. } => {
                FetchError::VaultNotFound { vault: (*vault).to_owned() }
            }
        }
    }

    /// Also for the core's words about a vault that is not there when its items are listed.
    pub fn item_not_found(&self) -> FetchError {
        match self {
            Self::Item { vault, item } => {
                FetchError::ItemNotFound { vault: (*vault).to_owned(), item: (*item).to_owned() }
            }
            Self::Account | Self::Vault { .. } => self.vault_not_found(),
        }
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account => f.write_str("the account's vaults"),
            Self::Vault { vault } => write!(f, "vault \"{vault}\""),
            Self::Item { vault, item } => write!(f, "item \"{item}\" of vault \"{vault}\""),
        }
    }
}
