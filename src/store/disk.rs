//! What outlives the service: the sealed cache, and how many requests were made.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use std::{env, io};

use tokio::sync::OwnedMutexGuard;
use tracing::{error, info, warn};

use crate::boot::Boot;
use crate::files::{self, StateDirectory};
use crate::moment::{Moment, Now};
use crate::providers::ledger::Ledger;
use crate::records;
use crate::reference::Reference;
use crate::scope;
use crate::store::kept::Kept;
use crate::store::sealed::{self, Contents, KEY_LENGTH, Key, Sealed};

/// A file larger than this, in bytes, holds no key.
const KEY_MAX: usize = 4 << 10;
/// The files in the state directory.
const CACHE: &str = "cache";
const REQUESTS: &str = "requests.json";
/// In the runtime directory, which is in memory: values were given that the cache does not have yet.
const UNSAVED: &str = "unsaved";
/// The credential with the key, which `systemd/opnix-key.service` opens and `systemd/opnix.service` loads from it.
pub const KEY_CREDENTIAL: &str = "opnix.cache-key";
/// Stands for the key where there is none to load: `SetCredential=` in `systemd/opnix.service`.
const NO_KEY: &[u8] = b"\n";

/// It has one writer at a time, whichever store it writes for.
///
/// A cache is believed to be the last one if the ledger names it, and nothing says that newer values were given since. The
/// ledger is written first: if anything comes between the two files, the cache is not believed.
#[derive(Debug)]
pub struct Disk {
    directory: Option<StateDirectory>,
    runtime: Option<StateDirectory>,
    /// Which one this is, where that can be told.
    boot: Option<Boot>,
    /// Or why there is none.
    key: Result<Key, String>,
    turn: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<Written>,
    /// Whether [`UNSAVED`] is there.
    marked: AtomicBool,
}

#[derive(Debug, Default)]
struct Written {
    /// The name of the cache that has all that was ever given; empty if there is none.
    last: String,
    /// How many values the cache on disk has, as far as that is known.
    holds: Option<usize>,
    trouble: Option<Trouble>,
}

/// Nothing can be written.
#[derive(Debug, Clone)]
pub struct Trouble {
    pub why: String,
    pub since: Moment,
}

