//! A key and its cache, and those that were set aside: renamed, both to one number, never removed but for the oldest.
//!
//! Of a pair, the cache goes aside first and comes back last. So whenever that is interrupted, a cache that is aside without a
//! key belongs to the key in force, and is put back to it ([`Pairs::finish`]).

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, open, renameat};
use nix::sys::stat::{Mode, fstatat};

use crate::files::{StateDirectory, discard, sync};
use crate::store::disk::KEY_CREDENTIAL;

/// The sealed cache, in the state directory of opnix.service.
const CACHE: &str = "cache";
/// So many pairs stay.
pub const KEPT: usize = 3;

/// A directory, and the file in it that this is about. What is done is done to that directory, whatever its path leads to
/// later, and to the file itself, never through a link: the state directory belongs to a user without rights.
struct Half {
    path: PathBuf,
    /// `None` if there is no such directory.
    directory: Option<OwnedFd>,
    name: &'static str,
}

/// What may be in force: the key and its cache; and the pairs that were set aside.
pub struct Pairs {
    key: Half,
    cache: Half,
    /// Nobody else changes them meanwhile.
    _lock: Flock<OwnedFd>,
}

/// A pair that was set aside, or that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    pub key: PathBuf,
    /// There need not be one.
    pub cache: Option<PathBuf>,
}

impl Pairs {
    /// Makes the directory of the key if there is none; that of the cache is opnix.service's.
    pub fn open(store: &Path, state: &Path) -> Result<Self, String> {
        let describe = |error: io::Error| format!("{}: {error}", store.display());
        DirBuilder::new().recursive(true).mode(0o700).create(store).map_err(describe)?;
        let lock = open_directory(store).map_err(describe)?;
        let lock = match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Err("another `opnix setup` is at work".to_owned()),
            Err((_, error)) => return Err(describe(error.into())),
        };
        let key = Half::open(store, KEY_CREDENTIAL)?;
        Ok(Self { key, cache: Half::open(&place_of(state), CACHE)?, _lock: lock })
    }

    pub fn key(&self) -> PathBuf {
        self.key.path()
    }

    pub fn cache(&self) -> PathBuf {
        self.cache.path()
    }

    pub fn has_key(&self) -> io::Result<bool> {
        self.key.has(self.key.name)
    }

    pub fn has_cache(&self) -> io::Result<bool> {
        self.cache.has(self.cache.name)
    }

    /// Those that were set aside, by number, the last one first.
    pub fn aside(&self) -> io::Result<Vec<u32>> {
        Ok(self.key.aside()?.into_iter().rev().collect())
    }

    pub fn paths(&self, number: u32) -> io::Result<Paths> {
        let cache = self.cache.aside_name(number);
        let has_cache = self.cache.has(&cache)?;
        let key = self.key.path.join(self.key.aside_name(number));
        Ok(Paths { key, cache: has_cache.then(|| self.cache.path.join(cache)) })
    }

    /// Finishes what was interrupted: the key in force gets its cache back. Says under which name that was.
    pub fn finish(&self) -> io::Result<Option<PathBuf>> {
        if !self.has_key()? || self.has_cache()? {
            return Ok(None);
        }
        let keys = self.key.aside()?;
        let Some(number) = self.cache.aside()?.into_iter().rfind(|number| !keys.contains(number)) else {
            return Ok(None);
        };
        self.cache.take_back(number)?;
        Ok(Some(self.cache.path.join(self.cache.aside_name(number))))
    }

    /// Whether somebody wanted another key than that one, although it may open.
    pub fn is_on_purpose(&self, number: u32) -> io::Result<bool> {
        self.key.has(&on_purpose(number))
    }

    /// Sets the key in force aside, and its cache; all of it or nothing.
    pub fn set_aside(&self, is_on_purpose: bool) -> io::Result<Paths> {
        let number = self.next()?;
        let mark = on_purpose(number);
        if is_on_purpose {
            StateDirectory::new(&self.key.path).replace(&mark, b"")?;
        } else {
            // One may be left from what was interrupted.
            discard(self.key.directory()?, mark.as_bytes())?;
        }
        let has_cache = self.has_cache()?;
        if has_cache {
            self.cache.put_aside(number)?;
        }
        if let Err(error) = self.key.put_aside(number) {
            // Unless the key is gone from its place all the same, and only that could not be brought to disk.
            if has_cache && self.has_key().unwrap_or(true) {
                // If not even that can be done, it is done when there is a next time.
                let _ = self.cache.take_back(number);
            }
            return Err(error);
        }
        self.paths(number)
    }

    /// Puts that pair in force, where no key is. A cache without a key, of which nobody knows what it was sealed with, makes
    /// room; says under which name that is then.
    pub fn put_back(&self, number: u32) -> io::Result<Option<PathBuf>> {
        let has_cache = self.cache.has(&self.cache.aside_name(number))?;
        let mut stray = None;
        if has_cache && self.has_cache()? {
            // Under a name that is never taken for the cache of a key.
            let mut names = (1..=u32::MAX).map(|number| format!("{CACHE}.stray-{number}"));
            let name = names.find(|name| matches!(self.cache.has(name), Ok(false)));
            let name = name.ok_or_else(|| io::Error::other("there is no name left for it"))?;
            self.cache.rename(CACHE, &name)?;
            stray = Some(self.cache.path.join(name));
        }
        self.key.take_back(number)?;
        discard(self.key.directory()?, on_purpose(number).as_bytes())?;
        if has_cache {
            self.cache.take_back(number)?;
        }
        Ok(stray)
    }

    /// A number that neither half has.
    fn next(&self) -> io::Result<u32> {
        let (keys, caches) = (self.key.aside()?, self.cache.aside()?);
        let first = keys.last().map_or(Some(1), |last| last.checked_add(1));
        // Whose the state directory is may have made any file there: its numbers are passed over, not counted on.
        let number = first.and_then(|first| (first..=u32::MAX).find(|number| !caches.contains(number)));
        number.ok_or_else(|| io::Error::other("there is no number left for what is to be set aside"))
    }

    /// Removes all but some of the pairs that were set aside, and says which: those without a cache first, then the oldest, never
    /// the last one.
    pub fn prune(&self) -> io::Result<Vec<Paths>> {
        let caches = self.cache.aside()?;
        let mut numbers: Vec<u32> = self.key.aside()?.into_iter().collect();
        let last = numbers.last().copied();
        numbers.sort_by_key(|number| (Some(*number) == last, caches.contains(number), *number));
        let excess = numbers.len().saturating_sub(KEPT);
        let mut removed = Vec::new();
        for number in numbers.into_iter().take(excess) {
            let paths = self.paths(number)?;
            // In this order, so that no cache is left without a key.
            self.cache.remove(number)?;
            self.key.remove(number)?;
            discard(self.key.directory()?, on_purpose(number).as_bytes())?;
            removed.push(paths);
        }
        Ok(removed)
    }

    /// Puts a new key in place, where none is.
    pub fn make_key(&self, sealed: &[u8]) -> io::Result<()> {
        if self.has_key()? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        StateDirectory::new(&self.key.path).replace(self.key.name, sealed)
    }
}

