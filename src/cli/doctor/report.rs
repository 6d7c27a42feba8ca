//! `opnix doctor --report`: one file that a person can send to somebody who helps, with no name, no value and no token in it.

mod hosts;
mod names;
mod scan;
mod shape;

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use self::names::Names;
use super::Case;
use super::finding::Finding;
use super::own_units::PARTS;
use crate::cli::control::SERVICE;
use crate::config;
use crate::control::interface::Status;
use crate::providers::ask::service_account::library;

/// What it is called if nobody says otherwise.
pub const FILE: &str = "opnix-report.txt";
const HEAD: &str = "\
A report of `opnix doctor`. Names of secrets, vaults, items, fields, units, users, hosts, accounts and paths are replaced, each by
the same word each time; there is no value of a secret in it and no token. READ IT BEFORE YOU SEND IT.
";

/// Writes it. It is never written over another file.
pub fn write(path: &Path, case: &Case, findings: &[Finding]) -> io::Result<()> {
    let text = text(case, findings);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn text(case: &Case, findings: &[Finding]) -> String {
    let mut names = Names::default();
    // First, so that what the configuration says tells of what kind a name is.
    let shape = case.config().map(|config| shape::of(config, &mut names));
    learn(case, &mut names);
    let mut text = HEAD.to_owned();
    let mut part = |name: &str, what: &str| {
        // A write to a string does not fail.
        let _ = write!(text, "\n== {name}\n{}\n", what.trim_end());
    };
    part("versions", &names.of_the_machine(&versions(case)));
    part("findings", &names.replaced(&said(findings)));
    let status = case.status().map_or_else(|| "the service does not answer".to_owned(), summary);
    part("status", &names.replaced(&status));
    part("units of opnix", &names.replaced(&units(case)));
    let shape = shape.unwrap_or_else(|| "it is not valid, or not there".to_owned());
    part("shape of the configuration", &shape);
    text
}

/// All names that are known on this machine.
fn learn(case: &Case, names: &mut Names) {
    hosts::of_the_environment(case, names);
    paths(case, names);
    for path in &case.arguments.config.config {
        let within = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let files: Vec<PathBuf> = within.chain([path.clone()]).filter(|path| path.is_file()).collect();
        for text in files.iter().filter_map(|file| config::read(file).ok()) {
            scan::texts(&text).iter().for_each(|text| shape::learn(text, names));
        }
    }
    if let Some(status) = case.status() {
        shape::of_status(status, names);
    }
    let machine = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let host = machine("/proc/sys/kernel/hostname");
    names.of("host", host.trim());
    // The name without its domain, and its domain.
    if let Some((name, domain)) = host.trim().split_once('.') {
        names.of("host", name);
        names.of("host", domain);
    }
    for path in ["/etc/machine-id", "/proc/sys/kernel/domainname", "/proc/sys/kernel/random/boot_id"] {
        let id = machine(path);
        if id.trim() != "(none)" {
            names.of("id", id.trim());
        }
    }
    // People, and what they made: the system's own users are the same everywhere.
    for (path, kind) in [("/etc/passwd", "user"), ("/etc/group", "group")] {
        for line in machine(path).lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let number = fields.get(2).and_then(|number| number.parse::<u32>().ok()).unwrap_or(0);
            if (1000..60000).contains(&number) {
                names.of(kind, fields[0]);
            }
        }
    }
}

/// Files that the command line names, as it does: messages say them likewise.
fn paths(case: &Case, names: &mut Names) {
    let arguments = &case.arguments;
    let named = arguments.config.config.iter().chain(&arguments.token_file).chain(&arguments.report);
    for path in named.chain([&arguments.control.control]) {
        let within = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        for path in within.chain([path.clone()]) {
            let path_text = path.to_string_lossy();
            // Of `.` there is one in every sentence.
            if !path_text.contains(char::is_alphanumeric) {
                continue;
            }
            let shown = names.path(&path_text);
            let file = path.file_name().map(|name| name.to_string_lossy().into_owned());
            // A name that is the same everywhere is shown as it is.
            if let Some(file) = file.filter(|file| file.len() > 1 && !shown.ends_with(file.as_str())) {
                names.path(&file);
            }
        }
    }
}

