//! The file that keeps opnix closed. It says, too, which files at paths of opnix's the purge found to be somebody else's: what
//! told that is gone with the purge.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::files::StateDirectory;
use crate::systemd::PURGED;

const TEXT: &str = "`opnix purge` took opnix's secrets from this machine. While this file is here, systemd starts no unit of opnix.\n";
const OTHERS: &[u8] = b"not written by opnix: ";

/// Has systemd start no unit of opnix from now on. These files are somebody else's.
pub fn close(others: &[PathBuf]) -> io::Result<()> {
    let path = Path::new(PURGED);
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let mut text = TEXT.as_bytes().to_vec();
    let others = self::others().into_iter().chain(others.iter().cloned()).collect::<BTreeSet<_>>();
    for path in others {
        text.extend([OTHERS, path.as_os_str().as_bytes(), b"\n"].concat());
    }
    StateDirectory::new(directory).replace(name, &text)
}

/// The files that an earlier purge found to be somebody else's: nothing of opnix has run since.
pub fn others() -> BTreeSet<PathBuf> {
    let text = fs::read(PURGED).unwrap_or_default();
    let paths = text.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(OTHERS));
    paths.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect()
}
