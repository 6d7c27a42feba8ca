//! Files and links, each written as a whole with its final owner, group and mode, compared with what is there, and removed.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::sys::statfs::fstatfs;
use nix::unistd::symlinkat;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::accounts::Owner;
use super::way::parent;
use crate::files::{self, Attributes, discard, unfinished};
use crate::fingerprint::Key;
use crate::names::CREDENTIALS_MAX;
use crate::secret::Secret;

/// How a file is to be.
#[derive(Debug)]
pub struct Wanted {
    pub path: PathBuf,
    pub owner: Owner,
    /// Permission bits.
    pub mode: u32,
    pub value: Arc<Secret>,
}

/// A file as it was left. Whoever changes it afterwards changes this, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    inode: u64,
    size: i64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// All of what is wanted: it is left as it is.
    Same,
    Other,
}

/// Writes a file as a whole, unless all of it is there already.
pub fn put(wanted: &Wanted) -> io::Result<(Found, Mark)> {
    let Wanted { path, owner, mode, value } = wanted;
    let (directory, name) = parent(path, Some(owner.uid()))?;
    let found = match stat(&directory, name)? {
        None => Found::Nothing,
        Some(there) if is_a(&there, SFlag::S_IFDIR) => {
            return Err(io::Error::other("there is a directory of that name: move it away"));
        }
        Some(_) => {
            let open = open_regular(&directory, name).ok();
            match open.and_then(|file| holds(&file, value.expose())) {
                Some(there) if is_given(&there, *owner, *mode) => {
                    return Ok((Found::Same, Mark::from(&there)));
                }
                _ => Found::Other,
            }
        }
    };
    if !in_memory(&directory)? {
        warn!("{} is on a disk: the secret stays there in plain text", path.display());
    }
    let attributes = Attributes { mode: *mode, owner: Some(owner.user_and_group()) };
    let file = files::replace(&directory, name, value.expose(), attributes)?;
    Ok((found, Mark::from(&fstat(&file)?)))
}

fn is_given(there: &FileStat, owner: Owner, mode: u32) -> bool {
    (there.st_uid, there.st_gid) == owner.ids() && there.st_mode & 0o7777 == mode
}

/// Makes a link to a file of this owner, unless it is there already.
pub fn link(link: &Path, target: &Path, owner: Owner) -> io::Result<Found> {
    let (directory, name) = parent(link, Some(owner.uid()))?;
    let found = match stat(&directory, name)? {
        None => Found::Nothing,
        Some(there) if is_a(&there, SFlag::S_IFLNK) => {
            if readlinkat(&directory, name)? == target.as_os_str() {
                return Ok(Found::Same);
            }
            Found::Other
        }
        Some(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "it is there already and is not a symlink: move it away",
            ));
        }
    };
    let new = unfinished(name);
    discard(&directory, &new)?;
    symlinkat(target, &directory, new.as_slice())?;
    renameat(&directory, new.as_slice(), &directory, name)?;
    Ok(found)
}

/// Whether a file is as it was left. With a hash of its content, that is read, too.
pub fn is_as_left(path: &Path, mark: &Mark, hashed: Option<(&Key, &str)>) -> bool {
    let look = || -> io::Result<bool> {
        let (directory, name) = parent(path, None)?;
        let Some(there) = stat(&directory, name)? else { return Ok(false) };
        if !is_a(&there, SFlag::S_IFREG) || Mark::from(&there) != *mark {
            return Ok(false);
        }
        let Some((key, hash)) = hashed else { return Ok(true) };
        Ok(key.hash(&files::read_open(&open_regular(&directory, name)?, CREDENTIALS_MAX)?) == hash)
    };
    look().unwrap_or(false)
}

pub fn is_link_to(link: &Path, target: &Path) -> bool {
    let look = || -> io::Result<bool> {
        let (directory, name) = parent(link, None)?;
        Ok(readlinkat(&directory, name)? == target.as_os_str())
    };
    look().unwrap_or(false)
}

/// What is to be removed, and how to tell that it is still ours.
#[derive(Debug, Clone)]
pub enum Left {
    /// In memory that only we write to.
    Ours,
    /// What it was when it was written last, and what it is now if a write was under way. An empty hash is not known: that was
    /// before the boot.
    File {
        mark: Option<Mark>,
        hash: String,
        coming: Option<String>,
        key: Key,
    },
    Link(PathBuf),
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    Gone,
    /// Somebody else's is in its place.
    NotOurs,
    /// It may be ours, with changes.
    Unsure,
}

/// Removes a file or link if it is still ours, and in any case what is unfinished of it.
pub fn remove(path: &Path, left: &Left) -> io::Result<Removal> {
    let Some((directory, name)) = place_of(path)? else { return Ok(Removal::Gone) };
    let Some(directory) = directory else { return Ok(Removal::NotOurs) };
    discard(&directory, &unfinished(name))?;
    match whose(&directory, name, left)? {
        Whose::Nobodys => Ok(Removal::Gone),
        Whose::Ours => discard(&directory, name.as_bytes()).map(|()| Removal::Gone),
        Whose::Others => Ok(Removal::NotOurs),
        Whose::Unsure => Ok(Removal::Unsure),
    }
}

