//! Files, each written as a whole with its final owner, group and mode. No path is followed through a symlink.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::sys::statfs::fstatfs;
use nix::unistd::{Gid, Group, Uid, User, fchown, symlinkat};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::state::Key;
use crate::config::{MirrorFile, is_from_outside};
use crate::files::{self, Attributes, discard, unfinished};
use crate::names::CREDENTIALS_MAX;
use crate::secret::Secret;

/// Who a file is to belong to.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    uid: Uid,
    gid: Gid,
}

impl Owner {
    pub fn ids(&self) -> (u32, u32) {
        (self.uid.as_raw(), self.gid.as_raw())
    }
}

/// The users and groups of a configuration, looked up once.
pub struct Accounts {
    users: BTreeMap<String, Option<Uid>>,
    groups: BTreeMap<String, Option<Gid>>,
}

impl Accounts {
    pub fn look_up(files: &[MirrorFile]) -> Self {
        let user = |name: &str| match name.parse() {
            Ok(number) => Some(Uid::from_raw(number)),
            Err(_) => User::from_name(name).ok().flatten().map(|user| user.uid),
        };
        let group = |name: &str| match name.parse() {
            Ok(number) => Some(Gid::from_raw(number)),
            Err(_) => Group::from_name(name).ok().flatten().map(|group| group.gid),
        };
        let groups = files.iter().filter_map(|file| file.group.clone());
        Self {
            users: files.iter().map(|file| (file.owner.clone(), user(&file.owner))).collect(),
            groups: groups.map(|name| (name.clone(), group(&name))).collect(),
        }
    }

    pub fn of(&self, file: &MirrorFile) -> Result<Owner, String> {
        let place = &file.entry.place;
        let uid = match file.owner.as_str() {
            // The default, for a user who cannot give files away: the user itself.
            "root" if !Uid::effective().is_root() => Some(Uid::effective()),
            name => self.users.get(name).copied().flatten(),
        };
        // Not the owner's own group: everybody may be in that one.
        let gid = match &file.group {
            None => Some(Gid::effective()),
            Some(name) => self.groups.get(name).copied().flatten(),
        };
        let uid = uid.ok_or_else(|| {
            format!("there is no user {:?} ({place}): create it, or name another", file.owner)
        })?;
        let gid = gid.ok_or_else(|| {
            let name = file.group.as_deref().unwrap_or_default();
            format!("there is no group {name:?} ({place}): create it, or name another")
        })?;
        Ok(Owner { uid, gid })
    }
}

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
    let (directory, name) = parent(path, Some(owner.uid))?;
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
    let attributes = Attributes { mode: *mode, owner: Some((owner.uid, owner.gid)) };
    let file = files::replace(&directory, name, value.expose(), attributes)?;
    Ok((found, Mark::from(&fstat(&file)?)))
}

fn is_given(there: &FileStat, owner: Owner, mode: u32) -> bool {
    (there.st_uid, there.st_gid) == owner.ids() && there.st_mode & 0o7777 == mode
}

/// Makes a link to a file of this owner, unless it is there already.
pub fn link(link: &Path, target: &Path, owner: Owner) -> io::Result<Found> {
    let (directory, name) = parent(link, Some(owner.uid))?;
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
#[derive(Debug)]
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
    let (directory, name) = match parent(path, None) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Removal::Gone),
        // Whoever put something else in the place of a directory has what was in it.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Removal::NotOurs),
        Err(error) => return Err(error),
    };
    discard(&directory, &unfinished(name))?;
    let Some(there) = stat(&directory, name)? else { return Ok(Removal::Gone) };
    let is_ours = match left {
        Left::Ours => true,
        Left::Link(target) => {
            is_a(&there, SFlag::S_IFLNK) && readlinkat(&directory, name)? == target.as_os_str()
        }
        Left::File { mark, hash, coming, key } if is_a(&there, SFlag::S_IFREG) => {
            let now = Mark::from(&there);
            let is_same_file = mark.as_ref().is_some_and(|mark| mark.inode == now.inode);
            let content = || {
                let file = open_regular(&directory, name)?;
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
                return Ok(Removal::Unsure);
            }
            holds_it || is_untouched
        }
        Left::File { .. } => false,
    };
    if !is_ours {
        return Ok(Removal::NotOurs);
    }
    discard(&directory, name.as_bytes())?;
    Ok(Removal::Gone)
}

