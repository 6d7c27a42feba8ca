//! What outlives the service: the sealed cache, and how many requests were made.

use std::fs;
use std::path::Path;
use std::time::SystemTime;
use std::{env, io};

use tracing::warn;

use crate::boot::Boot;
use crate::files::{self, StateDirectory};
use crate::moment::Now;
use crate::providers::ledger::Ledger;
use crate::records;
use crate::reference::Reference;
use crate::store::kept::Kept;
use crate::store::sealed::{self, Contents, KEY_LENGTH, Key};

/// A file larger than this, in bytes, holds no key.
const KEY_MAX: usize = 4 << 10;
/// The files in the state directory.
const CACHE: &str = "cache";
const REQUESTS: &str = "requests.json";
/// The credential with the key, which `systemd/opnix-key.service` opens and `systemd/opnix.service` loads from it.
pub const KEY_CREDENTIAL: &str = "opnix.cache-key";
/// Stands for the key where there is none to load: `SetCredential=` in `systemd/opnix.service`.
const NO_KEY: &[u8] = b"\n";

#[derive(Debug)]
pub struct Disk {
    directory: Option<StateDirectory>,
    /// Which one this is, where that can be told.
    boot: Option<Boot>,
    /// Or why there is none.
    key: Result<Key, String>,
}

/// What there is to write.
pub struct Snapshot {
    pub account: String,
    /// Those that may be on disk.
    pub entries: Vec<(Reference, Kept)>,
    /// When it was taken.
    pub now: Now,
}

impl Disk {
    /// What systemd gave us: the directory, and the key as a credential.
    pub fn find() -> Self {
        let credentials = env::var_os("CREDENTIALS_DIRECTORY");
        let boot = Boot::find();
        Self { directory: StateDirectory::find(), boot, key: read_key(credentials.as_deref().map(Path::new)) }
    }

    /// Why nothing is sealed, if that is so.
    pub fn unsealable(&self) -> Option<&str> {
        match (&self.directory, &self.key) {
            (None, _) => Some("there is no state directory (StateDirectory= of opnix.service)"),
            (_, Err(why)) => Some(why),
            _ => None,
        }
    }

    /// What the cache holds. A cache that cannot be read is reported and counts as empty: values can be fetched again.
    pub fn load(&self) -> Option<Contents> {
        let (Some(directory), Ok(key)) = (&self.directory, &self.key) else { return None };
        let path = directory.path(CACHE);
        let file = match directory.read(CACHE) {
            Ok(file) => file?,
            Err(error) => {
                records::cache_unreadable(&path, &error);
                return None;
            }
        };
        sealed::open(key, &file, Now::read(), self.boot.as_ref())
            .inspect_err(|error| records::cache_unused(&path, error))
            .ok()
    }

    /// The requests of the last day; a ledger that cannot be read counts as none.
    pub fn ledger(&self) -> Ledger {
        let now = Now::read();
        let Some(directory) = &self.directory else { return Ledger::new(now) };
        let read = directory.read(REQUESTS).and_then(|text| match text {
            Some(text) => Ok(Ledger::open(&text, now, self.boot.as_ref())?),
            None => Ok(Ledger::new(now)),
        });
        read.unwrap_or_else(|error| {
            let path = directory.path(REQUESTS);
            warn!("the count of requests that were made is not known: {}: {error}", path.display());
            Ledger::new(now)
        })
    }

    /// Replaces the cache as a whole. Without a key nothing is written; with nothing to write there is no file.
    pub fn save_cache(&self, Snapshot { account, entries, now }: &Snapshot) -> io::Result<()> {
        let (Some(directory), Ok(key)) = (&self.directory, &self.key) else { return Ok(()) };
        if entries.is_empty() {
            return directory.remove(CACHE);
        }
        let entries = entries.iter().map(|(reference, entry)| (reference, entry));
        let file = sealed::seal(key, account, entries, *now, self.boot.as_ref());
        directory.replace(CACHE, &file.ok_or_else(|| io::Error::other("it cannot be sealed"))?)
    }

    pub fn save_ledger(&self, ledger: &Ledger, now: Now) -> io::Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        directory.replace(REQUESTS, &ledger.to_file(now, self.boot.as_ref())?)
    }

    /// When the cache was last written, if there is one.
    pub fn written(&self) -> Option<SystemTime> {
        fs::metadata(self.directory.as_ref()?.path(CACHE)).ok()?.modified().ok()
    }
}

fn read_key(credentials: Option<&Path>) -> Result<Key, String> {
    let missing =
        || format!("there is no key: run `opnix setup`, then restart opnix.service ({KEY_CREDENTIAL})");
    let path = credentials.ok_or_else(missing)?.join(KEY_CREDENTIAL);
    let bytes = match files::read(&path, KEY_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
        Err(error) => return Err(format!("the key {} cannot be read: {error}", path.display())),
    };
    if *bytes == *NO_KEY {
        return Err("there is no key, or it does not open; why: systemctl status opnix-setup.service opnix-key.service; \
            then: systemctl restart opnix-setup.service opnix.service"
            .to_owned());
    }
    Key::new(&bytes).ok_or_else(|| {
        format!("the key {} is not a key: it has {} bytes, not {KEY_LENGTH}", path.display(), bytes.len())
    })
}
