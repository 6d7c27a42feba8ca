//! `opnix refresh`: asks 1Password now.

use super::Exit;
use super::control::ControlArguments;
use crate::control::interface::{Control, Outcome};

/// Ask 1Password for the values of secrets now, instead of when they are next due
///
/// Exits with 0 if all of them could be had, else with 69. What could not be had stays as it was.
#[derive(clap::Args)]
pub struct Arguments {
    /// The secrets, by their names in the configuration; all of them if none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    control: ControlArguments,
}

pub fn run(arguments: Arguments) -> Exit {
    let names = arguments.names;
    let refreshed = match arguments.control.ask(async |mut service| service.refresh(names).await) {
        Ok(refreshed) => refreshed,
        Err(why) => return arguments.control.fail(why),
    };
    let width = refreshed.secrets.iter().map(|renewal| renewal.name.len()).max().unwrap_or(0);
    let mut exit = Exit::Ok;
    for renewal in refreshed.secrets {
        let outcome = match renewal.outcome {
            Outcome::NotKept => "is never kept: every start asks for it",
            Outcome::Unchanged => "unchanged",
            Outcome::Fetched => "fetched",
            Outcome::Changed => "changed",
            Outcome::Failed => "FAILED",
        };
        println!("{:<width$}  {outcome}", renewal.name);
        if renewal.outcome == Outcome::Failed {
            exit = Exit::Unavailable;
            println!("    {}", renewal.error.unwrap_or_default().replace('\n', "\n    "));
        }
    }
    exit
}