/// Removes what a mirror that was killed left of it.
pub fn remove_unfinished(path: &Path) -> io::Result<()> {
    match parent(path, None) {
        Ok((directory, name)) => discard(&directory, &unfinished(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Opens a directory for files of ours, and makes it if it is not there.
pub fn directory(path: &Path) -> io::Result<OwnedFd> {
    parent(&path.join("file"), Some(Uid::effective())).map(|(directory, _)| directory)
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

/// Opens the directory of a path, step by step, so that no component can lead elsewhere. Returns it with the last name.
///
/// Below a directory of a user every directory has to be that user's: of two in it, its owner can put either in the place of the
/// other. So what is made there becomes that user's, too.
///
/// What is not there is made if there is to be a file of the owner `makes`. Where many may make directories, it goes into those of
/// root and of that owner only.
fn parent(path: &Path, makes: Option<Uid>) -> io::Result<(OwnedFd, &OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut directory = open("/", STEP, Mode::empty())?;
    let mut owner = fstat(&directory)?;
    let mut so_far = PathBuf::from("/");
    for component in path.parent().unwrap_or(Path::new("/")).components() {
        let Component::Normal(step) = component else { continue };
        so_far.push(step);
        let named =
            |error: Errno| io::Error::other(format!("{}: {}", so_far.display(), io::Error::from(error)));
        let mut opened = openat(&directory, step, STEP, Mode::empty());
        let mut made = false;
        if matches!(opened, Err(Errno::ENOENT)) && makes.is_some() {
            // For us alone until it is open; not for nobody, because without root's rights even its maker needs the
            // permission to open it.
            made = match mkdirat(&directory, step, Mode::S_IRWXU) {
                Ok(()) => true,
                Err(Errno::EEXIST) => false,
                Err(error) => return Err(named(error)),
            };
            opened = openat(&directory, step, STEP, Mode::empty());
        }
        let next = opened.map_err(|error| match error {
            Errno::ENOTDIR | Errno::ELOOP => {
                let path = path.display();
                let what = format!(
                    "{path} leads through {step:?}, which is a symlink or not a directory: name the real path"
                );
                io::Error::new(io::ErrorKind::NotADirectory, what)
            }
            Errno::ENOENT => error.into(),
            error => named(error),
        })?;
        let mut there = fstat(&next)?;
        // In the directory of a user also one that was made before, and was not where it had been made.
        let may_be_new = made || makes.is_some() && !is_ours(owner.st_uid);
        let new = if may_be_new { as_made(&next, &there)? } else { None };
        if let Some(new) = new {
            files::drop_acl(&new)?;
            if !is_ours(owner.st_uid) && Uid::effective().is_root() {
                fchown(&new, Some(Uid::from_raw(owner.st_uid)), Some(Gid::from_raw(owner.st_gid)))
                    .map_err(named)?;
                there = fstat(&new)?;
            }
            // Whatever the umask.
            fchmod(&new, Mode::from_bits_truncate(0o751)).map_err(named)?;
        } else if !is_ours(owner.st_uid) && there.st_uid != owner.st_uid && !is_own(there.st_uid) {
            let (so_far, theirs, of) = (so_far.display(), there.st_uid, owner.st_uid);
            return Err(io::Error::other(format!(
                "{so_far} belongs to user {theirs}, in a directory of user {of}, who could put another one there\n\
                 name another path; or, if nothing else needs it to be user {theirs}'s: chown {of} {so_far}"
            )));
        } else if let Some(makes) = makes
            && is_ours(owner.st_uid)
            && owner.st_mode & 0o022 != 0
            && !is_ours(there.st_uid)
            && there.st_uid != makes.as_raw()
        {
            let (so_far, theirs) = (so_far.display(), there.st_uid);
            return Err(io::Error::other(format!(
                "{so_far} belongs to user {theirs}, in a directory where others can make one: name another path"
            )));
        }
        (directory, owner) = (next, there);
    }
    let directory = readable(&directory)
        .map_err(|error| io::Error::other(format!("{}: {}", so_far.display(), io::Error::from(error))))?;
    Ok((directory, name))
}

/// For the way: no right is needed but to go through.
const STEP: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

fn readable(directory: &OwnedFd) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, ".", flags, Mode::empty())
}

/// Whether nobody but us can have put it where it is.
fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == Uid::effective().as_raw() || is_from_outside(uid)
}

/// Whether it is this user's, who does not write for others.
fn is_own(uid: u32) -> bool {
    let us = Uid::effective();
    !us.is_root() && uid == us.as_raw()
}

/// The directory if it is the one that was made a moment ago, and not one that was put in its place. One of ours that is
/// as empty and as closed would do as well.
fn as_made(directory: &OwnedFd, there: &FileStat) -> io::Result<Option<OwnedFd>> {
    if there.st_uid != Uid::effective().as_raw() || there.st_mode & 0o777 & !0o700 != 0 {
        return Ok(None);
    }
    let directory = readable(directory)?;
    let mut entries = Dir::from_fd(directory.try_clone()?)?;
    let is_empty =
        entries.iter().all(|entry| entry.is_ok_and(|entry| [c".", c".."].contains(&entry.file_name())));
    Ok(is_empty.then_some(directory))
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

    use super::*;

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
        let owner = Owner { uid: Uid::effective(), gid: Gid::effective() };
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
