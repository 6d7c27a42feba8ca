//! What the files of this repository say of each other: all that the documentation shows is run, what is made from the
//! code is what the code makes, and what the compiler does not check in the code is checked.

// A test that panics has failed, which is what it should do then.
#![allow(clippy::unwrap_used)]
// Two examples draw with the same colours.
#![allow(clippy::duplicate_mod)]

mod code;
mod docs;
mod generated;
#[path = "../daemon/promtool.rs"]
mod promtool;
mod secrets_page;

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Not through symlinks.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let below = entries.map(|entry| match entry.file_type().unwrap() {
        kind if kind.is_dir() => files_below(&entry.path()),
        kind if kind.is_file() => vec![entry.path()],
        _ => Vec::new(),
    });
    below.flatten().collect()
}
