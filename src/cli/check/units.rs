//! What unit files ask for, compared with what the mapping grants.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use humantime::format_duration;

use super::credentials::{Credentials, Loaded, Lost, Source, Why, expanded};
use super::mapping;
use super::start;
use crate::config::{Config, Fault, OnChange};
use crate::names::{CredentialName, UnitName, UnitPattern};
use crate::place::Place;
use crate::policy::{MIRROR, Rule};
use crate::remedy::Problem;
use crate::systemd::unit_files::{Effective, UnitFiles};

/// What the comparison found.
#[derive(Default)]
pub struct Report {
    /// Starts that would fail, and units that would run without their secret, or with another one.
    pub faults: Vec<Fault>,
    /// What is likely a mistake, but lets every unit start.
    pub warnings: Vec<Fault>,
    /// The lines that ask at our socket.
    pub asked: usize,
}

impl Report {
    pub fn fault(&mut self, place: &Place, what: String, remedy: impl Into<String>) {
        self.faults.push(Fault::new(place, &Problem::new(what, remedy)));
    }

    pub fn warning(&mut self, place: &Place, what: String, remedy: impl Into<String>) {
        self.warnings.push(Fault::new(place, &Problem::new(what, remedy)));
    }
}

/// The mirror's unit, and what OpNix calls it.
const MIRROR_NAMES: [&str; 2] = [MIRROR, "opnix-secrets.service"];

/// A unit, with what is known of it.
struct Unit<'c> {
    units: UnitPattern,
    files: Effective,
    credentials: Credentials,
    /// The rules that grant something to it, or to an instance of it; and those of them that are about it.
    granted: Vec<&'c Rule>,
    rules: Vec<&'c Rule>,
}

pub fn compare(files: &UnitFiles, socket: &str, config: &Config) -> io::Result<Report> {
    let mut report = Report::default();
    let mut names = files.names();
    for rule in config.policy.rules() {
        // Of a unit whose file is elsewhere, drop-ins for all of its kind may be here.
        names.insert(files.own_name(mapping::name_of(rule)).to_owned());
    }
    let (mut found, mut places) = (Found::default(), BTreeSet::new());
    for name in names {
        let Some(units) = pattern(&name) else { continue };
        let effective = files.effective(&name)?;
        if effective.is_masked {
            continue;
        }
        let credentials = Credentials::of(&effective);
        // The unit file of a template asks for all its instances. It is enough if a rule grants it to one of them.
        // One for another name of the unit is meant for it: that systemd asks by its own is said of the rule.
        let is_for_it =
            |rule: &&Rule| overlaps(&rule.units, &units) || files.own_name(mapping::name_of(rule)) == name;
        let granted: Vec<&Rule> = config.policy.rules().filter(is_for_it).collect();
        // An instance that is mapped by its name is looked at by itself.
        let is_of_it = |rule: &&Rule| {
            !matches!((&units, &rule.units), (UnitPattern::Instances(_), UnitPattern::Unit(_)))
        };
        let rules = granted.iter().copied().filter(is_of_it).collect();
        let unit = Unit { units, files: effective, credentials, granted, rules };
        asks(&unit, socket, config, &mut report, &mut found);
        runs_without(&unit, socket, &mut report, &mut found);
        reads_files(&unit, config, &mut report);
        let of_ours = unit.credentials.loaded.values().filter(|loaded| is_at(&loaded.source, socket));
        places.extend(of_ours.map(|loaded| loaded.place.clone()));
    }
    mapping::look(files, socket, config, &found.used, &mut report);
    report.asked = places.len();
    report.faults.sort_by(|one, other| one.place().cmp(other.place()));
    Ok(report)
}

/// Units and credentials.
pub type Pairs = BTreeSet<(UnitPattern, CredentialName)>;

/// What needs to be said no more than once.
#[derive(Default)]
struct Found {
    /// Mappings of which something is known.
    used: Pairs,
    warned: Pairs,
}

fn is_at(source: &Source, socket: &str) -> bool {
    matches!(source, Source::Path(path) if path == socket)
}

