//! The files of the mirror that a unit names: they may not be there yet, or never.

use std::collections::BTreeSet;
use std::path::Path;

use super::credentials::{Source, expanded};
use super::units::{Report, Unit};
use crate::config::Config;
use crate::place::Place;
use crate::policy::MIRROR;
use crate::systemd::unit_files::{Effective, UnitFiles};
use crate::systemd::unit_lines::Line;

/// The mirror's unit, and what OpNix calls it.
const MIRROR_NAMES: [&str; 2] = [MIRROR, "opnix-secrets.service"];
/// What names files that are read, besides commands.
const READS: [&str; 5] =
    ["EnvironmentFile", "Environment", "StandardInput", "BindPaths", "BindReadOnlyPaths"];
/// What these run has directories of its own.
const CONTAINERS: [&str; 8] =
    ["podman", "podman-compose", "docker", "docker-compose", "nerdctl", "systemd-nspawn", "bwrap", "runc"];
/// What may stand around a path in a word.
const AROUND: &str = "\"'`:,;=|&<>(){}[]";
/// How many units are looked at to see whether one comes after the mirror.
const ORDERED_MAX: usize = 200;

/// What becomes of a unit whose file is not there.
enum Without {
    /// It does not start.
    Fails,
    /// It goes on, or is left out.
    GoesOn,
}

pub fn read(unit: &Unit<'_>, units: &UnitFiles, config: &Config, report: &mut Report) {
    if !config.needs_memory() {
        // What is there is somebody else's.
        return;
    }
    let mut named: Vec<(&Place, String, Without)> = Vec::new();
    for line in unit.files.in_effect() {
        let paths = paths(line, &unit.files.name, &config.mirror_root);
        named.extend(paths.into_iter().map(|(path, without)| (&line.place, path, without)));
    }
    for loaded in unit.credentials.loaded.values() {
        if let Source::Path(path) = &loaded.source
            && Path::new(path).starts_with(&config.mirror_root)
        {
            named.push((&loaded.place, path.clone(), Without::Fails));
        }
    }
    let mut is_after = None;
    for (place, path, without) in named {
        let mut written = config.files.iter().flat_map(|file| file.symlinks.iter().chain([&file.path]));
        // A directory with files in it will do.
        let is_written = written.any(|written| written.starts_with(&path));
        let units_named = &unit.units;
        match without {
            _ if is_written => {
                if !*is_after.get_or_insert_with(|| comes_after_the_mirror(&unit.files, units)) {
                    let what = format!("{units_named} reads {path}, and may start before it is there");
                    let remedy = "Wants=opnix-mirror.service and After=opnix-mirror.service in [Unit]";
                    report.warning(place, what, remedy);
                }
            }
            Without::Fails => {
                let what = format!("{units_named} reads {path}, which opnix does not write");
                report.fault(place, what, "correct it, or write it: `path` of a secret or template");
            }
            Without::GoesOn => {
                let what = format!("{units_named} names {path}, which opnix does not write");
                report.warning(place, what, "correct it, or write it: `path` of a secret or template");
            }
        }
    }
}

/// Itself, or by what it comes after.
fn comes_after_the_mirror(unit: &Effective, units: &UnitFiles) -> bool {
    let others = |unit: &Effective, key: &str| -> Vec<String> {
        let lines = unit.lines.iter().filter(|line| line.section == "Unit" && line.key == key);
        lines.flat_map(|line| line.value.split_whitespace().map(str::to_owned)).collect()
    };
    let before: BTreeSet<String> = MIRROR_NAMES
        .iter()
        .filter_map(|name| units.effective(name).ok())
        .flat_map(|mirror| others(&mirror, "Before"))
        .collect();
    let mut open = others(unit, "After");
    open.push(unit.name.clone());
    let mut seen = BTreeSet::new();
    while let Some(name) = open.pop() {
        if MIRROR_NAMES.contains(&name.as_str()) || before.contains(&name) {
            return true;
        }
        if seen.len() < ORDERED_MAX && seen.insert(name.clone()) && name != unit.name {
            open.extend(units.effective(&name).iter().flat_map(|other| others(other, "After")));
        }
    }
    false
}

/// The paths below this directory that a line names. What only the machine knows, and patterns, are not among them.
fn paths(line: &Line, unit: &str, root: &Path) -> Vec<(String, Without)> {
    let is_a_command = line.key.starts_with("Exec");
    let is_an_assertion = line.key.starts_with("Assert");
    let is_a_test = line.key.starts_with("Condition") || is_an_assertion;
    let is_bound = line.key.starts_with("Bind");
    let is_read = match line.section.as_str() {
        // What must not be there, or may, says nothing.
        "Unit" => is_a_test && !line.value.starts_with(['!', '|']),
        "Service" => is_a_command || READS.contains(&line.key.as_str()),
        _ => false,
    };
    let programs = line.value.split_whitespace().filter_map(|word| word.rsplit('/').next());
    let is_contained = || {
        programs
            .map(|name| name.trim_start_matches(['-', '@', '+', '!', ':']))
            .any(|name| CONTAINERS.contains(&name))
    };
    if !is_read || is_a_command && is_contained() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for word in line.value.split_whitespace() {
        let Some(word) = expanded(word, unit) else { continue };
        let is_optional = word.starts_with('-');
        let parts = word.trim_start_matches('-').split(|c| AROUND.contains(c));
        // What follows is where it is shown.
        let parts = parts.take(if is_bound { 1 } else { usize::MAX });
        let of_ours =
            parts.filter(|part| Path::new(part).starts_with(root) && !part.contains(['*', '?', '$', '\\']));
        found.extend(of_ours.map(|part| {
            let goes_on =
                is_optional || is_a_command || line.key == "Environment" || is_a_test && !is_an_assertion;
            (part.to_owned(), if goes_on { Without::GoesOn } else { Without::Fails })
        }));
    }
    found
}
