//! The way to a file: no path is followed through a symlink, and no directory of somebody else's is taken for one that was meant.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, Uid, fchown};

use crate::config::is_from_outside;
use crate::files;

/// Opens a directory for files of ours, and makes it if it is not there.
pub fn directory(path: &Path) -> io::Result<OwnedFd> {
    parent(&path.join("file"), Some(Uid::effective())).map(|(directory, _)| directory)
}

/// Opens the directory of a path, step by step, so that no component can lead elsewhere. Returns it with the last name.
///
/// Below a directory of a user every directory has to be that user's: of two in it, its owner can put either in the place of the
/// other. So what is made there becomes that user's, too.
///
/// What is not there is made if there is to be a file of the owner `makes`. Where many may make directories, it goes into those of
/// root and of that owner only.
pub fn parent(path: &Path, makes: Option<Uid>) -> io::Result<(OwnedFd, &OsStr)> {
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