/// What a file or link that was left would be taken for, if it were to be removed now. What is unfinished of it counts as ours.
pub fn look_at(path: &Path, left: &Left) -> io::Result<Whose> {
    let Some((directory, name)) = place_of(path)? else { return Ok(Whose::Nobodys) };
    let Some(directory) = directory else { return Ok(Whose::Others) };
    match whose(&directory, name, left)? {
        Whose::Nobodys if stat(&directory, OsStr::from_bytes(&unfinished(name)))?.is_some() => {
            Ok(Whose::Ours)
        }
        whose => Ok(whose),
    }
}

/// Whether a file holds the value that was written last, whoever wrote it there.
pub fn holds_the_value(path: &Path, left: &Left) -> io::Result<bool> {
    let Left::File { hash, coming, key, mark } = left else { return Ok(false) };
    let Some((Some(directory), name)) = place_of(path)? else { return Ok(false) };
    let there = files::read_open(&open_regular(&directory, name)?, CREDENTIALS_MAX)?;
    // Also with something after it.
    let length = mark.as_ref().and_then(|mark| usize::try_from(mark.size).ok());
    let begin = length.and_then(|length| there.get(..length)).map(|begin| key.hash(begin));
    let there = key.hash(&there);
    Ok([Some(hash), coming.as_ref()].contains(&Some(&there)) || begin.as_ref() == Some(hash))
}

/// Whose something is that lies at a path of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Nothing is there.
    Nobodys,
    Ours,
    Others,
    /// It may be ours, with changes.
    Unsure,
}

/// The directory of a path, and the name in it. `None`: there is no such directory; without a directory: something else is in its
/// place, and whoever put it there has what was in it.
fn place_of(path: &Path) -> io::Result<Option<(Option<OwnedFd>, &OsStr)>> {
    match parent(path, None) {
        Ok((directory, name)) => Ok(Some((Some(directory), name))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Ok(path.file_name().map(|name| (None, name)))
        }
        Err(error) => Err(error),
    }
}

fn whose(directory: &OwnedFd, name: &OsStr, left: &Left) -> io::Result<Whose> {
    let Some(there) = stat(directory, name)? else { return Ok(Whose::Nobodys) };
    let is_ours = match left {
        Left::Ours => true,
        Left::Link(target) => {
            is_a(&there, SFlag::S_IFLNK) && readlinkat(directory, name)? == target.as_os_str()
        }
        Left::File { mark, hash, coming, key } if is_a(&there, SFlag::S_IFREG) => {
            let now = Mark::from(&there);
            let is_same_file = mark.as_ref().is_some_and(|mark| mark.inode == now.inode);
            let content = || {
                let file = open_regular(directory, name)?;
                io::Result::Ok(key.hash(&files::read_open(&file, CREDENTIALS_MAX)?))
            };
            let content = content().ok();
            let holds = |hash: &str| !hash.is_empty() && content.as_deref() == Some(hash);
            let holds_it = holds(hash) && (is_same_file || mark.is_none())
                || coming.as_ref().is_some_and(|coming| holds(coming));
            // Whoever changes no more than its mode leaves it ours.
            let is_untouched =
                mark.as_ref().is_some_and(|mark| Mark { changed: mark.changed, ..now } == *mark);
            let is_unknown = hash.is_empty() && is_same_file || coming.as_deref() == Some("");
            if !(holds_it || is_untouched) && is_unknown {
                return Ok(Whose::Unsure);
            }
            holds_it || is_untouched
        }
        Left::File { .. } => false,
    };
    Ok(if is_ours { Whose::Ours } else { Whose::Others })
}

