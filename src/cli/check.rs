//! `opnix check`: is the configuration valid, and do the unit files agree with it.

pub mod credentials;
mod files;
mod mapping;
mod meant;
mod others;
mod start;
pub mod units;

use std::path::PathBuf;

use super::{ConfigArguments, Exit, fail, faulty};
use crate::cli::output::{complain, say};
use crate::config;
use crate::counted::counted;
use crate::systemd::unit_files::UnitFiles;

/// Check the configuration, and unit files against it
///
/// All faults are reported at once, each with file, line and column. With --units, the unit files are read as systemd
/// reads them, with drop-ins, templates and aliases. What each unit asks for is held against the mapping, and the deadline
/// against its TimeoutStartSec=. A unit that would run without its secret, or with another one, is a fault.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// A directory of unit files, such as /etc/systemd/system; can be given several times, the most important first
    #[arg(long, value_name = "DIR")]
    units: Vec<PathBuf>,
    /// The socket that the unit files name
    #[arg(long, value_name = "PATH", default_value = crate::systemd::SOCKET)]
    socket: String,
    /// Say nothing when nothing is wrong
    #[arg(long)]
    quiet: bool,
}

pub fn run(arguments: Arguments) -> Exit {
    let config = match config::load(&arguments.config.config) {
        Ok(config) => config,
        Err(faults) => return faulty(&faults),
    };
    for warning in &config.warnings {
        complain!("warning: {warning}");
    }
    let credentials = counted(config.policy.rules().count(), "credential");
    let files = counted(config.files.len(), "file");
    if arguments.units.is_empty() {
        if !arguments.quiet {
            say!("valid: {credentials}, {files}");
        }
        return Exit::Ok;
    }
    let compared =
        UnitFiles::new(&arguments.units).and_then(|files| units::compare(&files, &arguments.socket, &config));
    let report = match compared {
        Ok(report) => report,
        Err(error) => return fail(Exit::Unavailable, error),
    };
    for warning in &report.warnings {
        complain!("warning: {warning}");
    }
    if !report.faults.is_empty() {
        for fault in &report.faults {
            complain!("{fault}");
        }
        let count = counted(report.faults.len(), "fault");
        return fail(Exit::Config, format_args!("the unit files have {count}"));
    }
    if !arguments.quiet {
        let asked = counted(report.asked, "LoadCredential= line");
        let agree = if report.asked == 1 { "agrees" } else { "agree" };
        say!("valid: {credentials}, {files}; {asked} {agree} with them");
    }
    Exit::Ok
}
