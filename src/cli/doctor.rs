//! `opnix doctor`: what on this machine keeps units from their secrets, now or after the next boot.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::check;
use super::check::credentials::{Credentials, Why};
use super::control::ControlArguments;
use super::{ConfigArguments, Exit};
use crate::cli::output::say;
use crate::config::{self, Fault};
use crate::control::interface::{Health, whole_status};
use crate::mirror::install::in_memory;
use crate::peer::Legacy;
use crate::providers::child::token::{self, Loaded};
use crate::remedy::Remedy;
use crate::systemd::unit_files::UnitFiles;

/// The key of the sealed cache, as opnix-setup.service keeps it.
const KEY: &str = "/etc/credstore.encrypted/opnix.cache-key";
/// The units of opnix that have credentials.
const OWN: [&str; 2] = ["opnix.service", "opnix-key.service"];
/// What units need to start after a reboot without a network.
const KEPT: [&str; 3] = ["/var/lib/private/opnix", "/etc/credstore.encrypted", "/var/lib/systemd"];

/// Look for what keeps units from their secrets, now or after the next boot; to be run as root
///
/// Looks at the configuration, the token's file, what must outlive a reboot, the service, and the unit files of the machine. Exits with 0 if nothing is at
/// fault, else with 69. Warnings do not count.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The token's file; by default the one that opnix.service loads
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    control: ControlArguments,
}

pub fn run(arguments: Arguments) -> Exit {
    let mut faults = 0;
    let mut say = |finding: Finding| {
        let (word, what) = match finding {
            Finding::Fine(what) => ("fine", what),
            Finding::Warning(what) => ("warning", what),
            Finding::Fault(what) => {
                faults += 1;
                ("fault", what)
            }
        };
        say!("{word:<8} {}", what.replace('\n', "\n         "));
    };
    say(match config::load(&arguments.config.config) {
        Ok(config) => {
            let credentials = config.policy.rules().count();
            Finding::Fine(format!("configuration: {credentials} credentials, {} files", config.files.len()))
        }
        Err(faults) => Finding::Fault(format!("configuration: {faults}")),
    });
    let token = arguments.token_file.or_else(|| match token::loaded()? {
        Loaded::Plain(path) | Loaded::Sealed(path) => Some(path),
    });
    for finding in token.map_or(vec![no_unit()], |path| token_findings(&path)) {
        say(finding);
    }
    if !Path::new(KEY).exists() {
        let what = "there is no key for the sealed cache: after a reboot units depend on the network";
        say(Finding::Warning(format!("cache: {what}\nsystemctl restart opnix-setup.service opnix.service")));
    }
    for path in KEPT.map(Path::new) {
        if is_volatile(path) {
            say(Finding::Warning(format!(
                "cache: {} is in memory: after a reboot units depend on the network\nkeep it elsewhere",
                path.display()
            )));
        }
    }
    for finding in service(&arguments.control) {
        say(finding);
    }
    for finding in units(&arguments.config.config) {
        say(finding);
    }
    if faults == 0 { Exit::Ok } else { Exit::Unavailable }
}

/// What the machine's unit files say.
fn units(config: &[PathBuf]) -> Vec<Finding> {
    let files = match UnitFiles::of_the_machine() {
        Ok(files) => files,
        Err(error) => return vec![Finding::Fault(format!("units: their files cannot be read: {error}"))],
    };
    let mut findings = Vec::new();
    // Generators of some images take the credentials of all services back, opnix' own among them.
    for unit in OWN {
        let Ok(effective) = files.effective(unit) else { continue };
        let credentials = Credentials::of(&effective);
        // What is given anew afterwards was to be replaced.
        for lost in credentials.lost.iter().filter(|lost| !credentials.loaded.contains_key(&lost.id)) {
            if let Why::Cleared(by) = &lost.why {
                findings.push(Finding::Fault(format!(
                    "units: {unit} is started without \"{}\": {by} takes it back\nremove that file, or give the credentials anew in a drop-in that comes after it",
                    lost.id
                )));
            }
        }
    }
    let Ok(config) = config::load(config) else { return findings };
    match check::units::compare(&files, crate::systemd::SOCKET, &config) {
        Ok(report) => {
            let asked = report.asked;
            let told = |fault: &Fault| format!("units: {fault}");
            findings.extend(report.faults.iter().map(told).map(Finding::Fault));
            findings.extend(report.warnings.iter().map(told).map(Finding::Warning));
            if findings.is_empty() {
                findings.push(Finding::Fine(format!(
                    "units: {asked} LoadCredential= lines agree with the mapping"
                )));
            }
        }
        Err(error) => findings.push(Finding::Fault(format!("units: their files cannot be read: {error}"))),
    }
    findings
}