/// What it asks for, and whether it may have that.
fn asks<'c>(unit: &Unit<'c>, socket: &str, config: &Config, report: &mut Report, found: &mut Found) {
    let units = &unit.units;
    for (value, place) in &unit.credentials.unknown {
        if value.ends_with(socket) {
            let what = format!("{value:?} has a specifier, which is not checked");
            report.warning(place, what, "name the credential in full to have it checked");
        }
    }
    for (id, Loaded { source, is_encrypted, place }) in &unit.credentials.loaded {
        if !is_at(source, socket) {
            continue;
        }
        let name: CredentialName = match id.parse() {
            Ok(name) => name,
            Err(error) => {
                report.faults.push(Fault::new(place, &error));
                continue;
            }
        };
        if *is_encrypted {
            report.fault(
                place,
                format!("{units} never starts: LoadCredentialEncrypted= takes what is sealed, which opnix's answer is not"),
                format!("write LoadCredential={id}:{socket}"),
            );
        }
        if let Err(error) = units.can_ask_for(&name) {
            report.faults.push(Fault::new(place, &error));
        }
        if unit.granted.iter().all(|rule| rule.credential != name) {
            report.fault(
                place,
                format!("no secret is mapped to credential \"{name}\" of {units}"),
                format!("add \"{units}\" to the `units` of a secret named \"{name}\""),
            );
        }
        for rule in unit.rules.iter().filter(|rule| rule.credential == name) {
            if found.warned.insert((units.clone(), name.clone())) {
                let deadline = rule.deadline.unwrap_or(config.timing.deadline);
                report.warnings.extend(too_long(units, rule, deadline, start::limit(&unit.files)));
                report.warnings.extend(not_renewed(unit, rule, config));
            }
            found.used.insert((rule.units.clone(), rule.credential.clone()));
        }
    }
}

/// Where the unit starts without its secret, or with another one, and nobody says so.
fn runs_without(unit: &Unit<'_>, socket: &str, report: &mut Report, found: &mut Found) {
    let Unit { units, credentials, rules, .. } = unit;
    let directory = Path::new(socket).parent();
    let is_ours = |source: &Source| match source {
        Source::Path(path) => normalized(path) == normalized(socket),
        Source::System(_) => false,
    };
    let is_mapped = |id: &str| rules.iter().any(|rule| rule.credential.as_str() == id);
    let is_asked = |id: &str| credentials.loaded.get(id).is_some_and(|loaded| is_ours(&loaded.source));
    let mut told = BTreeSet::new();
    for Lost { id, source, place, why } in &credentials.lost {
        if !is_ours(source) || !is_mapped(id) || is_asked(id) {
            continue;
        }
        let what = format!("credential \"{id}\" of {units} is not asked for: ");
        let (why, remedy) = match why {
            Why::Cleared(by) => (format!("{by} takes it back"), "give it after that line".to_owned()),
            Why::Replaced(by) => (format!("{by} names another source"), "remove one of the two lines".into()),
            Why::Section(section) => (
                format!("systemd ignores it in [{section}]"),
                format!("move it to [{}]", super::credentials::section_of(&unit.files.name)),
            ),
            Why::Path => {
                ("systemd ignores such a path".into(), format!("write LoadCredential={id}:{socket}"))
            }
        };
        report.fault(place, what + &why, remedy);
        told.insert(id);
        for rule in rules.iter().filter(|rule| rule.credential.as_str() == id) {
            found.used.insert((rule.units.clone(), rule.credential.clone()));
        }
    }
    for (id, loaded) in &credentials.loaded {
        if !is_at(&loaded.source, socket) {
            // What is wrong with it is said here.
            let of_it = rules.iter().filter(|rule| rule.credential.as_str() == id);
            found.used.extend(of_it.map(|rule| (rule.units.clone(), rule.credential.clone())));
        }
        let right = format!("write LoadCredential={id}:{socket}");
        match &loaded.source {
            Source::Path(path) if path == socket => {}
            Source::Path(path) if path == crate::control::SOCKET => {
                report.fault(
                    &loaded.place,
                    format!("{units} asks on the control socket, which has no secrets"),
                    right,
                );
            }
            Source::Path(path) if Some(Path::new(path)) == directory => {
                let what = format!("{path:?} is the directory of the sockets, and no credential");
                report.fault(&loaded.place, what, right);
            }
            Source::Path(path) if is_mapped(id) && !told.contains(id) => {
                let what = format!("credential \"{id}\" of {units} comes from {path}, and not from opnix");
                report.fault(&loaded.place, what, format!("{right}, or remove the mapping"));
            }
            Source::System(_) if is_mapped(id) => {
                let what = format!(
                    "credential \"{id}\" of {units} has no source: systemd takes one of the system, and starts the unit without if there is none"
                );
                report.fault(&loaded.place, what, right);
            }
            _ => {}
        }
    }
    for (id, place) in &credentials.set {
        if is_asked(id) {
            report.fault(
                place,
                format!(
                    "{units} starts with the value of this SetCredential= for \"{id}\" whenever the socket is not there"
                ),
                "remove the line: without it the unit does not start without its secret",
            );
        }
    }
    for (id, place) in &credentials.tests {
        if is_asked(id) {
            report.fault(
                place,
                format!("{units} never starts: AssertCredential= and ConditionCredential= look at the credentials of the system, and \"{id}\" is opnix's"),
                "remove the line: the unit does not start without its secret",
            );
        }
    }
    for line in &unit.files.lines {
        let reads = line.key == "EnvironmentFile" && line.section == "Service";
        let path = line.value.trim_start_matches('-');
        if reads && (path.starts_with("%d/") || path.starts_with("${CREDENTIALS_DIRECTORY}")) {
            let what = format!("{units} reads this before its credentials are there");
            report.fault(&line.place, what, "let opnix write it to a file: `path` of a template");
        }
    }
}