/// Removes what a mirror that was killed left of it.
pub fn remove_unfinished(path: &Path) -> io::Result<()> {
    match parent(path, None) {
        Ok((directory, name)) => discard(&directory, &unfinished(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

impl Mark {
    pub fn modified(&self) -> SystemTime {
        let (seconds, nanoseconds) = self.modified;
        let since = Duration::new(seconds.try_into().unwrap_or(0), nanoseconds.try_into().unwrap_or(0));
        SystemTime::UNIX_EPOCH + since
    }
}

impl From<&FileStat> for Mark {
    fn from(there: &FileStat) -> Self {
        Self {
            inode: there.st_ino,
            size: there.st_size,
            modified: (there.st_mtime, there.st_mtime_nsec),
            changed: (there.st_ctime, there.st_ctime_nsec),
        }
    }
}

/// What is there, and not what it points at.
fn stat(directory: &OwnedFd, name: &OsStr) -> io::Result<Option<FileStat>> {
    match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(there) => Ok(Some(there)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_a(there: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(there.st_mode) & SFlag::S_IFMT == kind
}

/// Opens what may be anything by now, without waiting for anybody.
fn open_regular(directory: &OwnedFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = File::from(openat(directory, name, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// How a file is that holds just these bytes.
fn holds(file: &File, bytes: &[u8]) -> Option<FileStat> {
    let there = fstat(file).ok()?;
    let content = files::read_open(file, bytes.len()).ok()?;
    (*content == *bytes).then_some(there)
}

/// Whether what lies there is in memory only: tmpfs or ramfs.
pub fn in_memory(directory: &impl AsFd) -> io::Result<bool> {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    let kind = fstatfs(directory)?.filesystem_type().0 as i64;
    Ok([TMPFS, RAMFS].contains(&kind))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::{fs, thread};

    use nix::unistd::{Gid, Uid};

    use super::*;
    use crate::mirror::accounts::Accounts;

    #[test]
    fn readers_see_the_old_or_the_new_file_whole_through_a_thousand_rewrites() {
        // In memory, because each of them is synced.
        let directory = Path::new("/dev/shm").join(format!("opnix-install-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let directory = directory.canonicalize().unwrap();
        let path = directory.join("big");
        let config = serde_json::json!({"secrets": [{"reference": "op://v/i/f", "path": path,
            "owner": Uid::effective().to_string(), "group": Gid::effective().to_string(), "mode": "0400"}]});
        fs::write(directory.join("secrets.json"), config.to_string()).unwrap();
        let config = crate::config::load(&[directory.join("secrets.json")]).unwrap();
        let file = &config.files[0];
        let owner = Accounts::look_up(&config.files).of(file).unwrap();
        let write = |round: usize| {
            let value = Secret::copy_from(format!("{round:04}").repeat(20_000).as_bytes()).unwrap();
            put(&Wanted { path: path.clone(), owner, mode: file.mode, value: value.into() }).unwrap().0
        };
        assert_eq!(write(0), Found::Nothing);
        assert_eq!(write(0), Found::Same);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let read = || {
                let mut reads = 0;
                while !done.load(Ordering::Relaxed) {
                    let text = fs::read_to_string(&path).unwrap();
                    assert_eq!(text, text[..4].repeat(20_000));
                    reads += 1;
                }
                reads
            };
            let readers = [scope.spawn(read), scope.spawn(read)];
            for round in 1..=1000 {
                assert_eq!(write(round), Found::Other);
            }
            done.store(true, Ordering::Relaxed);
            for reader in readers {
                assert!(reader.join().unwrap() > 0);
            }
        });
        let left: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_removed_is_what_was_written_and_nothing_else() {
        let directory = Path::new("/dev/shm").join(format!("opnix-remove-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let key: Key = serde_json::from_value("made-up".into()).unwrap();
        let path = directory.join("file");
        let owner = Owner::of_this_process();
        let write = |value: &str| {
            let value = Arc::new(Secret::copy_from(value.as_bytes()).unwrap());
            let (_, mark) = put(&Wanted { path: path.clone(), owner, mode: 0o600, value }).unwrap();
            Some(mark)
        };
        let hash = |value: &str| key.hash(value.as_bytes());
        let remove = |mark: Option<Mark>, hash: String, coming: Option<String>| {
            remove(&path, &Left::File { mark, hash, coming, key: key.clone() }).unwrap()
        };
        let instead = |value: &str| {
            fs::rename(&path, directory.join("away")).unwrap();
            fs::write(&path, value).unwrap();
        };
        assert_eq!(remove(None, String::new(), None), Removal::Gone, "it is not there");
        // Untouched, with another mode, and known by its place only.
        let mark = write("one");
        assert_eq!(remove(mark, hash("one"), None), Removal::Gone);
        let mark = write("one");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(remove(mark, String::new(), None), Removal::Gone);
        // Known by its content only: as an older opnix left it, or one that was killed.
        write("one");
        assert_eq!(remove(None, hash("one"), None), Removal::Gone);
        let mark = write("one");
        write("two");
        assert_eq!(remove(mark, hash("one"), Some(hash("two"))), Removal::Gone);
        write("two");
        assert_eq!(remove(None, String::new(), Some(hash("two"))), Removal::Gone);
        // Somebody else's.
        let mark = write("one");
        instead("theirs");
        assert_eq!(remove(mark.clone(), hash("one"), None), Removal::NotOurs);
        assert_eq!(remove(mark.clone(), hash("one"), Some(hash("two"))), Removal::NotOurs);
        assert_eq!(remove(None, String::new(), None), Removal::NotOurs, "it never was ours");
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("away", &path).unwrap();
        assert_eq!(remove(mark, hash("one"), None), Removal::NotOurs);
        fs::remove_file(&path).unwrap();
        // What nobody can tell.
        let mark = write("one");
        fs::write(&path, "changed by its owner").unwrap();
        assert_eq!(remove(mark.clone(), String::new(), None), Removal::Unsure);
        assert_eq!(remove(mark, String::new(), Some(String::new())), Removal::Unsure);
        assert_eq!(remove(None, String::new(), Some(String::new())), Removal::Unsure);
        fs::remove_dir_all(directory).unwrap();
    }
}
