//! The units that have secrets: what their files say, and how they are.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Case;
use super::finding::{Finding, Kind};
use super::own_units::PARTS;
use crate::cli::check;
use crate::cli::control::SERVICE;
use crate::cli::status::files::{Mirror, mirror};
use crate::cli::status::relative;
use crate::cli::status::verdict::over;
use crate::config::Config;
use crate::control::interface::{Control, Status, whole_status};
use crate::counted::counted;
use crate::names::{CredentialName, UnitPattern};
use crate::scope;
use crate::systemd::SOCKET;
use crate::systemd::manager::{Manager, Unit};
use crate::systemd::running::Load;
use crate::systemd::unit_files::UnitFiles;

const AREA: &str = "units";
/// A unit that has waited for longer than this, in seconds, is told of.
const LONG: u64 = 5;
/// Where systemd looks for a credential that has no path.
const STORES: [&str; 3] = ["/etc/credstore", "/run/credstore", "/usr/lib/credstore"];

/// What the machine's unit files say.
pub fn files(case: &Case) -> Vec<Finding> {
    if !case.arguments.control.is_systems() {
        return vec![Finding::unseen(
            AREA,
            "the unit files of this service's own service manager are not looked at",
        )];
    }
    let unreadable = |error| vec![Finding::unseen(AREA, format!("their files cannot be read: {error}"))];
    let files = match UnitFiles::of_the_machine() {
        Ok(files) => files,
        Err(error) => return unreadable(error),
    };
    let Some(config) = case.config() else {
        return vec![Finding::unseen(
            AREA,
            "what their files ask for is held against a valid configuration only",
        )];
    };
    let report = match check::units::compare(&files, SOCKET, config) {
        Ok(report) => report,
        Err(error) => return unreadable(error),
    };
    let faults = report.faults.iter().map(|fault| Finding::fault(Kind::UnitFile, AREA, "").of(fault));
    let warnings = report.warnings.iter().map(|fault| Finding::warning(Kind::UnitFile, AREA, "").of(fault));
    let findings: Vec<Finding> = faults.chain(warnings).collect();
    if findings.is_empty() {
        let lines = counted(report.asked, "LoadCredential= line");
        return vec![Finding::fine(AREA, format!("{lines} of unit files agree with the mapping"))];
    }
    findings
}

/// Units that wait, were refused, or are down for want of a secret.
pub fn states(case: &Case) -> Vec<Finding> {
    let (Some(mut manager), true) = (case.manager(), case.is_seen_whole()) else { return Vec::new() };
    let names = match concerned(case, &mut manager) {
        Ok(names) => names,
        Err(error) => return vec![Finding::unseen(AREA, format!("systemd does not list them: {error}"))],
    };
    let count = names.len();
    let mut findings = Vec::new();
    // Some time has passed since the first look.
    let ask = || case.arguments.control.ask(async |mut service| whole_status(&mut service).await).ok();
    let status = case.status().and_then(|_| ask());
    let status = status.as_ref().or(case.status());
    if case.config().is_none() || status.is_none() {
        findings.push(Finding::unseen(AREA, "without a valid configuration and an answer of the service it is not known what each may have and lacks"));
    }
    for name in names {
        match manager.unit(&name) {
            Ok(unit) if unit.is_known() => findings.extend(of_unit(&unit, case, status)),
            // What is wrong with a name that systemd does not know is said of the mapping.
            Ok(_) | Err(_) => {}
        }
    }
    // Those that were not started for want of a file are told among the files.
    let waits = matches!(mirror(Some(&mut manager)), Mirror::Up(Some(report)) if !report.left.is_empty());
    if findings.is_empty() && count > 0 && !waits {
        let are = if count == 1 { "is" } else { "are" };
        findings.push(Finding::fine(
            AREA,
            format!("none of {} that {are} mapped, or asked, lacks a secret", counted(count, "unit")),
        ));
    }
    findings
}

/// The units that the configuration names, those that ask the service, and those that failed.
fn concerned(case: &Case, manager: &mut Manager) -> std::io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    if let Some(config) = case.config() {
        for rule in config.policy.rules() {
            match &rule.units {
                UnitPattern::Unit(unit) => drop(names.insert(unit.to_string())),
                pattern => names.extend(manager.list(&[], &[&pattern.to_string()])?),
            }
        }
        let readers = config.files.iter().flat_map(|file| &file.services);
        names.extend(readers.map(|(unit, _)| unit.to_string()));
    }
    if let Some(status) = case.status() {
        names.extend(status.refusals.iter().map(|refusal| refusal.unit.clone()));
        names.extend(status.requests.iter().map(|request| request.unit.clone()));
    }
    for name in manager.list(&["failed"], &[])? {
        if manager.unit(&name).is_ok_and(|unit| asks(&unit)) {
            names.insert(name);
        }
    }
    names.retain(|name| !is_own(name));
    Ok(names)
}

fn is_own(name: &str) -> bool {
    PARTS.iter().any(|(part, _)| *part == name) || name == SERVICE
}

fn is_ours(load: &Load) -> bool {
    Path::new(&load.source) == scope::socket()
}

