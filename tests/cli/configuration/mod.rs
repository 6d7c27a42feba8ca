//! What a configuration comes to, and that no fault goes unshown. The faults themselves, one after another with their
//! places, are in the `.trycmd` files.

mod delivery;
mod from_opnix;
mod messages;
mod nothing;
mod owners;
mod several;

use std::fs;
use std::path::Path;

use opnix::internals::config::{Config, Faults, load_from_anybody as load};

use crate::root;

/// The configuration of these files of `opnix`.
fn kept(names: &[&str]) -> Result<Config, Faults> {
    load(
        &names.iter().map(|name| root().join("tests/cli/configuration/opnix").join(name)).collect::<Vec<_>>(),
    )
}

/// The configuration of these texts, in files of their own.
fn written(test: &str, texts: &[&str]) -> Result<Config, Faults> {
    let file = |(number, text): (usize, &&str)| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("config-{test}-{number}.json"));
        fs::write(&path, text).unwrap();
        path
    };
    load(&texts.iter().enumerate().map(file).collect::<Vec<_>>())
}

fn paths(config: &Config) -> Vec<&str> {
    config.files.iter().map(|file| file.path.to_str().unwrap()).collect()
}
