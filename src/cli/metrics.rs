//! `opnix metrics`: how opnix is, in numbers, for Prometheus and for systemd-report.

mod exposition;
mod family;
mod readings;
mod report;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use self::readings::{Readings, Seen};
use super::control::ControlArguments;
use super::doctor;
use super::output::{self, complain};
use super::status::files;
use super::{ConfigArguments, Exit, fail};
use crate::control::interface::{Control, Status, whole_status};
use crate::files::{Attributes, replace};
use crate::systemd::activation;

/// Who runs node_exporter is to read it; there is no secret in it.
const READABLE: Attributes = Attributes { mode: 0o644, owner: None };

/// Show how opnix is, in numbers, in the text format of Prometheus; never a value of a secret
///
/// The running service is asked, and what opnix-mirror.service is to write is looked at. A service that was stopped is not
/// started: opnix_up is 0 then, and all that only the service knows is left out. docs/metrics.md lists the metrics.
#[derive(clap::Args)]
pub struct Arguments {
    /// Write them to this file, whole or not at all, and for everybody to read: for node_exporter's textfile collector
    #[arg(long, value_name = "FILE")]
    textfile: Option<PathBuf>,
    /// Add what `opnix doctor --offline` finds; to be run as root
    #[arg(long)]
    doctor: bool,
    /// Answer io.systemd.Metrics on the connection that systemd passes: what opnix-report@.service runs
    #[arg(long, conflicts_with_all = ["textfile", "doctor"])]
    report: bool,
    #[command(flatten)]
    config: ConfigArguments,
    #[command(flatten)]
    control: ControlArguments,
}

pub fn run(arguments: Arguments) -> Exit {
    if arguments.report {
        return answer(&arguments.control);
    }
    let Arguments { textfile, doctor, config, control, .. } = arguments;
    let now = SystemTime::now();
    let status = control.ask(async |mut service| whole_status(&mut service).await);
    if let Err(why) = &status {
        let (exit, message) = control.describe(why);
        // Who may not ask knows nothing.
        if exit == Exit::Denied {
            return fail(exit, message);
        }
        complain!("opnix: opnix_up is 0: {message}");
    }
    let mut seen = see(&control, status.as_ref().ok());
    if doctor {
        seen.findings = Some(doctor::findings(doctor::Arguments::offline(config, control), status));
    }
    let text = match Readings::of(&seen, now).exposition() {
        Ok(text) => text,
        Err(error) => return fail(Exit::Software, error),
    };
    match textfile {
        None => output::to_stdout(format_args!("{text}")),
        Some(path) => {
            if let Err(error) = write(&path, &text) {
                return fail(Exit::System, format_args!("cannot write {}: {error}", path.display()));
            }
        }
    }
    Exit::Ok
}

fn answer(control: &ControlArguments) -> Exit {
    let stream = match activation::connection() {
        Ok(Some(stream)) => stream,
        Ok(None) => {
            return fail(
                Exit::Usage,
                "systemd passes no connection: this is what opnix-report.socket is for",
            );
        }
        Err(error) => {
            return fail(Exit::System, format_args!("systemd's connection cannot be taken: {error}"));
        }
    };
    let status = control.ask(async |mut service| whole_status(&mut service).await);
    let seen = see(control, status.as_ref().ok());
    match report::answer(stream, &Readings::of(&seen, SystemTime::now())) {
        Ok(()) => Exit::Ok,
        Err(error) => fail(Exit::System, format_args!("the connection ended: {error}")),
    }
}

fn see(control: &ControlArguments, status: Option<&Status>) -> Seen {
    Seen {
        status: status.cloned(),
        // An older service does not tell.
        counts: status.and_then(|_| control.ask(async |mut service| service.counts().await).ok()),
        mirror: files::mirror(control.manager().as_mut()),
        looks: status.map_or_else(Vec::new, |status| files::look_at(&status.files)),
        findings: None,
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    replace(&File::open(directory)?, name, text.as_bytes(), READABLE).map(drop)
}
