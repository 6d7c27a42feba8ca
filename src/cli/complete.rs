//! `opnix __complete`: names of the configuration, for the shells' completions.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::Exit;
use crate::cli::output::say;
use crate::config::{self, Config};
use crate::names::{UnitName, UnitPattern};

/// Somebody waits at a prompt: a file that cannot be read by then has no names.
const PATIENCE: Duration = Duration::from_secs(1);

/// Names for the completions of shells
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
    #[arg(long, global = true, default_values = [config::DEFAULT_PATH, config::DEFAULT_DIRECTORY])]
    config: Vec<PathBuf>,
}

#[derive(clap::Subcommand)]
enum What {
    Units,
    Secrets,
    /// Of a unit
    Credentials {
        unit: String,
    },
}

/// Where there is nothing to be read, there is nothing to be said.
pub fn run(arguments: Arguments) -> Exit {
    let (say, hear) = channel();
    let files = arguments.config;
    thread::spawn(move || {
        let _ = say.send(config::load_from_anybody(&files).ok());
    });
    if let Ok(Some(config)) = hear.recv_timeout(PATIENCE) {
        // A name with a line break in it would be two.
        names(&config, &arguments.what)
            .iter()
            .filter(|name| !name.contains('\n'))
            .for_each(|name| say!("{name}"));
    }
    Exit::Ok
}

fn names(config: &Config, what: &What) -> BTreeSet<String> {
    match what {
        What::Units => {
            let readers = config.files.iter().flat_map(|file| &file.services);
            let mapped = config.policy.rules().filter_map(|rule| match &rule.units {
                UnitPattern::Unit(unit) => Some(unit.to_string()),
                // Which instances there are, the configuration does not say.
                _ => None,
            });
            mapped.chain(readers.map(|(unit, _)| unit.to_string())).collect()
        }
        What::Secrets => config.entries.iter().map(|entry| entry.name.clone()).collect(),
        What::Credentials { unit } => {
            let unit = unit.parse::<UnitName>().ok();
            let is_its = |units: &UnitPattern| unit.as_ref().is_some_and(|unit| units.matches(unit));
            let rules = config.policy.rules().filter(|rule| is_its(&rule.units));
            rules.map(|rule| rule.credential.to_string()).collect()
        }
    }
}