/// The right to write.
pub struct Turn(#[expect(dead_code, reason = "it is held")] OwnedMutexGuard<()>);

/// What there is to write.
pub struct Snapshot {
    pub account: String,
    /// Those that may be on disk.
    pub entries: Vec<(Reference, Kept)>,
    /// When it was taken.
    pub now: Now,
}

impl Disk {
    /// What systemd gave us: the directories, and the key as a credential.
    pub fn find() -> Self {
        let credentials = env::var_os("CREDENTIALS_DIRECTORY");
        let directory = StateDirectory::find();
        if let Some(Err(error)) = directory.as_ref().map(StateDirectory::remove_unfinished) {
            warn!("what an earlier instance left unfinished cannot be removed: {error}");
        }
        Self {
            directory,
            runtime: StateDirectory::of_runtime(),
            boot: Boot::find(),
            key: read_key(credentials.as_deref().map(Path::new)),
            turn: Arc::default(),
            state: Mutex::default(),
            marked: AtomicBool::new(false),
        }
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
        let mut contents = sealed::open(key, &file, Now::read(), self.boot.as_ref())
            .inspect_err(|error| records::cache_unused(&path, error))
            .ok()?;
        self.written().holds = Some(contents.entries.len());
        if contents.name != self.written().last || self.is_marked() {
            warn!(
                "the sealed cache may not have the newest values: none of it is served as fresh before 1Password has confirmed it"
            );
            contents.entries.iter_mut().for_each(|(_, kept)| kept.doubtful = true);
            // Until it is written with that doubt.
            self.written().last.clear();
        }
        Some(contents)
    }

    /// The requests of the last day; a ledger that cannot be read counts as none. To be read before the cache, which it names.
    pub fn ledger(&self) -> Ledger {
        let now = Now::read();
        let Some(directory) = &self.directory else { return Ledger::new(now) };
        let read = directory.read(REQUESTS).and_then(|text| match text {
            Some(text) => Ok(Ledger::open(&text, now, self.boot.as_ref())?),
            None => Ok((Ledger::new(now), String::new())),
        });
        let (ledger, last) = read.unwrap_or_else(|error| {
            let path = directory.path(REQUESTS);
            warn!("the count of requests that were made is not known: {}: {error}", path.display());
            (Ledger::new(now), String::new())
        });
        self.written().last = last;
        ledger
    }

    /// Waits until nobody else writes.
    pub async fn turn(&self) -> Turn {
        Turn(self.turn.clone().lock_owned().await)
    }

    /// Replaces both files, each as a whole. Without a snapshot the cache stays as it is; without a key none is written, and with
    /// nothing to write there is no file.
    pub fn write(
        &self,
        _: &Turn,
        snapshot: Option<&Snapshot>,
        ledger: &Ledger,
        now: Now,
    ) -> Result<(), Trouble> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let new = snapshot.map(|snapshot| self.seal(snapshot)).transpose().map(Option::flatten);
        let wrote = new.and_then(|new| {
            let last = {
                let mut written = self.written();
                if snapshot.is_some() {
                    written.last = new.as_ref().map_or_else(String::new, |new| new.name.clone());
                }
                written.last.clone()
            };
            let named = ledger.to_file(now, self.boot.as_ref(), &last).map_err(io::Error::from);
            let named = named.and_then(|ledger| directory.replace_alone(REQUESTS, &ledger));
            let holds = snapshot.map_or(0, |snapshot| snapshot.entries.len());
            let cache = match (new, snapshot) {
                (Some(new), _) => directory.replace_alone(CACHE, &new.file).map(|()| Some(holds)),
                // What a key that does not open now has sealed is not ours to remove.
                (None, Some(_)) if self.key.is_ok() => directory.remove(CACHE).map(|()| Some(0)),
                (None, _) => Ok(None),
            };
            let cache = cache.map(|holds| {
                let mut written = self.written();
                written.holds = holds.or(written.holds);
            });
            named.and(cache)
        });
        self.note(wrote)
    }

    fn seal(&self, Snapshot { account, entries, now }: &Snapshot) -> io::Result<Option<Sealed>> {
        let Ok(key) = &self.key else { return Ok(None) };
        if entries.is_empty() {
            return Ok(None);
        }
        let entries = entries.iter().map(|(reference, entry)| (reference, entry));
        let sealed = sealed::seal(key, account, entries, *now, self.boot.as_ref());
        sealed.map(Some).ok_or_else(|| io::Error::other("it cannot be sealed"))
    }

    /// Says it once when nothing can be written, and once when it can again.
    fn note(&self, wrote: io::Result<()>) -> Result<(), Trouble> {
        let mut written = self.written();
        match (wrote, &written.trouble) {
            (Ok(()), None) => {}
            (Ok(()), Some(_)) => {
                info!("the sealed cache and the count of requests can be written again");
                written.trouble = None;
            }
            (Err(error), before) => {
                let why = error.to_string();
                if before.as_ref().is_none_or(|before| before.why != why) {
                    error!(
                        "the sealed cache or the count of requests cannot be written, and stays as it is: {why}"
                    );
                }
                let since = before.as_ref().map_or_else(Moment::now, |before| before.since);
                let trouble = Trouble { why, since };
                written.trouble = Some(trouble.clone());
                return Err(trouble);
            }
        }
        Ok(())
    }

    /// Why and since when nothing can be written, if that is so.
    pub fn trouble(&self) -> Option<Trouble> {
        self.written().trouble.clone()
    }

    /// Values are about to be given that the cache does not have: until [`Self::is_saved`], it is not believed, even if this process
    /// is killed now.
    pub fn unsaved(&self) {
        let Some(runtime) = &self.runtime else { return };
        if self.marked.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = runtime.replace(UNSAVED, &[]) {
            self.marked.store(false, Ordering::Relaxed);
            let path = runtime.path(UNSAVED);
            warn!("that the sealed cache is out of date cannot be noted: {}: {error}", path.display());
        }
    }

    /// The cache has all values.
    pub fn is_saved(&self) {
        if let (Some(runtime), Some(_), Ok(_)) = (&self.runtime, &self.directory, &self.key) {
            // Before the mark goes: it may be gone although an error says that it is not.
            self.marked.store(false, Ordering::Relaxed);
            if let Err(error) = runtime.remove(UNSAVED) {
                warn!("{}: {error}", runtime.path(UNSAVED).display());
            }
        }
    }

    fn is_marked(&self) -> bool {
        self.runtime.as_ref().is_some_and(|runtime| fs::symlink_metadata(runtime.path(UNSAVED)).is_ok())
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the cache was last written, if there is one.
    pub fn written_at(&self) -> Option<SystemTime> {
        fs::metadata(self.directory.as_ref()?.path(CACHE)).ok()?.modified().ok()
    }

    /// How many values the cache on disk has, by what was read and written of it; `None`: one that does not open may be there.
    pub fn holds(&self) -> Option<usize> {
        self.written().holds
    }
}

fn read_key(credentials: Option<&Path>) -> Result<Key, String> {
    let missing = || match scope::is_user() {
        true => "the key that seals them is the system's, and a user has none".to_owned(),
        false => format!("there is no key: run `opnix setup`, then restart opnix.service ({KEY_CREDENTIAL})"),
    };
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
