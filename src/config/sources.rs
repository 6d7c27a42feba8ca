//! The files that the configuration is read from.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::documents::document;
use crate::files;
use crate::scope;

/// Where the service looks when it is not told otherwise.
pub const DEFAULT_PATH: &str = "/etc/opnix/secrets.json";
/// The directory of more files, which need not exist: configuration management and other packages add theirs there.
pub const DEFAULT_DIRECTORY: &str = "/etc/opnix/secrets.d";
/// A configuration file larger than this, in bytes, is a mistake.
const SIZE_MAX: usize = 16 << 20;

/// What is wrong where nobody has written anything yet.
pub const NOTHING: &str = "there is no configuration yet, and so no unit is given anything";

/// The least that does something, to be pasted and edited.
const EXAMPLE: &str = r#"{"secrets": [{"name": "api-key", "reference": "op://Vault/Item/field", "units": ["example.service"]}]}"#;

/// What to do then: the installed example, if there is one, else the least that does something.
pub fn how_to_begin() -> String {
    let example = document("secrets.json.example");
    let begin = if Path::new(&example).is_absolute() {
        let file = scope::configuration_file();
        format!("begin with the example: install -D -m 0644 {example} {}", file.display())
    } else {
        format!("write into it which unit gets which secret, such as: {EXAMPLE}")
    };
    format!("{begin}\nthen edit it, and: opnix check; all keys are in {}", document("docs/configuration.md"))
}

/// Whether nobody has written a configuration to where it is looked for by default.
pub fn is_nothing_written() -> bool {
    let [file, directory] = scope::configuration();
    let is_missing = matches!(fs::metadata(file), Err(error) if error.kind() == io::ErrorKind::NotFound);
    is_missing && expand(&directory).is_ok_and(|files| files.iter().all(|file| !file.exists()))
}

/// The files that a path stands for, in the order of their names.
pub fn expand(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        let [_, directory] = scope::configuration();
        let need_not_exist = path == directory;
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
