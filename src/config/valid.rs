//! A valid configuration.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fault::Fault;
use crate::names::{CredentialName, UnitName, UnitPattern};
use crate::policy::{Entry, Policy};
use crate::providers::ask::connect;
use crate::providers::budget::Budget;
use crate::reference::Reference;
use crate::signal::Signal;
use crate::store::decide::Settings;

/// The directory that the relative paths of mirrored files start from, if the configuration names no other.
pub const MIRROR_ROOT: &str = "/run/secrets";

/// A valid configuration.
#[derive(Debug)]
pub struct Config {
    pub provider: Provider,
    pub timing: Timing,
    pub budget: Budget,
    pub policy: Policy,
    /// The secrets and templates, in the order of the files.
    pub entries: Vec<Arc<Entry>>,
    /// What to do with units whose credentials change.
    pub changes: Vec<Change>,
    /// How each value may be kept.
    pub settings: HashMap<Reference, Settings>,
    /// The directory in memory that the mirror's files are shown in, unless they have paths elsewhere.
    pub mirror_root: PathBuf,
    /// Where those have links, too.
    pub link_root: Option<PathBuf>,
    /// The files that the mirror writes.
    pub files: Vec<MirrorFile>,
    /// What is likely not meant, but valid.
    pub warnings: Vec<Fault>,
}

impl Config {
    /// Whether a file, or a link to one, is to be in the directory in memory.
    pub fn needs_memory(&self) -> bool {
        let mut paths = self.files.iter().flat_map(|file| file.symlinks.iter().chain([&file.path]));
        paths.any(|path| path.starts_with(&self.mirror_root))
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a unit may wait for its secret before it is refused.
    pub deadline: Duration,
    /// How long it waits when a value is at hand that can be served instead.
    pub short_deadline: Duration,
    /// How often all values are renewed, if at all.
    pub refresh: Option<Duration>,
}

/// Where the secrets come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// 1Password itself.
    ServiceAccount {
        /// Where the core is, if not where `opnix core install` puts it.
        library: Option<PathBuf>,
        /// Hosts that the token may name besides 1Password's.
        hosts: Vec<String>,
    },
    /// A 1Password Connect server.
    Connect(connect::Server),
    /// A JSON file.
    Local {
        /// As configured: absolute, or relative to a directory that is yet to be found.
        path: PathBuf,
        /// The directory of the configuration file.
        beside: PathBuf,
    },
}

impl Provider {
    /// As it is written in the configuration.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ServiceAccount { .. } => "service_account",
            Self::Connect(_) => "connect",
            Self::Local { .. } => "local",
        }
    }
}

/// A secret or template that the mirror writes to a file.
#[derive(Debug, Clone)]
pub struct MirrorFile {
    pub entry: Arc<Entry>,
    /// Absolute.
    pub path: PathBuf,
    pub owner: String,
    /// `None`: that of whoever writes it.
    pub group: Option<String>,
    /// Permission bits.
    pub mode: u32,
    /// Absolute paths of links that point at the file.
    pub symlinks: Vec<PathBuf>,
    /// Whether the mirror may leave it out when it has no value.
    pub optional: bool,
    /// What to act on when the content changes.
    pub services: Vec<(UnitName, OnChange)>,
}

/// What to do with units that have this secret as a credential, when its value changes.
#[derive(Debug, Clone)]
pub struct Change {
    pub entry: Arc<Entry>,
    pub units: UnitPattern,
    /// Its name in these units.
    pub credential: CredentialName,
    pub action: OnChange,
}

/// What to do with a unit whose secret changed. Where a unit has two of them, the greater counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OnChange {
    Nothing,
    Signal(Signal),
    Reload,
    ReloadOrRestart,
    Restart,
}
