//! What the compiler does not check: who sees values, where unsafe code is, and what must agree between files.

mod secrets;
mod shipped;
mod unsafety;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::{files_below, root};

/// The sources without their tests, by path below `src/`.
fn sources() -> BTreeMap<String, String> {
    let name = |path: &Path| path.strip_prefix(root().join("src")).unwrap().display().to_string();
    let code =
        |path: &Path| fs::read_to_string(path).unwrap().split("#[cfg(test)]").next().unwrap().to_owned();
    let files = files_below(&root().join("src")).into_iter();
    files.filter(|path| !path.ends_with("tests.rs")).map(|path| (name(&path), code(&path))).collect()
}

fn users_of(what: &str) -> Vec<(String, usize)> {
    let sources = sources().into_iter();
    sources.map(|(name, code)| (name, code.matches(what).count())).filter(|(_, count)| *count > 0).collect()
}
