//! What unit files ask for, compared with what the mapping grants.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use humantime::format_duration;

use super::credentials::{Credentials, Loaded, Lost, Source, Why};
use super::{files, mapping, meant, others, start};
use crate::config::{Config, Fault, OnChange};
use crate::names::{CredentialName, UnitName, UnitPattern};
use crate::place::Place;
use crate::policy::Rule;
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

/// A unit, with what is known of it.
pub struct Unit<'c> {
    pub units: UnitPattern,
    pub files: Effective,
    pub credentials: Credentials,
    /// The rules that grant something to it, or to an instance of it; and those of them that are about it.
    pub granted: Vec<&'c Rule>,
    rules: Vec<&'c Rule>,
}

pub fn compare(units: &UnitFiles, socket: &str, config: &Config) -> io::Result<Report> {
    let mut report = Report::default();
    let mut names = units.names();
    for rule in config.policy.rules() {
        // Of a unit whose file is elsewhere, drop-ins for all of its kind may be here.
        names.insert(units.own_name(mapping::name_of(rule)).to_owned());
    }
    let (mut found, mut places) = (Found::default(), BTreeSet::new());
    for name in names {
        let Some(of) = pattern(&name) else { continue };
        let effective = units.effective(&name)?;
        if effective.is_masked {
            continue;
        }
        let credentials = Credentials::of(&effective);
        // The unit file of a template asks for all its instances. It is enough if a rule grants it to one of them.
        // One for another name of the unit is meant for it: that systemd asks by its own is said of the rule.
        let is_for_it =
            |rule: &&Rule| overlaps(&rule.units, &of) || units.own_name(mapping::name_of(rule)) == name;
        let granted: Vec<&Rule> = config.policy.rules().filter(is_for_it).collect();
        // An instance that is mapped by its name is looked at by itself.
        let is_of_it =
            |rule: &&Rule| !matches!((&of, &rule.units), (UnitPattern::Instances(_), UnitPattern::Unit(_)));
        let rules = granted.iter().copied().filter(is_of_it).collect();
        let unit = Unit { units: of, files: effective, credentials, granted, rules };
        asks(&unit, socket, config, &mut report, &mut found);
        runs_without(&unit, socket, &mut report, &mut found);
        meant::sockets(&unit, socket, &mut report);
        if !units.is_loaded_instance(&name) {
            // The same is said of its template.
            files::read(&unit, units, config, &mut report);
            others::ask(&unit, units, socket, &mut report);
        }
        is_old(&unit, socket, &mut report);
        let of_ours = unit.credentials.loaded.values().filter(|loaded| is_at(&loaded.source, socket));
        places.extend(of_ours.map(|loaded| loaded.place.clone()));
    }
    others::unlock(units, socket, &mut report)?;
    mapping::look(units, socket, config, &found.used, &mut report);
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

pub fn is_at(source: &Source, socket: &str) -> bool {
    // /var/run leads to /run.
    let is_its = |path: &str| path == socket || path.strip_prefix("/var") == Some(socket);
    matches!(source, Source::Path(path) if is_its(path))
}

/// What is in its files counts from the next time on that systemd reads them.
fn is_old(unit: &Unit<'_>, socket: &str, report: &mut Report) {
    let is_ours = unit.credentials.loaded.values().any(|loaded| is_at(&loaded.source, socket));
    if let Some(file) = unit.files.file.as_deref().filter(|_| unit.files.is_stale)
        && (is_ours || !unit.rules.is_empty())
    {
        let place = Place { file: file.into(), position: None };
        let what = format!("systemd has an older version of {} in memory than its files are", unit.units);
        report.warning(&place, what, "systemctl daemon-reload");
    }
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
                meant::mapping(unit, &name, config),
            );
        }
        for rule in unit.rules.iter().filter(|rule| rule.credential == name) {
            // Of an instance the same is true as of its template.
            let of = match units {
                UnitPattern::Unit(unit) => unit.template().map(UnitPattern::Instances),
                UnitPattern::Instances(_) => None,
            };
            let of = of.unwrap_or_else(|| units.clone());
            if found.warned.insert((of, name.clone())) {
                let deadline = rule.deadline.unwrap_or(config.timing.deadline);
                report.warnings.extend(too_long(units, rule, deadline, start::limit(&unit.files)));
                report.warnings.extend(not_renewed(unit, rule, config));
                report.warnings.extend(start::not_again(units, &unit.files));
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
            Why::Unread => (
                "systemd has an older version of the unit in memory".into(),
                "systemctl daemon-reload".into(),
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
            // Said of by itself.
            source @ Source::Path(path) if is_at(source, socket) || meant::resembles(path, socket) => {}
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
    for line in unit.files.in_effect() {
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

/// A reload gives a unit its new credentials from systemd 260 on, and only if it says so; a signal never does.
fn not_renewed(unit: &Unit<'_>, rule: &Rule, config: &Config) -> Option<Fault> {
    let mut changes = config.changes.iter();
    let change =
        changes.find(|change| Arc::ptr_eq(&change.entry, &rule.entry) && change.units == rule.units)?;
    let refreshes = || {
        let lines = unit.files.in_effect();
        let words = lines.iter().filter(|line| line.key == "RefreshOnReload");
        let mut words = words.flat_map(|line| line.value.split_whitespace()).rev();
        // The last word about it counts.
        words.find_map(|word| match word.to_lowercase().as_str() {
            "credentials" | "yes" | "y" | "true" | "t" | "1" | "on" => Some(true),
            "~credentials" | "no" | "n" | "false" | "f" | "0" | "off" => Some(false),
            _ => None,
        }) == Some(true)
    };
    let what = match change.action {
        OnChange::Reload | OnChange::ReloadOrRestart if !refreshes() => "a reload",
        OnChange::Signal(_) => "a signal",
        _ => return None,
    };
    let what = format!(
        "{what} gives {} no new value of its credential \"{}\": opnix restarts it after that",
        unit.units, rule.credential
    );
    let remedy = "\"on_change\": \"restart\"; or reload it, from systemd 260 on, with RefreshOnReload=credentials in the unit";
    Some(Fault::new(&rule.place, &Problem::new(what, remedy)))
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
