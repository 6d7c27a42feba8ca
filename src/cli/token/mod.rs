//! `opnix token`: stores the token, and brings a new one to the running service.

pub mod bring;
mod set;

use std::path::PathBuf;

use super::Exit;
use super::control::ControlArguments;

/// The token of a service account or a Connect server: store it, or bring it to the running service
#[derive(clap::Args)]
pub struct Arguments {
    /// The token's file; by default the one that opnix.service loads
    #[arg(long, value_name = "FILE", global = true)]
    path: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Read the token from standard input and store it, for its owner alone to read
    Set,
    /// Have the running service take the token that is in the file now: what a reload of opnix.service runs
    ///
    /// A damaged one is not taken.
    Take(ControlArguments),
    /// Have the running service take each new token: what opnix-token.service runs
    Watch(ControlArguments),
}

pub fn run(arguments: Arguments) -> Exit {
    match arguments.action {
        Action::Set => set::set(arguments.path),
        Action::Take(control) => bring::take(arguments.path, &control),
        Action::Watch(control) => bring::watch(arguments.path, &control),
    }
}
