//! What 1Password can be asked for: vaults, items and files by their ids; and how a reference is resolved to them.

mod asking;
pub mod connect;
pub mod connect_token;
pub mod items;
pub mod known;
pub mod members;
mod naming;
pub mod reaching;
pub mod reader;
pub mod resolve;
pub mod service_account;
pub mod value;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use self::items::{File, Item};
use self::members::{Members, Unreadable};
pub use self::naming::{Nameable, names, nearest, only};
use self::reader::is_gone;
use crate::providers::error::FetchError;
use crate::reference::Reference;
use crate::secret::Secret;

/// The longest answer that is taken, in bytes: more than the largest file that 1Password keeps.
pub const ANSWER_MAX: usize = 64 << 20;

/// How long one request may take.
pub const REQUEST_MAX: Duration = Duration::from_secs(10);
/// The same of one for a file, which may be large and the line slow.
pub const FILE_MAX: Duration = Duration::from_secs(5 * 60);

/// Is told of requests.
pub trait Count {
    /// So many are about to go out.
    fn count(&self, requests: usize);

    /// The last one did not: there was no connection.
    fn never_sent(&self);
}

pub type Counter<'c> = &'c dyn Count;

/// What 1Password, or a Connect server, can be asked for, by ids.
pub trait Account {
    /// How many items one request may ask for.
    const BATCH: usize;

    /// All vaults that the token may read.
    fn vaults(&self) -> Result<List, FetchError>;

    /// All items of a vault that are not archived, without their fields.
    fn list(&self, vault: &str, target: &Target<'_>) -> Result<List, FetchError>;

    /// Whole items, as JSON, by one request; `None` for those that do not exist. At most [`Self::BATCH`].
    fn items(
        &self,
        vault: &str,
        ids: &[String],
        target: &Target<'_>,
    ) -> Result<Vec<Option<Json>>, FetchError>;

    /// One of these.
    fn read<'a>(item: &Members<'a>) -> Item<'a>;

    /// `item` is an id.
    fn file(
        &self,
        vault: &str,
        item: &str,
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
    pub title: String,
    /// Of a vault: goes up with every change of its items.
    pub version: Option<u64>,
}

/// Vaults, or the items of a vault that are not archived.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct List {
    pub entries: Vec<Listed>,
    /// There are entries that could not be read.
    pub spoiled: bool,
}

impl List {
    /// From JSON, in which titles are in the member `title`.
    pub fn read(json: &[u8], title: &str) -> Result<Self, Unreadable> {
        // A list of nothing is null in Go.
        let list: Option<Vec<&RawValue>> = serde_json::from_slice(json).map_err(|_| Unreadable)?;
        let mut read = Self::default();
        for entry in list.unwrap_or_default() {
            match Listed::read(entry, title) {
                Ok(listed) => read.entries.extend(listed),
                Err(Unreadable) => read.spoiled = true,
            }
        }
        Ok(read)
    }
}

impl Listed {
    /// `None`: it is archived.
    fn read(entry: &RawValue, title: &str) -> Result<Option<Self>, Unreadable> {
        let entry = Members::of(entry)?;
        if entry.text("state")?.is_some_and(|state| is_gone(&state)) {
            return Ok(None);
        }
        let id = entry.text("id")?.filter(|id| !id.is_empty()).ok_or(Unreadable)?.into_owned();
        let title = entry.text(title)?.ok_or(Unreadable)?.into_owned();
        let version = entry.number("contentVersion").ok().flatten();
        Ok(Some(Self { id, title, version }))
    }
}

/// What a request is for, by the names that the user gave: for the error that it may end with.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    Account,
    Vault { vault: &'a str },
    Item { vault: &'a str, item: &'a str },
    File { vault: &'a str, item: &'a str, file: &'a str },
}

impl<'a> Target<'a> {
    pub fn vault(of: &'a Reference) -> Self {
        Self::Vault { vault: &of.vault }
    }

    pub fn item(of: &'a Reference) -> Self {
        Self::Item { vault: &of.vault, item: &of.item }
    }

    pub fn file(of: &'a Reference) -> Self {
        Self::File { vault: &of.vault, item: &of.item, file: &of.field }
    }

    pub fn forbidden(&self) -> FetchError {
        match self {
            Self::Account => FetchError::AccountRefused,
            part => FetchError::Forbidden { what: part.to_string() },
        }
    }

    pub fn vault_not_found(&self) -> FetchError {
        match *self {
            Self::Account => FetchError::NotTaken { why: "it says that the account is not there".into() },
            Self::Vault { vault } | Self::Item { vault, .. } | Self::File { vault, .. } => {
                FetchError::VaultNotFound { vault: vault.to_owned(), has: Vec::new() }
            }
        }
    }

    /// Also when the items of a vault are listed: the core may then report that there is no such item.
    pub fn not_found(&self) -> FetchError {
        match *self {
            Self::File { item, file, .. } => FetchError::FileNotFound {
                item: item.to_owned(),
                file: file.to_owned(),
                other: false,
                has: Vec::new(),
            },
            Self::Item { vault, item } => {
                FetchError::ItemNotFound { vault: vault.to_owned(), item: item.to_owned(), has: Vec::new() }
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
            Self::File { vault, item, file } => {
                write!(f, "file \"{file}\" of item \"{item}\" of vault \"{vault}\"")
            }
        }
    }
}
