//! The files of the mirror that a unit names: they may not be there yet, or never.

use std::path::Path;

use super::credentials::{Source, expanded};
use super::units::{Report, Unit};
use crate::config::Config;
use crate::policy::MIRROR;
use crate::systemd::unit_files::Line;

/// The mirror's unit, and what OpNix calls it.
const MIRROR_NAMES: [&str; 2] = [MIRROR, "opnix-secrets.service"];
/// What names files that are read, besides commands.
const READS: [&str; 5] =
    ["EnvironmentFile", "Environment", "StandardInput", "BindPaths", "BindReadOnlyPaths"];
/// What these run has directories of its own.
const CONTAINERS: [&str; 4] = ["podman", "docker", "nerdctl", "systemd-nspawn"];
/// What may stand before or after a path in a word.
const AROUND: [char; 7] = ['"', '\'', ':', ',', ';', '=', '|'];

pub fn read(unit: &Unit<'_>, config: &Config, report: &mut Report) {
    if !config.needs_memory() {
        // What is there is somebody else's.
        return;
    }
    let lines = &unit.files.lines;
    let is_after = lines.iter().any(|line| {
        let mut others = line.value.split_whitespace();
        line.section == "Unit" && line.key == "After" && others.any(|other| MIRROR_NAMES.contains(&other))
    });
    for line in in_effect(lines) {
        for path in paths(line, &unit.files.name, &config.mirror_root) {
            let path = Path::new(&path);
            let mut written = config.files.iter().flat_map(|file| file.symlinks.iter().chain([&file.path]));
            // A directory with files in it will do.
            let is_written = written.any(|written| written.starts_with(path));
            let (units, shown) = (&unit.units, path.display());
            let may_go_without = line.key.starts_with("Exec") || line.key == "Environment";
            if !is_written && may_go_without {
                let what = format!("{units} names {shown}, which opnix does not write");
                report.warning(&line.place, what, "correct it, or write it: `path` of a secret or template");
            } else if !is_written {
                let what = format!("{units} reads {shown}, which opnix does not write");
                report.fault(&line.place, what, "correct it, or write it: `path` of a secret or template");
            } else if !is_after {
                let what = format!("{units} reads {shown}, and may start before it is there");
                let remedy = "Wants=opnix-mirror.service and After=opnix-mirror.service in [Unit]";
                report.warning(&line.place, what, remedy);
            }
        }
    }
    for loaded in unit.credentials.loaded.values() {
        let Source::Path(path) = &loaded.source else { continue };
        let mut written = config.files.iter().flat_map(|file| file.symlinks.iter().chain([&file.path]));
        if Path::new(path).starts_with(&config.mirror_root)
            && !written.any(|written| written.starts_with(path))
        {
            let what = format!("{} loads {path}, which opnix does not write", unit.units);
            report.fault(&loaded.place, what, "correct it, or write it: `path` of a secret or template");
        }
    }
}

/// Without what an empty assignment takes back.
fn in_effect(lines: &[Line]) -> Vec<&Line> {
    let mut all: Vec<&Line> = Vec::new();
    for line in lines {
        if line.value.is_empty() {
            all.retain(|before| (&before.section, &before.key) != (&line.section, &line.key));
        } else {
            all.push(line);
        }
    }
    all
}

/// The paths below this directory that a line names. What only the machine knows, and patterns, are not among them.
fn paths(line: &Line, unit: &str, root: &Path) -> Vec<String> {
    let is_a_test = line.key.starts_with("Condition") || line.key.starts_with("Assert");
    let is_read = match line.section.as_str() {
        // What must not be there, or may, says nothing.
        "Unit" => is_a_test && !line.value.starts_with(['!', '|']),
        "Service" => line.key.starts_with("Exec") || READS.contains(&line.key.as_str()),
        _ => false,
    };
    if !is_read {
        return Vec::new();
    }
    let words = line.value.split_whitespace();
    let program = words.clone().next().unwrap_or_default().rsplit(['/', '@', '-', '+', '!']).next();
    if line.key.starts_with("Exec") && program.is_some_and(|program| CONTAINERS.contains(&program)) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for word in words {
        let Some(word) = expanded(word, unit) else { continue };
        let parts = word.trim_start_matches('-').split(AROUND).map(str::to_owned);
        found.extend(
            parts.filter(|part| {
                Path::new(part).starts_with(root) && !part.contains(['*', '?', '[', '$', '\\'])
            }),
        );
    }
    found
}
