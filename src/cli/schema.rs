//! `opnix schema`: the JSON Schema of the configuration.

use super::Exit;
use crate::cli::output::say;

/// Print the JSON Schema of secrets.json, for editors
#[derive(clap::Args)]
pub struct Arguments {}

pub fn run(_: Arguments) -> Exit {
    say!("{:#}", crate::config::schema());
    Exit::Ok
}
