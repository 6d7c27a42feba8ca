//! Is the configuration valid, and the one in force.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;

use nix::unistd::Uid;

use super::Case;
use super::finding::{Finding, Kind};
use crate::cli::status::relative;
use crate::counted::counted;

const AREA: &str = "configuration";
const RELOAD: &str = "systemctl reload opnix.service opnix-mirror.service";

pub fn look(case: &Case) -> Vec<Finding> {
    if case.is_of_another_configuration() {
        return vec![Finding::unseen(AREA, "which one this service has is not known: name it with --config")];
    }
    let mut findings = Vec::new();
    let config = match &case.config {
        Err(faults) => {
            for fault in faults.iter() {
                if fault.what.contains("Permission denied") && !Uid::effective().is_root() {
                    findings.push(Finding::unseen(AREA, format!("{}: {}", fault.place(), fault.what)));
                    continue;
                }
                findings.push(Finding::fault(Kind::ConfigurationFaulty, AREA, "").of(fault));
            }
            findings.extend(older_in_force(case));
            return findings;
        }
        Ok(config) => config,
    };
    findings.extend(older_in_force(case));
    for warning in &config.warnings {
        findings.push(Finding::warning(Kind::ConfigurationFaulty, AREA, "").of(warning));
    }
    if let Some(status) = case.status().filter(|status| status.faults.is_none() && status.rejected.is_none())
    {
        let loaded: BTreeSet<&str> = status.secrets.iter().map(|secret| secret.name.as_str()).collect();
        let written: BTreeSet<&str> = config.entries.iter().map(|entry| entry.name.as_str()).collect();
        let changed = status.configured_at.and_then(|at| changed_since(&case.arguments.config.config, at));
        let differing: Vec<String> =
            loaded.symmetric_difference(&written).take(3).map(|name| format!("{name:?}")).collect();
        let what = match (differing.is_empty(), changed) {
            (false, _) => {
                Some(format!("the files name other secrets than the service has ({})", differing.join(", ")))
            }
            (true, Some(path)) => {
                Some(format!("{} was changed, and the service has not read it since", path.display()))
            }
            (true, None) => None,
        };
        findings.extend(what.map(|what| Finding::warning(Kind::ConfigurationOld, AREA, what).mend(RELOAD)));
    }
    if findings.is_empty() {
        let credentials = counted(config.policy.rules().count(), "credential");
        let files = counted(config.files.len(), "file");
        findings.push(Finding::fine(AREA, format!("{credentials}, {files}")));
    }
    findings
}

/// A file that was changed later than that, in seconds since 1970.
fn changed_since(paths: &[PathBuf], at: u64) -> Option<PathBuf> {
    let in_it = |path: &PathBuf| match fs::read_dir(path) {
        Ok(entries) => entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .collect(),
        Err(_) => vec![path.clone()],
    };
    // Of a link, it may be the link.
    let is_newer = |path: &PathBuf| {
        [fs::symlink_metadata(path), fs::metadata(path)]
            .iter()
            .flatten()
            .any(|file| u64::try_from(file.ctime()).is_ok_and(|changed| changed > at))
    };
    paths.iter().flat_map(in_it).find(is_newer)
}

/// What the service came up with, or keeps, because of faults.
fn older_in_force(case: &Case) -> Option<Finding> {
    let status = case.status()?;
    if let Some(faults) = &status.faults {
        // Faults that are still there are told already.
        let since = "the service came up with a faulty configuration, and refuses every unit";
        let what = if case.config.is_ok() { format!("{since}: {faults}") } else { since.to_owned() };
        let finding = Finding::fault(Kind::ConfigurationFaulty, AREA, what);
        return Some(finding.mend(format!("mend it, then: {RELOAD}")));
    }
    let rejected = status.rejected.as_ref()?;
    let since = relative(rejected.since, SystemTime::now());
    let what = format!("an older configuration is in force, as the files were found faulty {since}");
    let what = if case.config.is_ok() { format!("{what}: {}", rejected.faults) } else { what };
    Some(Finding::fault(Kind::ConfigurationFaulty, AREA, what).mend(format!("mend them, then: {RELOAD}")))
}
