//! Files, each written as a whole with its final owner, group and mode. No path is followed through a symlink.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::sys::statfs::fstatfs;
use nix::unistd::{Gid, Group, Uid, User, fchown, symlinkat};
use tracing::warn;

use crate::config::{MIRROR_ROOT, MirrorFile, is_from_outside};
use crate::files::{self, Attributes, discard, unfinished};
use crate::mirror::mount;
use crate::secret::Secret;

/// Who a file is to belong to.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    uid: Uid,
    gid: Gid,
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
        Self {
            users: files.iter().map(|file| (file.owner.clone(), user(&file.owner))).collect(),
            groups: files.iter().map(|file| (file.group.clone(), group(&file.group))).collect(),
        }
    }

    pub fn of(&self, file: &MirrorFile) -> Result<Owner, String> {
        // The defaults, for a user who cannot give files away: the user itself.
        if !Uid::effective().is_root() && file.owner == "root" && file.group == "root" {
            return Ok(Owner { uid: Uid::effective(), gid: Gid::effective() });
        }
        let place = &file.entry.place;
        let uid = self.users.get(&file.owner).copied().flatten();
        let gid = self.groups.get(&file.group).copied().flatten();
        let uid = uid.ok_or_else(|| {
            format!("there is no user {:?} ({place}): create it, or name another", file.owner)
        })?;
        let gid = gid.ok_or_else(|| {
            format!("there is no group {:?} ({place}): create it, or name another", file.group)
        })?;
        Ok(Owner { uid, gid })
    }
}

pub fn install(file: &MirrorFile, owner: Owner, value: &Secret) -> io::Result<()> {
    let (directory, name) = parent(&file.path, true)?;
    if !file.path.starts_with(MIRROR_ROOT) && !in_memory(&directory)? {
        warn!("{} is on a disk: the secret stays there in plain text", file.path.display());
    }
    not_a_directory(&directory, name)?;
    let attributes = Attributes { mode: file.mode, owner: Some((owner.uid, owner.gid)) };
    files::replace(&directory, name, value.expose(), attributes)?;
    for link in &file.symlinks {
        point(link, &file.path)?;
    }
    Ok(())
}

/// Opens a directory for files of ours, and makes it if it is not there.
pub fn directory(path: &Path) -> io::Result<OwnedFd> {
    parent(&path.join("file"), true).map(|(directory, _)| directory)
}

/// Removes a file or link of ours, and what is unfinished of it; one that is not there counts as removed.
pub fn remove(path: &Path) -> io::Result<()> {
    remove_unfinished(path)?;
    remove_named(path, |name| name.as_bytes().to_vec())
}

/// Removes what a mirror that was killed left of it.
pub fn remove_unfinished(path: &Path) -> io::Result<()> {
    remove_named(path, unfinished)
}

fn remove_named(path: &Path, named: impl Fn(&OsStr) -> Vec<u8>) -> io::Result<()> {
    match parent(path, false) {
        Ok((directory, name)) => discard(&directory, &named(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn point(link: &Path, target: &Path) -> io::Result<()> {
    let (directory, name) = parent(link, true)?;
    match fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(there) if SFlag::from_bits_truncate(there.st_mode) & SFlag::S_IFMT != SFlag::S_IFLNK => {
            let what = format!("{} is there already and is not a symlink: move it away", link.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        Ok(_) | Err(Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let new = unfinished(name);
    discard(&directory, &new)?;
    symlinkat(target, &directory, new.as_slice())?;
    Ok(renameat(&directory, new.as_slice(), &directory, name)?)
}

/// Opens the directory of a path, step by step, so that no component can lead elsewhere. Returns it with the last name.
///
/// Below a directory of a user every directory has to be that user's: of two in it, its owner can put either in the place of the
/// other. So what is made there becomes that user's, too.
fn parent(path: &Path, make: bool) -> io::Result<(OwnedFd, &OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let path = &*mount::writable(path);
    let mut directory = open("/", STEP, Mode::empty())?;
    let mut owner = fstat(&directory)?;
    let mut so_far = PathBuf::from("/");
    for component in path.parent().unwrap_or(Path::new("/")).components() {
        let Component::Normal(step) = component else { continue };
        so_far.push(step);
        let named =
            |error: Errno| io::Error::other(format!("{}: {}", so_far.display(), io::Error::from(error)));
        // For us alone until it is open; not for nobody, because without root's rights even its maker needs the
        // permission to open it.
        let made = match make.then(|| mkdirat(&directory, step, Mode::S_IRWXU)) {
            Some(Ok(())) => true,
            None | Some(Err(Errno::EEXIST | Errno::EROFS)) => false,
            Some(Err(error)) => return Err(named(error)),
        };
        let next = openat(&directory, step, STEP, Mode::empty()).map_err(|error| match error {
            Errno::ENOTDIR | Errno::ELOOP => io::Error::other(format!(
                "{} leads through {:?}, which is a symlink or not a directory: name the real path",
                path.display(),
                step
            )),
            Errno::ENOENT => error.into(),
            error => named(error),
        })?;
        let mut there = fstat(&next)?;
        // In the directory of a user also one that was made before, and was not where it had been made.
        let may_be_new = made || make && !is_ours(owner.st_uid);
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

fn not_a_directory(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(there) if SFlag::from_bits_truncate(there.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR => {
            Err(io::Error::other("there is a directory of that name: move it away"))
        }
        Ok(_) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
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
        let value =
            |round: usize| Secret::copy_from(format!("{round:04}").repeat(20_000).as_bytes()).unwrap();
        install(file, owner, &value(0)).unwrap();
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
                install(file, owner, &value(round)).unwrap();
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
}
