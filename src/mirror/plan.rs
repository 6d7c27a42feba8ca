//! What is to be done, from what was and what is to be. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{Config, MirrorFile, OnChange};

/// The known contents: of each a keyed hash of its value, under the name that the mirror asks for it by.
pub type Contents = BTreeMap<String, String>;

/// A file as it was last written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The name of its content.
    pub content: String,
    /// The keyed hash of its value.
    pub fingerprint: String,
    pub owner: String,
    pub group: String,
    pub mode: u32,
    pub symlinks: Vec<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The files to write, by path.
    pub write: BTreeMap<PathBuf, Written>,
    /// Files that left the configuration.
    pub remove: Vec<PathBuf>,
    /// The files whose content changes.
    changed: BTreeSet<PathBuf>,
    /// What to do with units whose credentials changed.
    units: BTreeMap<String, OnChange>,
    /// The contents that the configuration wants here.
    pub known: BTreeSet<String>,
}

/// `seen` is what each content was when it was last looked at, `files` what was written; `exists` says whether a file is there.
pub fn plan(
    config: &Config,
    contents: &Contents,
    seen: &Contents,
    files: &BTreeMap<PathBuf, Written>,
    exists: impl Fn(&Path) -> bool,
) -> Plan {
    let mut plan = Plan::default();
    // A first appearance is not a change, and what could not be had counts as unchanged.
    let changed = |name: &str| match (seen.get(name), contents.get(name)) {
        (Some(before), Some(now)) => before != now,
        _ => false,
    };
    for file in &config.files {
        let name = file.entry.content.mirror_name().to_string();
        if let Some(fingerprint) = contents.get(&name) {
            let written = written(file, &name, fingerprint);
            let before = files.get(&file.path);
            let is_changed = before.map_or_else(
                || changed(&name),
                |before| before.content == name && before.fingerprint != *fingerprint,
            );
            if is_changed {
                plan.changed.insert(file.path.clone());
            }
            if before != Some(&written) || !exists(&file.path) {
                plan.write.insert(file.path.clone(), written);
            }
        }
        plan.known.insert(name);
    }
    for change in &config.changes {
        let name = change.entry.content.mirror_name().to_string();
        if changed(&name) {
            act(&mut plan.units, change.units.to_string(), &change.action);
        }
        plan.known.insert(name);
    }
    let wanted: BTreeSet<&PathBuf> = config.files.iter().map(|file| &file.path).collect();
    plan.remove = files.keys().filter(|path| !wanted.contains(path)).cloned().collect();
    plan
}

fn written(file: &MirrorFile, content: &str, fingerprint: &str) -> Written {
    Written {
        content: content.to_owned(),
        fingerprint: fingerprint.to_owned(),
        owner: file.owner.clone(),
        group: file.group.clone(),
        mode: file.mode,
        symlinks: file.symlinks.clone(),
    }
}

impl Plan {
    /// What to do with units, each once: a unit's name, or a pattern for all instances of a template. Who reads a file is told
    /// when it has the new content, not before.
    pub fn units(&self, config: &Config, has_it: impl Fn(&Path) -> bool) -> BTreeMap<String, OnChange> {
        let mut units = self.units.clone();
        let told = config.files.iter().filter(|file| self.changed.contains(&file.path) && has_it(&file.path));
        for (unit, action) in told.flat_map(|file| &file.services) {
            act(&mut units, unit.to_string(), action);
        }
        units
    }
}

