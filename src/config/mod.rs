//! The configuration: as written ([`file`]), checked ([`check`]), and as valid ([`valid`]). Nobody else sees it as written.

mod check;
mod decode;
mod fault;
mod file;
mod sources;
mod valid;

use std::io;
use std::path::{Path, PathBuf};

pub use fault::{Fault, Faults};
pub use sources::{DEFAULT_DIRECTORY, DEFAULT_PATH, read};
pub use valid::{Config, MIRROR_ROOT, MirrorFile, OnChange, Provider, Timing};

use crate::place::Place;
use crate::remedy::Problem;

/// Reads and joins the files; a directory stands for the `*.json` in it. All faults are reported at once.
pub fn load(paths: &[PathBuf]) -> Result<Config, Faults> {
    let mut faults = Faults::default();
    let unreadable = |path: &Path, error: io::Error, faults: &mut Faults| {
        let place = Place { file: path.into(), position: None };
        faults.add(&place, &Problem::plain(format!("cannot be read: {error}")));
    };
    let mut found = Vec::new();
    for path in paths {
        match sources::expand(path) {
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

/// The JSON Schema of a configuration file, made from the types that read it.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(file::File).to_value()
}