enum Finding {
    Fine(String),
    Warning(String),
    Fault(String),
}

fn no_unit() -> Finding {
    Finding::Fault(
        "token: opnix.service loads none, or there is no such unit\nname its file with --token-file".into(),
    )
}

fn token_findings(path: &Path) -> Vec<Finding> {
    let shown = path.display();
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        Err(error) => {
            return vec![Finding::Fault(format!("token: {shown}: {error}\nput the token there"))];
        }
    };
    let mut findings = Vec::new();
    if metadata.size() == 0 {
        findings.push(Finding::Fault(format!("token: {shown} is empty\nput the token there")));
    }
    if metadata.mode() & 0o007 != 0 {
        findings.push(Finding::Fault(format!("token: all users can get at {shown}\nchmod 0600 {shown}")));
    }
    if is_volatile(path) {
        findings.push(Finding::Warning(format!(
            "token: {shown} is in memory, and gone at the next boot\nkeep it on a disk; on NixOS with impermanence, set `persistence.root`"
        )));
    }
    if findings.is_empty() {
        findings.push(Finding::Fine(format!("token: {shown}")));
    }
    findings
}

/// Whether it is on a file system in memory. A root that is reset at each boot looks like a disk all the same.
fn is_volatile(path: &Path) -> bool {
    File::open(path).and_then(|file| in_memory(&file.as_fd())).unwrap_or(false)
}

fn service(control: &ControlArguments) -> Vec<Finding> {
    let status = match control.ask(async |mut service| whole_status(&mut service).await) {
        Ok(status) => status,
        Err(why) => {
            let why = Finding::Fault(format!("service: {}", control.describe(why).1));
            // What it would say if it were there.
            let obstacle =
                Legacy::here().map(|legacy| Finding::Fault(format!("machine: {}", legacy.lines())));
            return obstacle.into_iter().chain([why]).collect();
        }
    };
    let mut findings = Vec::new();
    if let Some(why) = status.cache.unsealed_because.filter(|_| Path::new(KEY).exists()) {
        findings.push(Finding::Warning(format!("cache: in memory only: {why}")));
    }
    if let Some(why) = status.cache.unwritable_because {
        let since = status.cache.unwritable_since.unwrap_or_default();
        let since = super::status::relative(since, SystemTime::now());
        findings.push(Finding::Fault(format!(
            "cache: nothing can be written to disk since {since}: {why}\nafter a reboot opnix has what it had before that, or needs 1Password"
        )));
    }
    if let Some(rejected) = status.rejected {
        let faults = rejected.faults;
        findings.push(Finding::Fault(format!("configuration: the one from before is in force: {faults}")));
    }
    if let Some(bad) = status.bad_token {
        let why = bad.faults;
        findings.push(Finding::Fault(format!("token: the one in its file is not in force: {why}")));
    }
    findings.push(match (status.obstacle, status.faults, status.provider) {
        (Some(obstacle), ..) => Finding::Fault(format!("machine: {obstacle}")),
        (None, Some(faults), _) => Finding::Fault(format!("service: {faults}")),
        (None, None, Some(provider)) if provider.health == Health::Down => {
            let why = provider.error.unwrap_or_else(|| "1Password does not work".into());
            Finding::Fault(format!("service: {why}"))
        }
        _ => Finding::Fine("service: it answers; `opnix status` says more".into()),
    });
    findings
}
