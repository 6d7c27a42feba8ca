//! Is the configuration valid, and the one in force.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::Case;
use super::finding::{Finding, Kind};
use crate::cli::status::relative;
use crate::counted::counted;

const AREA: &str = "configuration";
const RELOAD: &str = "systemctl reload opnix.service opnix-mirror.service";

pub fn look(case: &Case) -> Vec<Finding> {
    let mut findings = Vec::new();
    let config = match &case.config {
        Err(faults) => {
            for fault in faults.iter() {
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
        let differing: Vec<String> =
            loaded.symmetric_difference(&written).take(3).map(|name| format!("{name:?}")).collect();
        if !differing.is_empty() {
            let what = format!(
                "the files were changed, and the service has not read them since ({})",
                differing.join(", ")
            );
            findings.push(Finding::warning(Kind::ConfigurationOld, AREA, what).mend(RELOAD));
        }
    }
    if findings.is_empty() {
        let credentials = counted(config.policy.rules().count(), "credential");
        let files = counted(config.files.len(), "file");
        findings.push(Finding::fine(AREA, format!("{credentials}, {files}")));
    }
    findings
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