fn versions(case: &Case) -> String {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let release = read("/etc/os-release").unwrap_or_default();
    let distribution = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let systemd = case.manager().and_then(|mut manager| manager.version().ok());
    let core = match library::release_of(&Path::new(library::DIRECTORY).join(library::NAME)) {
        Ok(Some(release)) => release.version,
        Ok(None) => "another than opnix was tested with",
        Err(error) if error.kind() == io::ErrorKind::NotFound => "none",
        Err(_) => "not readable",
    };
    let unknown = || "not known".to_owned();
    format!(
        "opnix         {} (the service: {})\nsystemd       {}\nkernel        {}\ndistribution  {}\narchitecture  {}\ncore library  {core}\n",
        env!("CARGO_PKG_VERSION"),
        case.status().map_or("does not answer", |status| &status.version),
        systemd.unwrap_or_else(unknown),
        read("/proc/sys/kernel/osrelease").unwrap_or_else(|_| unknown()),
        distribution.map_or_else(unknown, |name| name.trim_matches('"').to_owned()),
        std::env::consts::ARCH,
    )
}

fn said(findings: &[Finding]) -> String {
    let of =
        |finding: &Finding| format!("{} [{}]\n", anstream::adapter::strip_str(&finding.text()), finding.id);
    findings.iter().map(of).collect()
}

/// Numbers and states: no name is in them, but for errors.
fn summary(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |what: String| text.extend([what, "\n".to_owned()]);
    if let Some(provider) = &status.provider {
        line(format!("provider {} {:?}", provider.kind, provider.health));
        let errors = [&provider.error_kind, &provider.error, &provider.token_error];
        errors.into_iter().flatten().for_each(|error| line(format!("provider says {error}")));
    }
    let cache = &status.cache;
    line(format!("cache sealed {} in memory {} on disk {:?}", cache.sealed, cache.in_memory, cache.on_disk));
    let reasons = [&cache.unsealed_because, &cache.unwritable_because, &status.faults, &status.obstacle];
    reasons.into_iter().flatten().for_each(|why| line(why.clone()));
    for (name, window) in [("hour", &status.budget.hour), ("day", &status.budget.day)] {
        line(format!("requests of the {name} {} of {:?}", window.used, window.limit));
    }
    line(format!(
        "requests that wait {}, missed {}, refusals {}",
        status.waiting,
        status.missed.len(),
        status.refusals.len()
    ));
    for secret in &status.secrets {
        let error = secret.error.as_ref().map(|error| format!(", {error}")).unwrap_or_default();
        line(format!(
            "{:?} {:?}, {:?} s old, needed {:?}, ready {:?}{error}",
            secret.name, secret.state, secret.age, secret.needed, secret.ready
        ));
    }
    for refusal in &status.refusals {
        line(format!(
            "refused {} {:?}, {} times, by {}: {}",
            refusal.unit, refusal.credential, refusal.times, refusal.check, refusal.reason
        ));
    }
    text
}

fn units(case: &Case) -> String {
    let Some(mut manager) = case.manager() else { return "systemd does not answer".to_owned() };
    let parts = PARTS.iter().map(|(name, _)| *name);
    let mut of = |name: &str| match manager.unit(name) {
        Ok(unit) => {
            let drop_ins = unit.texts("DropInPaths").count();
            format!(
                "{name} {} {} {} {}, drop-ins {drop_ins}\n",
                unit.state(),
                unit.sub_state(),
                unit.end(),
                unit.file_state()
            )
        }
        Err(error) => format!("{name} {error}\n"),
    };
    ["opnix.socket", "opnix-control.socket", SERVICE].into_iter().chain(parts).map(&mut of).collect()
}
