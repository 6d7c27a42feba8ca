//! What unit files ask for, held against what the mapping grants.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::files;
use crate::names::{CredentialName, UnitName, UnitPattern};
use crate::place::Place;
use crate::policy::Policy;

/// A unit file larger than this, in bytes, is none.
const SIZE_MAX: usize = 16 << 20;

/// What the comparison found.
#[derive(Default)]
pub struct Report {
    /// Starts that would fail.
    pub faults: Vec<Finding>,
    /// What is likely a mistake, but lets every unit start.
    pub warnings: Vec<Finding>,
    /// The lines that ask at our socket.
    pub asked: usize,
}

pub struct Finding {
    place: Place,
    what: String,
    remedy: String,
}

/// One `LoadCredential=ID:SOCKET` line.
struct Asked {
    units: UnitPattern,
    credential: String,
    place: Place,
}

pub fn compare(directories: &[PathBuf], socket: &str, policy: &Policy) -> io::Result<Report> {
    let mut asked = Vec::new();
    for directory in directories {
        let in_directory =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", directory.display()));
        collect(directory, socket, &mut asked).map_err(in_directory)?;
    }
    let mut report = Report { asked: asked.len(), ..Report::default() };
    let mut used = BTreeSet::new();
    for Asked { units, credential, place } in &asked {
        let fault = |what: String, remedy: String| Finding { place: place.clone(), what, remedy };
        let name: CredentialName = match credential.parse() {
            Ok(name) => name,
            Err(_) if credential.contains('%') => {
                let what = format!("credential {credential:?} has a specifier, which is not checked");
                report.warnings.push(fault(what, "name it in full to have it checked".into()));
                continue;
            }
            Err(error) => {
                let text = error.to_string();
                let (what, remedy) = text.split_once('\n').unwrap_or((&text, ""));
                report.faults.push(fault(what.to_owned(), remedy.to_owned()));
                continue;
            }
        };
        if let Some(excess) = units.address_excess(&name) {
            report.faults.push(fault(
                format!("unit {units} and credential \"{name}\" are {excess} bytes too long together"),
                "systemd could not even ask (its socket address holds 107 bytes); shorten one of the names"
                    .into(),
            ));
        }
        // A unit file of a template asks for all its instances: each must be granted, by whichever rules.
        let rules: Vec<_> =
            policy.rules().filter(|rule| rule.credential == name && overlaps(&rule.units, units)).collect();
        if rules.is_empty() {
            report.faults.push(fault(
                format!("no secret is mapped to credential \"{name}\" of {units}"),
                format!("add \"{units}\" to the `units` of a secret named \"{name}\""),
            ));
        }
        used.extend(rules.into_iter().map(|rule| (rule.units.clone(), rule.credential.clone())));
    }
    let mut unused: Vec<_> = policy
        .rules()
        .filter(|rule| !used.contains(&(rule.units.clone(), rule.credential.clone())))
        .collect();
    unused.sort_by(|a, b| a.place.file.cmp(&b.place.file).then(a.place.position.cmp(&b.place.position)));
    for rule in unused {
        report.warnings.push(Finding {
            place: rule.place.clone(),
            what: format!("{} does not ask for credential \"{}\"", rule.units, rule.credential),
            remedy: format!(
                "add LoadCredential={}:{socket} to the unit, or remove the mapping",
                rule.credential
            ),
        });
    }
    Ok(report)
}

/// Whether some unit is meant by both.
fn overlaps(a: &UnitPattern, b: &UnitPattern) -> bool {
    match (a, b) {
        (UnitPattern::Unit(unit), pattern) | (pattern, UnitPattern::Unit(unit)) => pattern.matches(unit),
        (a, b) => a == b,
    }
}

/// Unit files, and the drop-ins beside them.
fn collect(directory: &Path, socket: &str, asked: &mut Vec<Asked>) -> io::Result<()> {
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
                read(drop_in, &units, socket, asked)?;
            }
        } else if let Some(units) = pattern(name).filter(|_| path.is_file()) {
            read(&path, &units, socket, asked)?;
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

fn read(path: &Path, units: &UnitPattern, socket: &str, asked: &mut Vec<Asked>) -> io::Result<()> {
    // Masked units are links to /dev/null; text that is no UTF-8 holds no names that we could match.
    let text = String::from_utf8_lossy(&files::read(path, SIZE_MAX)?).into_owned();
    for (line, assignment) in assignments(&text) {
        let Some((key, value)) = assignment.split_once('=') else { continue };
        let Some((credential, source)) = value.trim().split_once(':') else { continue };
        if ["LoadCredential", "LoadCredentialEncrypted"].contains(&key.trim()) && source == socket {
            let place = Place { file: path.into(), position: Some((line, 1)) };
            asked.push(Asked { units: units.clone(), credential: credential.to_owned(), place });
        }
    }
    Ok(())
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

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    {}", self.place, self.what, self.remedy)
    }
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