/// What to warn of when systemd gives a start up before its deadline.
fn too_long(units: &UnitPattern, rule: &Rule, deadline: Duration, limit: Duration) -> Option<Fault> {
    let name = |time: Duration| match time {
        Duration::MAX => "for ever".to_owned(),
        time => format_duration(time).to_string(),
    };
    // Their clock began to run before ours.
    (deadline >= limit && limit < Duration::MAX).then(|| {
        let what = format!(
            "{units} may wait {} for credential \"{}\", but systemd gives its start up after {}",
            name(deadline),
            rule.credential,
            format_duration(limit)
        );
        let problem = Problem::new(what, "give the unit a TimeoutStartSec= that is longer than the deadline");
        Fault::new(&rule.place, &problem)
    })
}

/// A reload gives a unit its new credentials from systemd 260 on, and only if it says so.
fn not_renewed(unit: &Unit<'_>, rule: &Rule, config: &Config) -> Option<Fault> {
    let mut changes = config.changes.iter();
    let change =
        changes.find(|change| Arc::ptr_eq(&change.entry, &rule.entry) && change.units == rule.units)?;
    let reloads = matches!(change.action, OnChange::Reload | OnChange::ReloadOrRestart);
    let refreshes = unit.files.lines.iter().any(|line| {
        line.key == "RefreshOnReload"
            && line.value.split(' ').any(|word| ["credentials", "yes"].contains(&word))
    });
    (reloads && !refreshes).then(|| {
        let what = format!(
            "{} keeps the old credential \"{}\" through a reload, until it is restarted",
            unit.units, rule.credential
        );
        let remedy =
            "\"on_change\": \"restart\"; or, from systemd 260 on, RefreshOnReload=credentials in the unit";
        Fault::new(&rule.place, &Problem::new(what, remedy))
    })
}

/// A file of the mirror that a unit reads, and that may not be there yet, or never.
fn reads_files(unit: &Unit<'_>, config: &Config, report: &mut Report) {
    if !config.needs_memory() {
        // What is there is somebody else's.
        return;
    }
    let (mut is_after, mut read) = (false, Vec::new());
    for line in &unit.files.lines {
        match (line.section.as_str(), line.key.as_str()) {
            ("Unit", "After") => {
                let mut others = line.value.split_whitespace();
                is_after |= others.any(|other| MIRROR_NAMES.contains(&other));
            }
            ("Service", "EnvironmentFile") if line.value.is_empty() => read.clear(),
            ("Service", "EnvironmentFile") => read.push(line),
            _ => {}
        }
    }
    for line in read {
        // What only the machine knows, and patterns, are not looked at.
        let path = expanded(line.value.trim_start_matches('-'), &unit.files.name);
        let Some(path) = path.filter(|path| !path.contains(['*', '?', '['])) else { continue };
        let path = Path::new(&path);
        if !path.starts_with(&config.mirror_root) {
            continue;
        }
        let mut written = config.files.iter().flat_map(|file| file.symlinks.iter().chain([&file.path]));
        if !written.any(|written| written == path) {
            let what = format!("{} reads {}, which opnix does not write", unit.units, path.display());
            report.fault(&line.place, what, "correct it, or write it: `path` of a secret or template");
        } else if !is_after {
            let what = format!("{} reads {}, and may start before it is there", unit.units, path.display());
            let remedy = "Wants=opnix-mirror.service and After=opnix-mirror.service in [Unit]";
            report.warning(&line.place, what, remedy);
        }
    }
}

/// Whether there is a unit that both stand for.
fn overlaps(a: &UnitPattern, b: &UnitPattern) -> bool {
    match (a, b) {
        (UnitPattern::Unit(unit), pattern) | (pattern, UnitPattern::Unit(unit)) => pattern.matches(unit),
        (a, b) => a == b,
    }
}

/// The units that a unit file is for: one, or the instances of a template.
pub fn pattern(file_name: &str) -> Option<UnitPattern> {
    match file_name.parse::<UnitName>() {
        Ok(unit) => Some(UnitPattern::Unit(unit)),
        Err(_) => file_name.replacen("@.", "@*.", 1).parse().ok(),
    }
}

fn normalized(path: &str) -> std::path::PathBuf {
    Path::new(path).components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_file_of_a_template_is_for_its_instances() {
        assert_eq!(pattern("a@.service").unwrap().to_string(), "a@*.service");
        assert_eq!(pattern("a@b.service").unwrap().to_string(), "a@b.service");
        assert!(pattern("a.timer").is_none());
        assert!(pattern("README").is_none());
    }
}
