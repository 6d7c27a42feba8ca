//! The configuration: as written ([`file`]), checked ([`check`]), and as valid ([`valid`]). Nobody else sees it as written.

mod check;
mod decode;
mod fault;
mod file;
mod valid;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use fault::{Fault, Faults};
pub use valid::{Change, Config, MirrorFile, OnChange, Provider, Timing};

use crate::files;
use crate::place::Place;
use crate::remedy::Problem;

/// Where the service looks when it is not told otherwise.
pub const DEFAULT_PATH: &str = "/etc/opnix/secrets.json";
/// The directory of more files, which need not exist: configuration management and other packages add theirs there.
pub const DEFAULT_DIRECTORY: &str = "/etc/opnix/secrets.d";
/// The directory that the relative paths of mirrored files start from.
pub const MIRROR_ROOT: &str = "/run/secrets";
/// A configuration file larger than this, in bytes, is a mistake.
const SIZE_MAX: usize = 16 << 20;

/// Reads and joins the files; a directory stands for the `*.json` in it. All faults are reported at once.
pub fn load(paths: &[PathBuf]) -> Result<Config, Faults> {
    let mut faults = Faults::default();
    let unreadable = |path: &Path, error: io::Error, faults: &mut Faults| {
        let place = Place { file: path.into(), position: None };
        faults.add(&place, &Problem::plain(format!("cannot be read: {error}")));
    };
    let mut found = Vec::new();
    for path in paths {
        match expand(path) {
            Ok(files) => found.extend(files),
            Err(error) => unreadable(path, error, &mut faults),
        }
    }
    let mut files = Vec::new();
    for path in &found {
        match read(path) {
            Ok(text) => files
                .extend(decode::decode::<file::File>(path, &text, &mut faults).map(|f| (path.as_path(), f))),
            Err(error) => unreadable(path, error, &mut faults),
        }
    }
    let config = check::check(&files, &mut faults);
    faults.or(Some(config))
}

/// The files that a path stands for, in the order of their names.
fn expand(path: &Path) -> io::Result<Vec<PathBuf>> {
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
    let bytes = files::read(path, SIZE_MAX)?;
    String::from_utf8(bytes.to_vec())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// The JSON Schema of a configuration file, made from the types that read it.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(file::File).to_value()
}
