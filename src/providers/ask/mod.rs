//! What 1Password can be asked for: vaults, items and files by their ids; and how a reference is resolved to them.

pub mod connect;
pub mod items;
pub mod known;
mod naming;
pub mod resolve;
pub mod service_account;
pub mod value;

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::items::{File, Item};
pub use self::naming::{Nameable, only};
use crate::providers::error::FetchError;
use crate::reference::Reference;
use crate::secret::Secret;

/// The longest answer that is taken, in bytes: more than the largest file that 1Password keeps.
pub const ANSWER_MAX: usize = 64 << 20;

/// Is told how many requests are about to go out, before they do.
pub type Counter<'c> = &'c dyn Fn(usize);

/// What 1Password, or a Connect server, can be asked for, by ids.
pub trait Account {
    /// All vaults that the token may read.
    fn vaults(&self) -> Result<Vec<Listed>, FetchError>;

    /// All items of a vault that are not archived, without their fields.
    fn list(&self, vault: &str, target: &Target<'_>) -> Result<Vec<Listed>, FetchError>;

    /// Whole items, as JSON; `None` for those that do not exist. In as few requests as possible.
    fn items(
        &self,
        vault: &str,
        ids: &[String],
        target: &Target<'_>,
    ) -> Result<Vec<Option<Json>>, FetchError>;

    /// One of these.
    fn parse<'a>(&self, json: &'a Json) -> Result<Item<'a>, FetchError>;

    fn file(
        &self,
        vault: &str,
        item: &Item<'_>,
        file: &File<'_>,
        reference: &Reference,
    ) -> Result<Secret, FetchError>;

    /// What only the provider can make of a field, such as an SSH key in another format. `by_id` names vault and item by
    /// their ids, `reference` as the user did.
    fn derive(&self, by_id: &Reference, reference: &Reference) -> Result<Secret, FetchError>;
}

/// JSON with values in it.
pub type Json = Zeroizing<Vec<u8>>;

/// A vault or an item in a list, with the members that are used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub id: String,
    #[serde(alias = "name")]
    pub title: String,
    /// Of a vault: goes up with every change of its items.
    #[serde(default, alias = "contentVersion", skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// What a request is for, by the names that the user gave: for the error that it may end with.
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

    /// Also when the items of a vault are listed: the core may then report that there is no such item.
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