impl Pairs {
    /// The same key in another seal.
    pub fn reseal(&self, sealed: &[u8]) -> io::Result<()> {
        StateDirectory::new(&self.key.path).replace(self.key.name, sealed)
    }
}

impl Half {
    fn open(path: &Path, name: &'static str) -> Result<Self, String> {
        let directory = match open_directory(path) {
            Ok(directory) => Some(directory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        Ok(Self { path: path.to_owned(), directory, name })
    }

    fn path(&self) -> PathBuf {
        self.path.join(self.name)
    }

    fn directory(&self) -> io::Result<&OwnedFd> {
        self.directory.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn has(&self, name: &str) -> io::Result<bool> {
        let Some(directory) = &self.directory else { return Ok(false) };
        match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(self.describe(error)),
        }
    }

    fn aside_name(&self, number: u32) -> String {
        format!("{}.aside-{number}", self.name)
    }

    fn aside(&self) -> io::Result<BTreeSet<u32>> {
        if self.directory.is_none() {
            return Ok(BTreeSet::new());
        }
        let mut numbers = BTreeSet::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.rsplit_once('-')?.1.parse().ok());
            // No other way of writing the number.
            numbers.extend(number.filter(|number| *name == *self.aside_name(*number)));
        }
        Ok(numbers)
    }

    fn put_aside(&self, number: u32) -> io::Result<()> {
        self.rename(self.name, &self.aside_name(number))
    }

    fn take_back(&self, number: u32) -> io::Result<()> {
        self.rename(&self.aside_name(number), self.name)
    }

    /// On disk before anything else is done: the two halves may be on two file systems.
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let directory = self.directory()?;
        if self.has(to)? {
            return Err(self.describe(Errno::EEXIST));
        }
        renameat(directory, from, directory, to).map_err(|error| self.describe(error))?;
        sync(directory)
    }

    fn remove(&self, number: u32) -> io::Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        discard(directory, self.aside_name(number).as_bytes())?;
        sync(directory)
    }

    fn describe(&self, error: Errno) -> io::Error {
        io::Error::other(format!("{}: {}", self.path.display(), io::Error::from(error)))
    }
}

/// With `DynamicUser=`, a state directory is in `private` beside the link to it, which systemd makes only when the service starts:
/// where the root file system is new at each boot, it is not there yet.
fn place_of(state: &Path) -> PathBuf {
    let private = || Some(state.parent()?.join("private").join(state.file_name()?));
    let is_there = |path: &Path| path.symlink_metadata().is_ok();
    if is_there(state) {
        state.to_owned()
    } else {
        private().filter(|path| is_there(path)).unwrap_or(state.to_owned())
    }
}

/// Marks a pair that was set aside for a new key that somebody wanted.
fn on_purpose(number: u32) -> String {
    format!("{KEY_CREDENTIAL}.aside-{number}.on-purpose")
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests;
