//! What unit files ask for, compared with what the mapping grants.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use humantime::format_duration;

use super::start::Starts;
use crate::config::{Config, Fault};
use crate::files;
use crate::names::{CredentialName, UnitName, UnitPattern};
use crate::place::Place;
use crate::policy::Rule;
use crate::remedy::Problem;

/// A file larger than this, in bytes, is not a unit file.
const SIZE_MAX: usize = 16 << 20;

/// What the comparison found.
#[derive(Default)]
pub struct Report {
    /// Starts that would fail.
    pub faults: Vec<Fault>,
    /// What is likely a mistake, but lets every unit start.
    pub warnings: Vec<Fault>,
    /// The lines that ask at our socket.
    pub asked: usize,
}

/// One `LoadCredential=ID:SOCKET` line.
struct Asked {
    units: UnitPattern,
    credential: String,
    place: Place,
}

pub fn compare(directories: &[PathBuf], socket: &str, config: &Config) -> io::Result<Report> {
    let policy = &config.policy;
    let (mut asked, mut starts) = (Vec::new(), Starts::default());
    for directory in directories {
        let in_directory =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", directory.display()));
        collect(directory, socket, &mut asked, &mut starts).map_err(in_directory)?;
    }
    let mut report = Report { asked: asked.len(), ..Report::default() };
    let (mut used, mut warned) = (BTreeSet::new(), BTreeSet::new());
    for Asked { units, credential, place } in &asked {
        let name: CredentialName = match credential.parse() {
            Ok(name) => name,
            Err(_) if credential.contains('%') => {
                let what = format!("credential {credential:?} has a specifier, which is not checked");
                let problem = Problem::new(what, "name it in full to have it checked");
                report.warnings.push(Fault::new(place, &problem));
                continue;
            }
            Err(error) => {
                report.faults.push(Fault::new(place, &error));
                continue;
            }
        };
        if let Err(error) = units.can_ask_for(&name) {
            report.faults.push(Fault::new(place, &error));
        }
        // The unit file of a template asks for all its instances. It is enough if a rule grants it to one of them.
        let rules: Vec<_> =
            policy.rules().filter(|rule| rule.credential == name && overlaps(&rule.units, units)).collect();
        if rules.is_empty() {
            let problem = Problem::new(
                format!("no secret is mapped to credential \"{name}\" of {units}"),
                format!("add \"{units}\" to the `units` of a secret named \"{name}\""),
            );
            report.faults.push(Fault::new(place, &problem));
        }
        for rule in &rules {
            if warned.insert((units, &rule.units, &rule.credential)) {
                let deadline = rule.deadline.unwrap_or(config.timing.deadline);
                report.warnings.extend(too_long(units, rule, deadline, starts.limit(units)));
            }
        }
        used.extend(rules.into_iter().map(|rule| (rule.units.clone(), rule.credential.clone())));
    }
    let mut unused: Vec<_> = policy
        .rules()
        .filter(|rule| !used.contains(&(rule.units.clone(), rule.credential.clone())))
        .collect();
    unused.sort_by(|a, b| a.place.cmp(&b.place));
    for rule in unused {
        let problem = Problem::new(
            format!("{} does not ask for credential \"{}\"", rule.units, rule.credential),
            format!("add LoadCredential={}:{socket} to the unit, or remove the mapping", rule.credential),
        );
        report.warnings.push(Fault::new(&rule.place, &problem));
    }
    Ok(report)
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

/// Whether there is a unit that both stand for.
fn overlaps(a: &UnitPattern, b: &UnitPattern) -> bool {
    match (a, b) {
        (UnitPattern::Unit(unit), pattern) | (pattern, UnitPattern::Unit(unit)) => pattern.matches(unit),
        (a, b) => a == b,
    }
}

/// Unit files, and the drop-ins beside them.
fn collect(directory: &Path, socket: &str, asked: &mut Vec<Asked>, starts: &mut Starts) -> io::Result<()> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    entries.sort();
    for path in entries {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if path.is_dir() {
            let Some(units) = name.strip_suffix(".d").and_then(pattern) else { continue };
            let mut drop_ins: Vec<PathBuf> =
                fs::read_dir(&path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
            drop_ins.sort();
            for drop_in in
                drop_ins.iter().filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
            {
                let text = read(drop_in)?;
                let assignments = assignments(&text);
                asks(&assignments, drop_in, &units, socket, asked);
                let name = drop_in.file_name().map(|name| name.to_string_lossy());
                starts.add(&units, name.as_deref(), pairs(&assignments));
            }
        } else if let Some(units) = pattern(name).filter(|_| path.is_file()) {
            let text = read(&path)?;
            let assignments = assignments(&text);
            asks(&assignments, &path, &units, socket, asked);
            starts.add(&units, None, pairs(&assignments));
        }
    }
    Ok(())
}

/// The units that a unit file is for: one, or the instances of a template.
fn pattern(file_name: &str) -> Option<UnitPattern> {
    match file_name.parse::<UnitName>() {
        Ok(unit) => Some(UnitPattern::Unit(unit)),
        Err(_) => file_name.replacen("@.", "@*.", 1).parse().ok(),
    }
}

fn read(path: &Path) -> io::Result<String> {
    // A masked unit is a link to /dev/null, which is empty. Bytes that are not UTF-8 are not part of any valid name.
    Ok(String::from_utf8_lossy(&files::read(path, SIZE_MAX)?).into_owned())
}

/// The keys and their values.
fn pairs(assignments: &[(usize, String)]) -> impl Iterator<Item = (&str, &str)> {
    let pairs = assignments.iter().filter_map(|(_, assignment)| assignment.split_once('='));
    pairs.map(|(key, value)| (key.trim(), value.trim()))
}

fn asks(
    assignments: &[(usize, String)],
    path: &Path,
    units: &UnitPattern,
    socket: &str,
    asked: &mut Vec<Asked>,
) {
    for (line, assignment) in assignments {
        let Some((key, value)) = assignment.split_once('=') else { continue };
        let Some((credential, source)) = value.trim().split_once(':') else { continue };
        if ["LoadCredential", "LoadCredentialEncrypted"].contains(&key.trim()) && source == socket {
            let place = Place { file: path.into(), position: Some((*line, 1)) };
            asked.push(Asked { units: units.clone(), credential: credential.to_owned(), place });
        }
    }
}

/// The lines of a unit file with their numbers: continued ones joined, comments and blank ones left out.
fn assignments(text: &str) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    let mut continued: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with(['#', ';']) {
            // A comment does not end a continued line.
            continue;
        }
        let (number, before) = continued.take().unwrap_or((index + 1, String::new()));
        match line.strip_suffix('\\') {
            Some(part) => continued = Some((number, before + part + " ")),
            None if before.is_empty() && line.trim().is_empty() => {}
            None => all.push((number, (before + line).trim().to_owned())),
        }
    }
    all.extend(continued);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continued_lines_are_one_and_comments_are_none() {
        let text = "# c\n[Service]\n\nLoadCredential=\\\n; inside\n  a:/run/s\nType=exec\\";
        let lines = assignments(text);
        assert_eq!(lines[0], (2, "[Service]".into()));
        assert_eq!(lines[1], (4, "LoadCredential=   a:/run/s".into()));
        assert_eq!(lines[2].0, 7);
    }

    #[test]
    fn a_unit_file_of_a_template_is_for_its_instances() {
        assert_eq!(pattern("a@.service").unwrap().to_string(), "a@*.service");
        assert_eq!(pattern("a@b.service").unwrap().to_string(), "a@b.service");
        assert!(pattern("a.timer").is_none());
        assert!(pattern("README").is_none());
    }
}