/// Whether it has a credential from us.
fn asks(unit: &Unit) -> bool {
    unit.loads().iter().any(is_ours)
}

fn of_unit(unit: &Unit, case: &Case, status: Option<&Status>) -> Vec<Finding> {
    let (name, now) = (&unit.id, SystemTime::now());
    let start = format!("systemctl start {name}");
    let mut findings = Vec::new();
    let refusals = status.map_or(&[][..], |status| &status.refusals);
    let requests = status.map_or(&[][..], |status| &status.requests);
    for refusal in refusals
        .iter()
        .filter(|refusal| refusal.unit == *name && over(refusal, requests, unit, &scope::socket()).is_none())
    {
        let what = format!(
            "{name} ({}) was refused \"{}\" {}: ",
            unit.state(),
            refusal.credential,
            relative(refusal.at, now)
        );
        let finding = Finding::fault(Kind::UnitRefused, AREA, what).lines(&refusal.reason);
        let explained = || format!("as this says: opnix explain {name} {}", refusal.credential);
        let remedy = finding.remedy.as_ref().map_or_else(explained, ToString::to_string);
        let mend = format!("{remedy}\nthen, if it does not come up by itself: {start}");
        findings.push(finding.mend(mend));
    }
    findings.extend(waits(unit, status, now));
    if let Some(config) = case.config()
        && findings.is_empty()
    {
        findings.extend(fails_otherwise(unit, config, case));
    }
    findings
}

fn waits(unit: &Unit, status: Option<&Status>, now: SystemTime) -> Option<Finding> {
    let status = status?;
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let is_long = |since: u64| seconds.saturating_sub(since) > LONG;
    let request = status.requests.iter().find(|request| request.unit == unit.id && is_long(request.since))?;
    let until = request
        .until
        .map_or("for ever".to_owned(), |until| format!("and is refused {}", relative(until, now)));
    let what = format!(
        "{} has waited for \"{}\" since {}, {until}",
        unit.id,
        request.credential,
        relative(request.since, now)
    );
    let why = status.provider.as_ref().and_then(|provider| provider.error.clone());
    let why = why.unwrap_or_else(|| "1Password has not answered yet".to_owned());
    Some(Finding::warning(Kind::UnitWaits, AREA, what).mend(why))
}

/// Its credentials could not be set up, and opnix did not refuse any.
fn fails_otherwise(unit: &Unit, config: &Config, case: &Case) -> Option<Finding> {
    if unit.state() != "failed" && !unit.waits_for_restart() || !unit.lacked_credentials() {
        return None;
    }
    let loads = unit.loads();
    let ours: Vec<&str> = loads.iter().filter(|load| is_ours(load)).map(|load| load.id.as_str()).collect();
    let name = unit.id.parse().ok()?;
    let is_mapped = |id: &&&str| {
        id.parse::<CredentialName>().is_ok_and(|id| config.policy.entry_for(&name, &id).is_some())
    };
    // What is not mapped is refused, whoever remembers that.
    if ours.is_empty() || ours.iter().any(|id| !is_mapped(&id)) {
        return None;
    }
    let what = format!("{} fails with 243/CREDENTIALS, and opnix refused it nothing", unit.id);
    let finding = Finding::fault(Kind::UnitFailsOtherwise, AREA, what);
    let missing = loads.iter().filter(|load| !is_ours(load)).find(|load| !is_there(&load.source));
    if let Some(load) = missing {
        let mend = format!("its credential \"{}\" comes from {}, which is not there", load.id, load.source);
        return Some(finding.mend(mend));
    }
    let long = ours.iter().find(|id| {
        id.parse::<CredentialName>().is_ok_and(|id| UnitPattern::Unit(name.clone()).can_ask_for(&id).is_err())
    });
    if let Some(id) = long {
        return Some(finding.mend(format!("the names of the unit and of its credential \"{id}\" are too long together for systemd to ask: shorten one of them")));
    }
    let given = case.arguments.control.ask(async |mut service| service.unit(&unit.id).await);
    let given = given.is_ok_and(|state| {
        let of = |id: &str| {
            state.credentials.iter().find(|held| held.credential == id).and_then(|held| held.given_at)
        };
        ours.iter().all(|id| of(id).is_some_and(|at| at >= unit.started()))
    });
    if given {
        let mend = "it was given all of them; all credentials of a unit together may have 1 MiB, names included: make one a file (`path`)";
        return Some(finding.mend(mend));
    }
    // Whatever it was, nobody remembers.
    let what = format!(
        "{} failed with 243/CREDENTIALS, and why is not known: the service was restarted since, or did not listen",
        unit.id
    );
    Some(
        Finding::fault(Kind::UnitGaveUp, AREA, what)
            .mend(format!("systemctl start {}, and if it fails again, run this again", unit.id)),
    )
}

fn is_there(source: &str) -> bool {
    if source.starts_with('/') {
        return Path::new(source).exists();
    }
    // Without a path it is one of the system, or of a store; if there is none, the unit starts without.
    STORES.iter().any(|store| Path::new(store).join(source).exists()) || !source.contains('/')
}
