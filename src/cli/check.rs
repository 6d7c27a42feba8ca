//! `opnix check`: is the configuration valid, and do the unit files agree with it.

use super::{ConfigArguments, Exit, faulty};
use crate::config;

/// Check the configuration, and unit files against it
///
/// All faults are reported at once, each with file, line and column. Exits with 0 if there is none, else with 78.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
}

pub fn run(arguments: Arguments) -> Exit {
    match config::load(&arguments.config.config) {
        Ok(config) => {
            println!("valid: {} credentials, {} files", config.policy.rules().count(), config.files.len());
            Exit::Ok
        }
        Err(faults) => faulty(&faults),
    }
}
