//! Who is to be told of what, from what was and what is. Pure.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::install::Mark;
use crate::config::{Config, OnChange};
use crate::systemd::manager::Unit;
use crate::template::Template;

/// The known contents: of each a keyed hash of its value, under the name that the mirror asks for it by.
pub type Contents = BTreeMap<String, String>;

/// Stands for the hash of what is another value each time.
pub const MOMENTARY: &str = "momentary";

/// A file as it was last written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The keyed hash of its value; empty: it is not known.
    pub fingerprint: String,
    /// The numbers of its owner and group.
    #[serde(default)]
    pub ids: Option<(u32, u32)>,
    pub mode: u32,
    /// `None`: it was to be written, and nobody knows what became of it.
    #[serde(default)]
    pub mark: Option<Mark>,
    /// The keyed hash of what was being written over it.
    #[serde(default)]
    pub coming: Option<String>,
    /// The mirror's name for what it holds; empty: an older opnix did not remember it.
    #[serde(default)]
    pub content: String,
    /// As an older opnix remembered them.
    #[serde(default, skip_serializing)]
    pub symlinks: Vec<PathBuf>,
}

/// Whether those who read a file are to be told of it. `seen` is what its value was when it was last looked at.
pub fn is_news(before: Option<&Written>, now: &Written, seen: Option<&String>) -> bool {
    match before {
        Some(before) if !before.fingerprint.is_empty() => {
            let others = before.ids.is_some() && before.ids != now.ids || before.mode != now.mode;
            before.fingerprint != now.fingerprint || others
        }
        // A first appearance is not a change.
        _ => seen.is_some_and(|seen| *seen != now.fingerprint),
    }
}

/// What to do with a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Remembered")]
pub struct Task {
    pub action: OnChange,
    /// Those of its credentials that changed. It goes on with the old ones until it is given the new ones.
    pub credentials: BTreeSet<String>,
    /// Only if it has not been started since then, by [`Unit::started_at`].
    pub unless_started_since: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Remembered {
    Task {
        action: OnChange,
        credentials: BTreeSet<String>,
        unless_started_since: Option<i64>,
    },
    /// By an older opnix.
    Action(OnChange),
}

impl From<Remembered> for Task {
    fn from(remembered: Remembered) -> Self {
        match remembered {
            Remembered::Task { action, credentials, unless_started_since } => {
                Self { action, credentials, unless_started_since }
            }
            Remembered::Action(action) => Self::of_a_file(&action),
        }
    }
}

/// What to do, each once: by the name of a unit, or a pattern for all instances of a template.
pub type Tasks = BTreeMap<String, Task>;

/// What to do with units. `files` are those of which their readers are to be told, `seen` is what each content was when it was
/// last looked at.
pub fn units(config: &Config, files: &BTreeSet<PathBuf>, contents: &Contents, seen: &Contents) -> Tasks {
    let mut units = Tasks::new();
    for change in &config.changes {
        let name = change.entry.content.mirror_name();
        // What could not be had counts as unchanged.
        if let (Some(before), Some(now)) = (seen.get(name.as_str()), contents.get(name.as_str()))
            && before != now
        {
            let task = Task {
                action: change.action.clone(),
                credentials: BTreeSet::from([change.credential.to_string()]),
                unless_started_since: None,
            };
            add(&mut units, change.units.to_string(), task);
        }
    }
    let told = config.files.iter().filter(|file| files.contains(&file.path));
    for (unit, action) in told.flat_map(|file| &file.services) {
        add(&mut units, unit.to_string(), Task::of_a_file(action));
    }
    units
}

impl Task {
    /// A file that the unit reads changed.
    pub fn of_a_file(action: &OnChange) -> Self {
        Self { action: action.clone(), credentials: BTreeSet::new(), unless_started_since: None }
    }

