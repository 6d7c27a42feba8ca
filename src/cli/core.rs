//! `opnix core`: 1Password's core library.

use std::path::PathBuf;

use super::{Exit, fail};
use crate::cli::output::say;
use crate::cli::progress::Progress;
use crate::providers::ask::service_account::library::{self, InstallError};
use crate::remedy::Remedy;

/// Put 1Password's core library in place, which the provider `service_account` needs
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Install the library from a wheel of 1Password's Python SDK, after checking its SHA-256 sum
    ///
    /// Get the wheel with `pip download onepassword-sdk==0.4.2 --no-deps --only-binary=:all: --python-version=3.13 --dest DIR`.
    /// Only the library inside is used, nothing of Python.
    Install {
        /// The wheel, the library, or a directory that holds either
        source: PathBuf,
        /// Where to install it to
        #[arg(long, value_name = "DIR", default_value = library::DIRECTORY)]
        to: PathBuf,
    },
}

pub fn run(arguments: Arguments) -> Exit {
    let Action::Install { source, to } = arguments.action;
    let progress = Progress::begin(format!("looking for the library in {}", source.display()));
    let installed = library::install(&source, &to);
    drop(progress);
    match installed {
        Ok((release, path)) => {
            say!(
                "installed 1Password's core {} ({}) as {}",
                release.version,
                release.architecture,
                path.display()
            );
            Exit::Ok
        }
        Err(error) => {
            let exit = match error {
                InstallError::Unwritable(..) => Exit::System,
                InstallError::Unreadable(..) | InstallError::Nothing(_) | InstallError::Unknown(..) => {
                    Exit::Unavailable
                }
            };
            fail(exit, error.lines())
        }
    }
}
