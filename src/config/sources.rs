//! The files that the configuration is read from.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::files;

/// Where the service looks when it is not told otherwise.
pub const DEFAULT_PATH: &str = "/etc/opnix/secrets.json";
/// The directory of more files, which need not exist: configuration management and other packages add theirs there.
pub const DEFAULT_DIRECTORY: &str = "/etc/opnix/secrets.d";
/// A configuration file larger than this, in bytes, is a mistake.
const SIZE_MAX: usize = 16 << 20;

/// The files that a path stands for, in the order of their names.
pub fn expand(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        let need_not_exist = path == Path::new(DEFAULT_DIRECTORY);
        return Ok(if need_not_exist && !path.exists() { Vec::new() } else { vec![path.to_owned()] });
    }
    let entries: Vec<_> = fs::read_dir(path)?.collect::<Result<_, _>>()?;
    let files = entries.into_iter().map(|entry| entry.path());
    let mut files: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|extension| extension == "json")).collect();
    files.sort();
    Ok(files)
}

/// The text of a file that holds no secrets.
pub fn read(path: &Path) -> io::Result<String> {
    // Where nobody writes, it would be waited for for ever. A shell has its own in these two.
    let is_shells = path.starts_with("/dev") || path.starts_with("/proc");
    if !is_shells && fs::metadata(path)?.file_type().is_fifo() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a FIFO, not a regular file"));
    }
    let bytes = files::read(path, SIZE_MAX)?;
    String::from_utf8(bytes.to_vec())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}