    /// Restarts a unit that was told otherwise before, if it has not been started since.
    pub fn then_restart(unit: &Unit) -> Self {
        let unless_started_since = i64::try_from(unit.started_at()).ok();
        Self { unless_started_since, ..Self::of_a_file(&OnChange::Restart) }
    }
}

/// The greatest of several actions counts.
pub fn add(units: &mut Tasks, unit: String, task: Task) {
    if task.action == OnChange::Nothing {
        return;
    }
    match units.entry(unit) {
        Entry::Vacant(entry) => drop(entry.insert(task)),
        Entry::Occupied(mut entry) => {
            let planned = entry.get_mut();
            planned.action = planned.action.clone().max(task.action);
            planned.credentials.extend(task.credentials);
            // What is new concerns one that was started since, too.
            planned.unless_started_since = planned.unless_started_since.min(task.unless_started_since);
        }
    }
}

pub fn is_momentary(content: &Template) -> bool {
    content.references().any(|reference| reference.is_momentary())
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
    fn a_change_acts_on_each_unit_once_with_the_greatest_of_its_actions() {
        let config = config(TWO);
        let (first, second) = (contents(&config, "1"), contents(&config, "2"));
        let all: BTreeSet<PathBuf> = config.files.iter().map(|file| file.path.clone()).collect();
        let none = BTreeSet::new();
        assert!(units(&config, &none, &first, &Contents::new()).is_empty(), "a first appearance");
        assert!(units(&config, &none, &first, &first).is_empty());
        assert!(units(&config, &none, &Contents::new(), &first).is_empty(), "what cannot be had");
        let both = units(&config, &all, &second, &first);
        let credentials: Vec<_> = both["web.service"].credentials.iter().collect();
        assert_eq!(credentials, ["a"]);
        assert!(both["app.service"].credentials.is_empty());
        let both: Vec<(&str, &OnChange)> =
            both.iter().map(|(unit, task)| (unit.as_str(), &task.action)).collect();
        assert_eq!(
            both,
            [
                ("app.service", &OnChange::Restart),
                ("web.service", &OnChange::Restart),
                ("x@*.service", &OnChange::Restart)
            ]
        );
        let only_a = BTreeSet::from([config.files[0].path.clone()]);
        let one = units(&config, &only_a, &second, &second);
        assert_eq!(one["app.service"].action, OnChange::Signal("SIGHUP".parse().unwrap()));
        assert_eq!(one.len(), 2);
    }

    #[test]
    fn what_an_older_opnix_planned_is_understood() {
        let tasks: Tasks = serde_json::from_str(r#"{"a": "Restart", "b": {"Signal": "SIGHUP"}}"#).unwrap();
        assert_eq!(tasks["a"], Task::of_a_file(&OnChange::Restart));
        assert_eq!(tasks["b"].action, OnChange::Signal("SIGHUP".parse().unwrap()));
        let credentials = BTreeSet::from(["key".to_owned()]);
        let task = Task { action: OnChange::Reload, credentials, unless_started_since: Some(7) };
        let own = Tasks::from([("c".to_owned(), task)]);
        let text = serde_json::to_string(&own).unwrap();
        assert_eq!(serde_json::from_str::<Tasks>(&text).unwrap(), own);
    }

    #[test]
    fn a_file_is_news_if_it_was_written_otherwise_and_not_when_it_comes_to_be() {
        let now = Written { fingerprint: "new".into(), ids: Some((1, 2)), mode: 0o400, ..Written::default() };
        assert!(!is_news(None, &now, None) && !is_news(None, &now, Some(&"new".into())));
        assert!(is_news(None, &now, Some(&"old".into())), "known, and written for the first time");
        assert!(!is_news(Some(&now), &now, Some(&"old".into())));
        // As an older opnix remembered it, or one before the reboot.
        assert!(!is_news(Some(&Written { ids: None, ..now.clone() }), &now, None));
        assert!(!is_news(Some(&Written::default()), &now, None));
        for before in [
            Written { fingerprint: "old".into(), ..now.clone() },
            Written { ids: Some((0, 2)), ..now.clone() },
            Written { mode: 0o440, ..now.clone() },
        ] {
            assert!(is_news(Some(&before), &now, None), "{before:?}");
        }
    }
}
