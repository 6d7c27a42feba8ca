//! `opnix token`: stores the token, tries it, tells of it, and brings a new one to the running service.

pub mod bring;
mod check;
mod input;
mod known;
mod place;
mod set;
mod show;

use std::path::PathBuf;

use super::Exit;
use super::control::ControlArguments;

/// The token of a service account or a Connect server: store it, try it, or bring it to the running service
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
    /// Ask for the token, without showing it, or read it from standard input, and store it, for its owner alone to read
    ///
    /// What is not a token is refused. A failure leaves the one before as it was.
    Set(set::Arguments),
    /// Try the token that is in the file: sign in to 1Password with it, and list the vaults that it may read
    ///
    /// Nothing is written to 1Password. Costs 6 requests of a service account, 1 of a Connect server, which the service's budget does not count.
    Check(check::Arguments),
    /// Tell what is known of the token without asking 1Password; never the token
    Show(show::Arguments),
    /// Have the running service take the token that is in the file now: what a reload of opnix.service runs
    ///
    /// A damaged one is not taken.
    Take(ControlArguments),
    /// Have the running service take each new token: what opnix-token.service runs
    Watch(ControlArguments),
}

pub fn run(arguments: Arguments) -> Exit {
    match arguments.action {
        Action::Set(set) => set::set(arguments.path, &set),
        Action::Check(check) => check::check(arguments.path, &check),
        Action::Show(show) => show::show(arguments.path, &show),
        Action::Take(control) => bring::take(arguments.path, &control),
        Action::Watch(control) => bring::watch(arguments.path, &control),
    }
}
