//! The configuration: as written ([`file`]), checked ([`check`]), and as valid ([`Config`]). Only the last leaves here.

mod check;
mod decode;
mod fault;
mod file;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use fault::Faults;

use crate::files;
use crate::names::{UnitName, UnitPattern};
use crate::place::Place;
use crate::policy::{Entry, Policy};
use crate::providers::ask::connect;
use crate::providers::budget::Budget;
use crate::reference::Reference;
use crate::signal::Signal;
use crate::store::decide::Settings;

/// Where the service looks when it is not told otherwise.
pub const DEFAULT_PATH: &str = "/etc/opnix/secrets.json";
/// More of them, which need not be there: what configuration management, or another package, adds.
pub const DEFAULT_DIRECTORY: &str = "/etc/opnix/secrets.d";
/// Where relative paths of mirrored files start.
pub const MIRROR_ROOT: &str = "/run/secrets";
/// A configuration file larger than this, in bytes, is a mistake.
const SIZE_MAX: usize = 16 << 20;

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
    /// The files for the mirror.
    pub files: Vec<MirrorFile>,
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a unit may wait for its secret before it is refused.
    pub deadline: Duration,
    /// How long it waits when there is a value that would do.
    pub short_deadline: Duration,
    /// How often all values are renewed, if at all.
    pub refresh: Option<Duration>,
}

/// Where the secrets come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// 1Password itself.
    ServiceAccount {
        /// Where the core is, if not where it is installed to.
        library: Option<PathBuf>,
        /// Hosts that the token may name besides 1Password's.
        hosts: Vec<String>,
    },
    /// A 1Password Connect server.
    Connect(connect::Server),
    /// A JSON file.
    Local {
        /// As configured: absolute, or to be looked for.
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

/// A secret or template that is to be a file.
#[derive(Debug, Clone)]
pub struct MirrorFile {
    pub entry: Arc<Entry>,
    /// Absolute.
    pub path: PathBuf,
    pub owner: String,
    pub group: String,
    /// Permission bits.
    pub mode: u32,
    /// Absolute paths of links that point at the file.
    pub symlinks: Vec<PathBuf>,
    /// Whether the mirror may go without it.
    pub optional: bool,
    /// What to act on when the content changes.
    pub services: Vec<(UnitName, OnChange)>,
}

/// What to do with units that have this secret as a credential, when its value changes.
#[derive(Debug, Clone)]
pub struct Change {
    pub entry: Arc<Entry>,
    pub units: UnitPattern,
    pub action: OnChange,
}

/// What to do with a unit whose secret changed. Of two for one unit, the greater counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnChange {
    Nothing,
    Signal(Signal),
    Reload,
    ReloadOrRestart,
    Restart,
}

/// Reads and joins the files; a directory stands for the `*.json` in it. All faults are reported at once.
pub fn load(paths: &[PathBuf]) -> Result<Config, Faults> {
    let mut faults = Faults::default();
    let unreadable = |path: &Path, error, faults: &mut Faults| {
        faults.add(&Place { file: path.into(), position: None }, format!("cannot be read: {error}"));
    };
    let mut found = Vec::new();
    for path in paths {
        match expand(path) {
            Ok(files) => found.extend(files),
            Err(error) => unreadable(path, error, &mut faults),
        }
    }
    let mut files = Vec::new();
    for path in &found {
        match read(path) {
            Ok(text) => files
                .extend(decode::decode::<file::File>(path, &text, &mut faults).map(|f| (path.as_path(), f))),
            Err(error) => unreadable(path, error, &mut faults),
        }
    }
    let config = check::check(files, &mut faults);
    faults.or(Some(config))
}

/// The files that a path stands for, in the order of their names.
fn expand(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        let is_spare = path == Path::new(DEFAULT_DIRECTORY) && !path.exists();
        return Ok(if is_spare { Vec::new() } else { vec![path.to_owned()] });
    }
    let entries: Vec<_> = fs::read_dir(path)?.collect::<Result<_, _>>()?;
    let files = entries.into_iter().map(|entry| entry.path());
    let mut files: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|extension| extension == "json")).collect();
    files.sort();
    Ok(files)
}

/// The text of a file that is no secret.
pub fn read(path: &Path) -> io::Result<String> {
    let bytes = files::read(path, SIZE_MAX)?;
    String::from_utf8(bytes.to_vec())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// The JSON Schema of a configuration file, made from the types that read it.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(file::File).to_value()
}
