//! Files: read in one piece into a buffer that is wiped, and written whole or not at all, never through a link.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, unlinkat};
use rustix::fs::fremovexattr;
use zeroize::Zeroizing;

/// A file in the state directory that is larger than this, in bytes, was not written by opnix.
const STATE_MAX: usize = 512 << 20;
/// How much is read first from a source that does not say its size.
const UNKNOWN: usize = 4 << 10;
/// What the names of unfinished files end in.
pub const UNFINISHED: &str = ".opnix-new";

/// All of a file that has at most `max` bytes.
pub fn read(path: &Path, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    read_open(&File::open(path)?, max)
}

/// The same for a file that is open already.
pub fn read_open(file: &File, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if size > max { Err(too_large(max)) } else { read_from(file, size, max) }
}

/// All that can be read from there, if it is at most `max` bytes; `expected` is about how many there are.
pub fn read_from(mut from: impl Read, expected: usize, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // One more than is expected, so that the end shows without another buffer.
    let size = if expected == 0 { UNKNOWN } else { expected };
    let mut bytes = Zeroizing::new(vec![0; size.min(max).saturating_add(1)]);
    let mut length = 0;
    loop {
        if length == bytes.len() {
            if length > max {
                return Err(too_large(max));
            }
            // Not by growing the vector: that leaves a copy behind which nobody wipes.
            let mut larger = Zeroizing::new(vec![0; length.saturating_mul(2).min(max.saturating_add(1))]);
            larger[..length].copy_from_slice(&bytes);
            bytes = larger;
        }
        match from.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if length > max {
        return Err(too_large(max));
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// What a path leads to, past all links. Two that are equal mean that the content is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    resolved: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// `None` if it is not there, or cannot be looked at.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            resolved: fs::canonicalize(path).ok()?,
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

fn too_large(max: usize) -> io::Error {
    let (number, unit) = if max >= 1 << 20 { (max >> 20, "MiB") } else { (max >> 10, "KiB") };
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {number} {unit}"))
}

/// The attributes of a file once it is whole.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// `None`: the file belongs to whoever writes it.
    pub owner: Option<(Uid, Gid)>,
}

impl Attributes {
    /// For its owner alone.
    pub const PRIVATE: Self = Self { mode: 0o600, owner: None };
}

/// When this returns, the file has the new content, on disk. Until then it has the old one, whatever happens. Whatever
/// is there under its name or that of the unfinished file is replaced, never written to: it may be somebody else's
/// link. Returns the new file.
pub fn replace(
    directory: &impl AsFd,
    name: &OsStr,
    bytes: &[u8],
    attributes: Attributes,
) -> io::Result<File> {
    replace_by(directory, name, &unfinished(name), bytes, attributes)
}

/// The same, by an unfinished file of this name.
fn replace_by(
    directory: &impl AsFd,
    name: &OsStr,
    new: &[u8],
    bytes: &[u8],
    attributes: Attributes,
) -> io::Result<File> {
    discard(directory, new)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    // For nobody until it is whole.
    let mut file = File::from(openat(directory, new, flags, Mode::empty())?);
    let mut finish = || {
        // Else it is for others to read from its first byte on.
        as_given(&file, 0, None)?;
        if let Some((user, group)) = attributes.owner {
            fchown(&file, Some(user), Some(group))?;
        }
        file.write_all(bytes)?;
        drop_acl(&file)?;
        fchmod(&file, Mode::from_bits_truncate(attributes.mode))?;
        as_given(&file, attributes.mode, attributes.owner)?;
        file.sync_all()?;
        Ok(renameat(directory, new, directory, name)?)
    };
    finish().inspect_err(|_: &io::Error| drop(discard(directory, new)))?;
    sync(directory)?;
    Ok(file)
}

/// Some file systems take a mode or owner, and do not keep it.
fn as_given(file: &File, mode: u32, owner: Option<(Uid, Gid)>) -> io::Result<()> {
    let there = fstat(file)?;
    let is_theirs =
        owner.is_none_or(|(user, group)| (there.st_uid, there.st_gid) == (user.as_raw(), group.as_raw()));
    if is_theirs && there.st_mode & 0o7777 == mode {
        return Ok(());
    }
    Err(io::Error::other(
        "its file system does not keep owner, group and mode of a file: name a path elsewhere",
    ))
}

/// Whoever owns the directory may have said who else can read what is made in it: what counts are owner, group and mode.
pub fn drop_acl(made: &impl AsFd) -> io::Result<()> {
    for name in [c"system.posix_acl_access", c"system.posix_acl_default"] {
        match fremovexattr(made, name) {
            Ok(()) | Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => {}
            // Only a directory has one that is the default.
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::INVAL)
                if name == c"system.posix_acl_default" => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What was renamed or removed there is so on disk when this returns.
pub fn sync(directory: &impl AsFd) -> io::Result<()> {
    match fsync(directory) {
        // Some file systems cannot do that with a directory; the file is whole all the same.
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A name for what is to take the place of `name` when it is finished.
pub fn unfinished(name: &OsStr) -> Vec<u8> {
    [b".", name.as_bytes(), UNFINISHED.as_bytes()].concat()
}

/// Removes a file or link; one that is not there counts as removed.
pub fn discard(directory: &impl AsFd, name: &[u8]) -> io::Result<()> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A directory whose files are replaced as a whole or not at all: the service's own, which systemd makes
/// (`StateDirectory=`), first of all.
#[derive(Debug, Clone)]
pub struct StateDirectory(PathBuf);

impl StateDirectory {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory that systemd names. Without systemd there is none, and nothing is kept on disk.
    pub fn find() -> Option<Self> {
        Self::named("STATE_DIRECTORY")
    }

    /// The unit's runtime directory (`RuntimeDirectory=`): in memory, gone at reboot.
    pub fn of_runtime() -> Option<Self> {
        Self::named("RUNTIME_DIRECTORY")
    }

    fn named(variable: &str) -> Option<Self> {
        let listed = env::var_os(variable)?;
        // Several are separated by colons; our units have one.
        env::split_paths(&listed).next().filter(|path| path.is_absolute()).map(Self)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// `None` when there is no such file.
    pub fn read(&self, name: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        match read(&self.path(name), STATE_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// As [`replace`] does, for us alone to read.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        replace(&self.open()?, OsStr::new(name), bytes, Attributes::PRIVATE).map(drop)
    }

    /// The same, by an unfinished file of this process's own: one before it that a stalled disk keeps from ending may go on in the
    /// middle of this.
    pub fn replace_alone(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = unfinished(OsStr::new(&format!("{name}.{}", std::process::id())));
        replace_by(&self.open()?, OsStr::new(name), &new, bytes, Attributes::PRIVATE).map(drop)
    }

    /// Removes what other processes left unfinished; from then on they cannot finish it either.
    pub fn remove_unfinished(&self) -> io::Result<()> {
        let directory = self.open()?;
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            if name.as_bytes().starts_with(b".") && name.as_bytes().ends_with(UNFINISHED.as_bytes()) {
                discard(&directory, name.as_bytes())?;
            }
        }
        Ok(())
    }

    /// When this returns, there is no such file.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Ok(()) => sync(&self.open()?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        Ok(open(&self.0, flags, Mode::empty())?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn directory(name: &str) -> PathBuf {
        let scratch = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp");
        let path = scratch.join(format!("files-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_link_or_file_that_somebody_put_there_is_never_written_to() {
        use std::os::unix::fs::PermissionsExt;
        let place = directory("links");
        let theirs = place.join("theirs");
        for at in ["token", ".token.opnix-new"] {
            fs::write(&theirs, "theirs").unwrap();
            symlink(&theirs, place.join(at)).unwrap();
            StateDirectory::new(&place).replace("token", b"ours").unwrap();
            assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs", "{at}");
            fs::remove_file(place.join("token")).unwrap();
        }
        let waiting = place.join(".token.opnix-new");
        fs::write(&waiting, "theirs").unwrap();
        fs::set_permissions(&waiting, fs::Permissions::from_mode(0o666)).unwrap();
        StateDirectory::new(&place).replace("token", b"ours").unwrap();
        let token = fs::metadata(place.join("token")).unwrap();
        assert_eq!((token.mode() & 0o7777, token.len()), (0o600, 4));
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn what_cannot_be_finished_leaves_the_old_file_and_nothing_else() {
        let place = directory("unfinished");
        fs::create_dir(place.join("name")).unwrap();
        let error = StateDirectory::new(&place).replace("name", b"ours").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::EISDIR));
        let left: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["name"]);
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_file_is_read_whole_whatever_it_says_of_its_size() {
        let place = directory("sizes");
        for size in [0, 1, 4095, 4096, 4097, 20_000] {
            let content: Vec<u8> = (0..size).map(|at| at as u8).collect();
            fs::write(place.join("file"), &content).unwrap();
            assert_eq!(*read(&place.join("file"), 20_000).unwrap(), content);
            for expected in [0, size / 2, size, size + 1] {
                assert_eq!(*read_from(&content[..], expected, 20_000).unwrap(), content);
            }
            for max in (0..size).step_by(999) {
                let error = read(&place.join("file"), max).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
                assert!(read_from(&content[..], 0, max).is_err());
            }
        }
        // Files of the kernel say that they are empty.
        assert!(!read(Path::new("/proc/self/status"), 20_000).unwrap().is_empty());
        fs::remove_dir_all(place).unwrap();
    }
}
