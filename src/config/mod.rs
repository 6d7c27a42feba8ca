//! The configuration: as written ([`file`]), checked ([`check`]), and as valid ([`valid`]). Nobody else sees it as written.

mod check;
mod decode;
mod fault;
mod file;
mod identity;
mod owners;
mod sources;
mod valid;

use std::io;
use std::path::{Path, PathBuf};

pub use check::{SETTINGS, TIMING};
pub use fault::{Fault, Faults};
pub use identity::Identity;
pub use owners::{is_from_outside, past_own_links};
pub use sources::{DEFAULT_DIRECTORY, DEFAULT_PATH, NOTHING, how_to_begin, is_nothing_written, read};
pub use valid::{Config, MIRROR_ROOT, MirrorFile, OnChange, Provider, Timing};

use crate::place::Place;
use crate::remedy::Problem;
use crate::scope;

/// Reads and joins the files; a directory stands for the `*.json` in it. All faults are reported at once. It is a fault, too,
/// if another user could have written it: what it says is done as root.
pub fn load(paths: &[PathBuf]) -> Result<Config, Faults> {
    read_all(paths, true)
}

/// The same, for who only wants to know what it says.
pub fn load_from_anybody(paths: &[PathBuf]) -> Result<Config, Faults> {
    read_all(paths, false)
}

fn read_all(paths: &[PathBuf], is_to_be_ours: bool) -> Result<Config, Faults> {
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
    if is_to_be_ours {
        let program = owners::Writers::of_the_program();
        let mut told = Vec::new();
        let mut is_ours = |path: &Path| match owners::look(path, program) {
            Ok(Some(untrusted)) => {
                if !told.contains(&untrusted) {
                    faults.add(&Place { file: path.into(), position: None }, &untrusted);
                    told.push(untrusted);
                }
                false
            }
            // What cannot be looked at cannot be read either.
            Ok(None) | Err(_) => true,
        };
        // Of directories also those in which there is no file yet. What another user put there is not even opened.
        for directory in paths.iter().filter(|path| path.is_dir()) {
            is_ours(directory);
        }
        found.retain(|path| is_ours(path));
    }
    if found == [scope::configuration_file()] && is_nothing_written() {
        let place = Place { file: found[0].as_path().into(), position: None };
        faults.add(&place, &Problem::new(NOTHING, how_to_begin()));
        return faults.or(None);
    }
    let mut files = Vec::new();
    for path in &found {
        match read(path) {
            Ok(text) => files
                .extend(decode::decode::<file::File>(path, &text, &mut faults).map(|f| (path.as_path(), f))),
            Err(error) => unreadable(path, error, &mut faults),
        }
    }
    let config = check::check(&files, is_to_be_ours, &mut faults);
    faults.or(Some(config))
}

/// The JSON Schema of a configuration file, made from the types that read it.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(file::File).to_value()
}
