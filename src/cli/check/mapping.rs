//! What is wrong with the mapping itself, by the unit files.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::meant;
use super::units::{Pairs, Report, pattern};
use crate::config::{Config, OnChange};
use crate::names::UnitPattern;
use crate::policy::Rule;
use crate::systemd::unit_files::UnitFiles;

/// `used`: the mappings of which something is known.
pub fn look(files: &UnitFiles, socket: &str, config: &Config, used: &Pairs, report: &mut Report) {
    aliases(files, config, report);
    kinds(config, report);
    strangers(files, config, report);
    unused(files, socket, config, used, report);
}

/// systemd asks by a unit's own name, whichever name it was started by.
fn aliases(files: &UnitFiles, config: &Config, report: &mut Report) {
    for rule in config.policy.rules() {
        let name = name_of(rule);
        let own = files.own_name(name);
        if own != name
            && let Some(own) = pattern(own)
        {
            report.fault(
                &rule.place,
                format!("{} is another name of {own}, by which systemd asks", rule.units),
                format!("write \"{own}\""),
            );
        }
    }
}

/// Some units are given no credentials.
fn kinds(config: &Config, report: &mut Report) {
    let remedy = "let opnix write a file that the unit reads: `path`";
    for rule in config.policy.rules() {
        match kind_of(rule) {
            kind @ ("socket" | "swap") => {
                report.fault(
                    &rule.place,
                    format!("{}: systemd gives {kind} units no credentials", rule.units),
                    remedy,
                );
            }
            "mount" => {
                let what =
                    format!("{}: systemd gives mount units credentials from version 257 on only", rule.units);
                report.warning(&rule.place, what, remedy);
            }
            _ => {}
        }
    }
}

fn kind_of(rule: &Rule) -> &str {
    name_of(rule).rsplit_once('.').map_or("", |(_, kind)| kind)
}

/// Units that are to be told of changes and are not there.
fn strangers(files: &UnitFiles, config: &Config, report: &mut Report) {
    if !files.has_the_vendors() {
        return;
    }
    let of_files = config.files.iter().flat_map(|file| {
        file.services.iter().map(|(unit, _)| (UnitPattern::Unit(unit.clone()), &file.entry.place))
    });
    let of_units = config.changes.iter().map(|change| (change.units.clone(), &change.entry.place));
    for (units, place) in of_files.chain(of_units).collect::<BTreeSet<_>>() {
        let name = match &units {
            UnitPattern::Unit(unit) => unit.as_str(),
            UnitPattern::Instances(template) => template,
        };
        if !files.is_known(name) {
            let what = format!(
                "there is no unit file of {units} in these directories: nothing is told when this changes"
            );
            let remedy =
                "correct the name, or name its directory, too: a generator's is /run/systemd/generator";
            report.warning(place, what, remedy);
        }
    }
}

/// Mappings that no unit uses.
fn unused(files: &UnitFiles, socket: &str, config: &Config, used: &Pairs, report: &mut Report) {
    let is_used = |rule: &&Rule| !used.contains(&(rule.units.clone(), rule.credential.clone()));
    let mut unused: Vec<_> = config.policy.rules().filter(is_used).collect();
    unused.sort_by(|a, b| a.place.cmp(&b.place));
    let names = files.names();
    for rule in unused {
        // Who reads the file is told of a change by this.
        let is_of_a_file = config.files.iter().any(|file| Arc::ptr_eq(&file.entry, &rule.entry));
        let acts = config.changes.iter().any(|change| {
            Arc::ptr_eq(&change.entry, &rule.entry)
                && change.units == rule.units
                && change.action != OnChange::Nothing
        });
        let name = name_of(rule);
        let is_told = files.own_name(name) != name || ["socket", "swap"].contains(&kind_of(rule));
        if is_of_a_file && acts || is_told || files.is_masked(name) {
            continue;
        }
        if let Some(meant) = meant::unit(rule, files, &names) {
            let meant = pattern(meant).map_or_else(|| meant.to_owned(), |meant| meant.to_string());
            let what = format!("there is no unit file of {} in these directories", rule.units);
            report.warning(&rule.place, what, format!("did you mean \"{meant}\"?"));
            continue;
        }
        let what = format!("{} does not ask for credential \"{}\"", rule.units, rule.credential);
        let add =
            format!("add LoadCredential={}:{socket} to the unit, or remove the mapping", rule.credential);
        report.warning(&rule.place, what, add);
    }
}

/// The name of the unit's file.
pub fn name_of(rule: &Rule) -> &str {
    match &rule.units {
        UnitPattern::Unit(unit) => unit.as_str(),
        UnitPattern::Instances(template) => template,
    }
}