/// The greatest of several actions counts.
fn act(units: &mut BTreeMap<String, OnChange>, unit: String, action: &OnChange) {
    if *action != OnChange::Nothing {
        let planned = units.entry(unit).or_insert_with(|| action.clone());
        *planned = planned.clone().max(action.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let path = std::env::temp_dir().join(format!("opnix-plan-{:?}.json", std::thread::current().id()));
        std::fs::write(&path, text).unwrap();
        let config = crate::config::load(std::slice::from_ref(&path)).unwrap();
        std::fs::remove_file(path).unwrap();
        config
    }

    fn does_nothing(plan: &Plan) -> bool {
        plan.write.is_empty() && plan.remove.is_empty() && plan.changed.is_empty() && plan.units.is_empty()
    }

    fn contents(config: &Config, version: &str) -> Contents {
        let entries =
            config.files.iter().map(|file| &file.entry).chain(config.changes.iter().map(|c| &c.entry));
        entries.map(|entry| (entry.content.mirror_name().to_string(), version.to_owned())).collect()
    }

    const TWO: &str = r#"{"secrets": [
        {"name": "a", "reference": "op://v/i/a", "path": "a", "services": {"web": {}, "app": {"signal": "SIGHUP"}},
         "units": [{"unit": "web.service", "on_change": "reload"}, {"unit": "x@*.service", "on_change": "restart"}, "quiet.service"]},
        {"name": "b", "reference": "op://v/i/b", "path": "b", "services": ["web", "app"]}]}"#;

    #[test]
    fn a_first_appearance_writes_files_and_touches_no_unit() {
        let config = config(TWO);
        let plan = plan(&config, &contents(&config, "1"), &Contents::new(), &BTreeMap::new(), |_| false);
        assert_eq!(plan.write.len(), 2);
        assert!(plan.units(&config, |_| true).is_empty() && plan.remove.is_empty());
    }

    #[test]
    fn a_change_acts_on_each_unit_once_with_the_greatest_of_its_actions() {
        let config = config(TWO);
        let first = contents(&config, "1");
        let written = plan(&config, &first, &Contents::new(), &BTreeMap::new(), |_| false).write;
        let same = plan(&config, &first, &first, &written, |_| true);
        assert!(does_nothing(&same), "{same:?}");
        let both = plan(&config, &contents(&config, "2"), &first, &written, |_| true);
        assert_eq!(both.write.len(), 2);
        let all = both.units(&config, |_| true);
        let units: Vec<(&str, &OnChange)> =
            all.iter().map(|(unit, action)| (unit.as_str(), action)).collect();
        assert_eq!(
            units,
            [
                ("app.service", &OnChange::Restart),
                ("web.service", &OnChange::Restart),
                ("x@*.service", &OnChange::Restart)
            ]
        );
        let mut only_a = first.clone();
        only_a.insert(config.files[0].entry.content.mirror_name().to_string(), "2".to_owned());
        let one = plan(&config, &only_a, &first, &written, |_| true);
        assert_eq!(one.write.len(), 1);
        assert_eq!(one.units(&config, |_| true)["app.service"], OnChange::Signal("SIGHUP".parse().unwrap()));
        // Who reads a file that could not be written is told when it is.
        let without = both.units(&config, |path| !path.ends_with("a"));
        assert_eq!(without["app.service"], OnChange::Restart);
        assert!(!one.units(&config, |_| false).contains_key("app.service"));
        let later = plan(&config, &only_a, &only_a, &written, |_| true);
        assert_eq!(later.units(&config, |_| true).len(), 2, "although the value is known by now");
    }

    #[test]
    fn what_cannot_be_had_changes_nothing() {
        let config = config(TWO);
        let first = contents(&config, "1");
        let written = plan(&config, &first, &Contents::new(), &BTreeMap::new(), |_| false).write;
        let none = plan(&config, &Contents::new(), &first, &written, |_| true);
        assert!(does_nothing(&none), "{none:?}");
    }

    #[test]
    fn files_that_are_gone_or_to_be_otherwise_are_written_and_those_that_left_are_removed() {
        let config = config(TWO);
        let first = contents(&config, "1");
        let written = plan(&config, &first, &Contents::new(), &BTreeMap::new(), |_| false).write;
        assert_eq!(plan(&config, &first, &first, &written, |path| !path.ends_with("a")).write.len(), 1);
        let other = self::config(&TWO.replace("\"path\": \"b\"", "\"path\": \"b\", \"mode\": \"0440\""));
        assert_eq!(plan(&other, &first, &first, &written, |_| true).write.len(), 1);
        let moved = self::config(&TWO.replace("\"path\": \"b\"", "\"path\": \"c\""));
        let moved = plan(&moved, &first, &first, &written, |_| true);
        assert_eq!(moved.remove, [PathBuf::from("/run/secrets/b")]);
        assert_eq!(moved.write.keys().collect::<Vec<_>>(), [&PathBuf::from("/run/secrets/c")]);
        assert!(moved.units(&config, |_| true).is_empty());
    }
}
