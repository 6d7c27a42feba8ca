//! Which units are started because what they lacked is there now.
//!
//! Whoever asked for their start asked once, and it failed for want of a secret; systemd does not try again by itself. A unit is
//! started if
//! - something that is active wants or requires it: a target or a service; what a timer, socket or path starts comes by itself;
//! - an administrator lets it be started, it is not running, and no job of it is queued;
//! - it last ended because of opnix: a condition or assertion on a file of ours failed and no other did; its
//!   `EnvironmentFile=` of ours was not there; or it failed after a refusal that the service remembers ([`crate::server`]).
//!
//! Then come those that require it and failed with it. Nothing is started while the system goes down, or in rescue mode.
//! What cannot be told from a stop by an administrator is not started.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::systemd::manager::{Test, Unit};

/// The states of the system in which units are started.
const UP: [&str; 4] = ["initializing", "starting", "running", "degraded"];
/// What triggers units: these come by themselves.
const TRIGGERS: [&str; 4] = [".timer", ".socket", ".path", ".automount"];
/// Tests that a file can pass by being there.
const ON_FILES: [&str; 2] = ["PathExists", "FileNotEmpty"];
/// What a unit may have failed by, besides a process that lacked its credentials, after a refusal.
const AFTER_A_REFUSAL: [&str; 2] = ["start-limit-hit", "timeout"];
/// What a socket or path failed by whose unit could not start.
const OF_A_TRIGGER: [&str; 4] =
    ["trigger-limit-hit", "service-start-limit-hit", "unit-start-limit-hit", "start-limit-hit"];

/// What opnix provides.
#[derive(Debug, Default)]
pub struct Provided {
    /// The files and links of the mirror, and who is said to read them.
    pub files: BTreeMap<PathBuf, BTreeSet<String>>,
    /// Units that were refused, and whether they would get everything now.
    pub missed: BTreeMap<String, bool>,
}

/// What is remembered of units that could not start. systemd forgets units that nothing refers to, and keeps no word of a start
/// that failed because that of another unit did.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Left {
    /// Units whose assertions failed, with the files of ours that were not there.
    pub files: BTreeMap<String, BTreeSet<PathBuf>>,
    /// Units whose start failed with that of others which opnix provides for.
    pub dependents: BTreeMap<String, BTreeSet<String>>,
    /// Units that lacked something from opnix, and are not seen to be active yet.
    pub lacking: BTreeSet<String>,
}

/// Looks at a unit.
pub trait Look {
    fn unit(&mut self, name: &str) -> Option<Unit>;
}

impl Provided {
    /// The files of ours that must be there for these tests.
    fn files_of<'t>(&self, tests: &'t [Test]) -> BTreeSet<&'t Path> {
        let tests = tests.iter().filter(|test| is_on_a_file(test) && !test.negated);
        let paths = tests.map(|test| Path::new(&test.parameter));
        paths.filter(|path| self.files.contains_key(*path)).collect()
    }

    /// Whether it failed for want of a file of ours that is there now.
    fn lacked_a_file(&self, unit: &Unit) -> bool {
        let is_there = |path: &Path| self.files.contains_key(path) && path.exists();
        match (unit.state(), unit.result()) {
            ("inactive", _) => {
                let mut failed = unit.tests();
                failed.retain(|test| test.failed);
                let is_ours =
                    |test: &Test| is_on_a_file(test) && !test.negated && is_there(Path::new(&test.parameter));
                !failed.is_empty() && failed.iter().all(is_ours)
            }
            ("failed", "resources") => unit.environment_files().any(|path| is_there(Path::new(path))),
            _ => false,
        }
    }

    /// Whether it failed after a refusal, and would get everything now.
    fn was_refused(&self, unit: &Unit) -> bool {
        let would_get = self.missed.get(&unit.id).copied().unwrap_or(false);
        would_get
            && unit.state() == "failed"
            && (unit.may_have_lacked_credentials() || AFTER_A_REFUSAL.contains(&unit.result()))
    }

    /// Whether the configuration says that this unit reads a file that is there. That is as good as a target that wants it, where
    /// nothing else starts it.
    fn is_said_to_read(&self, unit: &Unit) -> bool {
        let reads = self.files.iter().any(|(path, readers)| readers.contains(&unit.id) && path.exists());
        reads && unit.texts("TriggeredBy").next().is_none()
    }
}

fn is_on_a_file(test: &Test) -> bool {
    let kind = test.kind.strip_prefix("Assert").or(test.kind.strip_prefix("Condition"));
    kind.is_some_and(|kind| ON_FILES.contains(&kind))
}

impl Left {
    /// A job of a unit ended.
    pub fn ended(&mut self, name: &str, result: &str, provided: &Provided, look: &mut impl Look) {
        self.files.remove(name);
        self.dependents.remove(name);
        let Some(unit) = (["assert", "dependency"].contains(&result)).then(|| look.unit(name)).flatten()
        else {
            return;
        };
        if result == "assert" {
            let missing: BTreeSet<PathBuf> = provided
                .files_of(&unit.tests())
                .into_iter()
                .filter(|path| !path.exists())
                .map(Path::to_owned)
                .collect();
            if !missing.is_empty() {
                self.files.insert(unit.id, missing);
            }
        } else {
            let down: Vec<Unit> = needs(&unit)
                .filter_map(|name| look.unit(name))
                .filter(|unit| unit.state() != "active")
                .collect();
            if down.iter().any(|unit| self.is_ours(unit, provided)) {
                self.dependents.insert(unit.id.clone(), down.into_iter().map(|unit| unit.id).collect());
            }
        }
    }

    /// Whether opnix provides for a unit.
    fn is_ours(&self, unit: &Unit, provided: &Provided) -> bool {
        self.files.contains_key(&unit.id)
            || self.dependents.contains_key(&unit.id)
            || provided.missed.contains_key(&unit.id)
            || !provided.files_of(&unit.tests()).is_empty()
            || unit.environment_files().any(|path| provided.files.contains_key(Path::new(path)))
    }

    /// What is to be started now, in this order, of units that are inactive or failed. `may_start` says whether it is not too
    /// early to start one again.
    pub fn next_starts(
        &mut self,
        down: &[String],
        provided: &Provided,
        may_start: impl Fn(&str) -> bool,
        look: &mut impl Look,
    ) -> Vec<String> {
        let mut units: BTreeMap<String, Unit> = BTreeMap::new();
        self.lacking.extend(provided.missed.keys().cloned());
        for name in down {
            let Some(unit) = look.unit(name) else { continue };
            let ours = provided.files_of(&unit.tests()).iter().any(|path| !path.exists());
            if ours {
                self.lacking.insert(unit.id.clone());
            }
            let (file, refused) = (provided.lacked_a_file(&unit), provided.was_refused(&unit));
            if !file && !refused {
                continue;
            }
            if is_startable(&unit)
                && may_start(&unit.id)
                && (is_wanted(&unit, look) || file && provided.is_said_to_read(&unit))
            {
                units.insert(unit.id.clone(), unit.clone());
            }
            for name in unit.texts("TriggeredBy") {
                let Some(trigger) = look.unit(name) else { continue };
                let is_down = trigger.state() == "failed" && OF_A_TRIGGER.contains(&trigger.result());
                if is_down && is_startable(&trigger) && is_wanted(&trigger, look) {
                    units.insert(trigger.id.clone(), trigger);
                }
            }
        }
        let there = |paths: &BTreeSet<PathBuf>| paths.iter().all(|path| path.exists());
        let ready: Vec<String> =
            self.files.iter().filter(|(_, paths)| there(paths)).map(|(name, _)| name.clone()).collect();
        for name in ready {
            self.files.remove(&name);
            let Some(unit) = look.unit(&name) else { continue };
            if unit.state() == "inactive"
                && is_startable(&unit)
                && (is_wanted(&unit, look) || provided.is_said_to_read(&unit))
            {
                units.insert(unit.id.clone(), unit);
            }
        }
        for unit in self.dependents_to_start(look) {
            units.insert(unit.id.clone(), unit);
        }
        self.lacking.extend(units.keys().cloned());
        in_order(units)
    }

    /// Those that require a unit which lacked something, and has come up.
    fn dependents_to_start(&mut self, look: &mut impl Look) -> Vec<Unit> {
        let mut all = Vec::new();
        let mut up = |name: &str| look.unit(name).filter(|unit| unit.state() == "active");
        let came: Vec<Unit> = self.lacking.iter().filter_map(|name| up(name)).collect();
        let whole: Vec<String> = self
            .dependents
            .iter()
            .filter(|(_, needs)| needs.iter().all(|name| up(name).is_some()))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &whole {
            self.dependents.remove(name);
            all.extend(look.unit(name).filter(|unit| unit.state() == "inactive"));
        }
        for unit in came {
            self.lacking.remove(&unit.id);
            let requiring =
                ["RequiredBy", "BoundBy", "RequisiteOf"].into_iter().flat_map(|kind| unit.texts(kind));
            let dependents = requiring.filter_map(|name| look.unit(name));
            // No property tells that its start failed with another: but one that was never active was not stopped.
            all.extend(dependents.filter(|unit| {
                unit.state() == "inactive"
                    && !unit.was_active()
                    && unit.tests().iter().all(|test| !test.failed)
            }));
        }
        all.retain(|unit| is_startable(unit) && is_wanted(unit, look));
        all
    }
}

/// Whether units are started at all while the system is in this state.
pub fn is_up(system: &str) -> bool {
    UP.contains(&system)
}

pub fn is_startable(unit: &Unit) -> bool {
    unit.may_start() && !unit.has_job()
}

/// What a unit cannot be without.
fn needs(unit: &Unit) -> impl Iterator<Item = &str> {
    ["Requires", "BindsTo", "Requisite"].into_iter().flat_map(|kind| unit.texts(kind))
}

/// Whether something that is up wants this unit.
pub fn is_wanted(unit: &Unit, look: &mut impl Look) -> bool {
    wanted(unit, look, &mut BTreeSet::new())
}

fn wanted(unit: &Unit, look: &mut impl Look, seen: &mut BTreeSet<String>) -> bool {
    if !seen.insert(unit.id.clone()) {
        return false;
    }
    let names =
        ["WantedBy", "RequiredBy", "RequisiteOf", "BoundBy", "UpheldBy"].into_iter().flat_map(|kind| {
            let names =
                unit.texts(kind).filter(|name| !TRIGGERS.iter().any(|trigger| name.ends_with(trigger)));
            names.map(move |name| (kind, name))
        });
    for (kind, name) in names {
        let Some(other) = look.unit(name) else { continue };
        let is_up = match other.state() {
            "active" | "activating" | "reloading" | "refreshing" => true,
            // It may have failed because this unit did; and a target waits for what it wants.
            "inactive" => {
                other.has_job()
                    || (!kind.starts_with("Wanted") && is_startable(&other) && wanted(&other, look, seen))
            }
            _ => false,
        };
        if is_up {
            return true;
        }
    }
    false
}

/// Those that come after others are started after them.
fn in_order(mut units: BTreeMap<String, Unit>) -> Vec<String> {
    let mut ordered = Vec::new();
    while let Some(next) = units
        .values()
        .find(|unit| !unit.texts("After").any(|other| other != unit.id && units.contains_key(other)))
        // A cycle has no order.
        .or_else(|| units.values().next())
        .map(|unit| unit.id.clone())
    {
        units.remove(&next);
        ordered.push(next);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systemd::bus::Value;

    /// A machine's units, as its service manager tells of them.
    #[derive(Default)]
    struct Units(BTreeMap<String, BTreeMap<&'static str, Value>>);

    impl Look for Units {
        fn unit(&mut self, name: &str) -> Option<Unit> {
            let properties: Vec<_> =
                self.0.get(name)?.iter().map(|(name, value)| (*name, value.clone())).collect();
            Some(Unit::made_up(name, &properties))
        }
    }

    fn texts(texts: &[&str]) -> Value {
        Value::List(texts.iter().map(|text| Value::Text((*text).into())).collect())
    }

    fn job(id: i128) -> Value {
        Value::List(vec![Value::Number(id), Value::Text("/".into())])
    }

    fn tests_of(tests: &[(&str, &Path, bool, i128)]) -> Value {
        let test = |(kind, path, negated, state): &(&str, &Path, bool, i128)| {
            Value::List(vec![
                Value::Text((*kind).into()),
                Value::Flag(false),
                Value::Flag(*negated),
                Value::Text(path.display().to_string()),
                Value::Number(*state),
            ])
        };
        Value::List(tests.iter().map(test).collect())
    }

    impl Units {
        fn with(mut self, name: &str, properties: &[(&'static str, Value)]) -> Self {
            let text = |text: &str| Value::Text(text.into());
            let mut all = BTreeMap::from([
                ("ActiveState", text("inactive")),
                ("LoadState", text("loaded")),
                ("UnitFileState", text("enabled")),
                ("Result", text("success")),
                ("Job", job(0)),
            ]);
            all.extend(properties.iter().cloned());
            self.0.insert(name.into(), all);
            self
        }

        fn set(&mut self, name: &str, property: &'static str, value: Value) {
            self.0.get_mut(name).unwrap().insert(property, value);
        }
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    fn target() -> [(&'static str, Value); 1] {
        [("ActiveState", text("active"))]
    }

    /// A file that is there, one that is not, and one that is nobody's.
    fn files() -> (PathBuf, PathBuf, PathBuf) {
        (
            PathBuf::from("/proc/self/status"),
            PathBuf::from("/proc/self/no-such-file"),
            PathBuf::from("/proc/version"),
        )
    }

    fn provided() -> Provided {
        let (there, away, _) = files();
        Provided {
            files: [(there, BTreeSet::new()), (away, BTreeSet::new())].into(),
            missed: BTreeMap::new(),
        }
    }

    fn starts(units: &mut Units, provided: &Provided) -> Vec<String> {
        let down: Vec<String> = units.0.keys().cloned().collect();
        Left::default().next_starts(&down, provided, |_| true, units)
    }

    /// A unit whose assertion on a file of ours failed.
    fn reader(more: &[(&'static str, Value)]) -> Units {
        let (there, ..) = files();
        let asserts = tests_of(&[("AssertPathExists", &there, false, -1)]);
        let mut all = vec![("Asserts", asserts), ("WantedBy", texts(&["multi-user.target"]))];
        all.extend(more.iter().cloned());
        Units::default().with("multi-user.target", &target()).with("a.service", &all)
    }

    #[test]
    fn a_unit_that_lacked_a_file_starts_when_it_is_there() {
        assert_eq!(starts(&mut reader(&[]), &provided()), ["a.service"]);
    }

    #[test]
    fn what_an_administrator_or_anything_else_keeps_down_stays_down() {
        let (there, away, other) = files();
        let failed = |path: &Path| ("AssertPathExists", path.to_owned(), false, -1);
        let asserts = |tests: &[(&str, PathBuf, bool, i128)]| {
            let tests: Vec<_> = tests
                .iter()
                .map(|(kind, path, negated, state)| (*kind, path.as_path(), *negated, *state))
                .collect();
            ("Asserts", tests_of(&tests))
        };
        let cases: [(&str, Vec<(&'static str, Value)>); 12] = [
            ("it was stopped while it ran", vec![asserts(&[("AssertPathExists", there.clone(), false, 1)])]),
            ("it was never started", vec![asserts(&[("AssertPathExists", there.clone(), false, 0)])]),
            ("its file is not there", vec![asserts(&[failed(&away)])]),
            ("another assertion failed too", vec![asserts(&[failed(&there), failed(&other)])]),
            ("it waits for a file to go", vec![asserts(&[("AssertPathExists", there.clone(), true, -1)])]),
            ("it is disabled", vec![("UnitFileState", text("disabled"))]),
            ("it is masked", vec![("LoadState", text("masked")), ("UnitFileState", text("masked"))]),
            ("it has a job", vec![("Job", job(7))]),
            ("it runs", vec![("ActiveState", text("active"))]),
            ("nothing wants it", vec![("WantedBy", texts(&[]))]),
            ("only a timer wants it", vec![("WantedBy", texts(&["a.timer"]))]),
            ("what wants it is down", vec![("WantedBy", texts(&["rescue.target"]))]),
        ];
        for (why, more) in cases {
            let mut units = reader(&more).with("a.timer", &target()).with("rescue.target", &[]);
            assert!(starts(&mut units, &provided()).is_empty(), "{why}");
        }
        for system in ["stopping", "maintenance", "offline", "unknown", ""] {
            assert!(!is_up(system));
        }
        let down = ["a.service".to_owned()];
        assert!(Left::default().next_starts(&down, &provided(), |_| false, &mut reader(&[])).is_empty());
    }

    #[test]
    fn a_unit_that_was_refused_starts_when_it_would_get_everything() {
        let refused = |result: &str, status: i128, state: &str| {
            Units::default().with("multi-user.target", &target()).with(
                "a.service",
                &[
                    ("WantedBy", texts(&["multi-user.target"])),
                    ("ActiveState", text(state)),
                    ("Result", text(result)),
                    ("ExecMainCode", Value::Number(1)),
                    ("ExecMainStatus", Value::Number(status)),
                ],
            )
        };
        let missed =
            |ready| Provided { missed: [("a.service".to_owned(), ready)].into(), ..Provided::default() };
        let started = ["a.service"];
        assert_eq!(starts(&mut refused("exit-code", 243, "failed"), &missed(true)), started);
        assert_eq!(starts(&mut refused("start-limit-hit", 1, "failed"), &missed(true)), started);
        assert_eq!(starts(&mut refused("timeout", 0, "failed"), &missed(true)), started);
        let step = |code, status| {
            let command = Value::List(vec![text("/bin/true"), Value::Number(code), Value::Number(status)]);
            let mut units = refused("exit-code", 0, "failed");
            units.set("a.service", "ExecMainCode", Value::Number(0));
            units.set("a.service", "ExecStartPre", Value::List(vec![command]));
            units
        };
        assert_eq!(starts(&mut step(1, 243), &missed(true)), started);
        assert_eq!(starts(&mut step(0, 0), &missed(true)), started, "systemd forgot how it ended");
        assert!(starts(&mut step(1, 1), &missed(true)).is_empty());
        let nothing = [
            (refused("exit-code", 243, "failed"), missed(false)),
            (refused("exit-code", 243, "failed"), Provided::default()),
            (refused("exit-code", 1, "failed"), missed(true)),
            (refused("exit-code", 243, "inactive"), missed(true)),
            (refused("exit-code", 243, "activating"), missed(true)),
        ];
        for (mut units, provided) in nothing {
            assert!(starts(&mut units, &provided).is_empty());
        }
    }

    #[test]
    fn what_a_socket_starts_comes_by_itself_unless_the_socket_gave_up() {
        let units = |socket: &str, result: &str| {
            Units::default()
                .with("sockets.target", &target())
                .with(
                    "a.socket",
                    &[
                        ("ActiveState", text(socket)),
                        ("Result", text(result)),
                        ("WantedBy", texts(&["sockets.target"])),
                    ],
                )
                .with(
                    "a.service",
                    &[
                        ("TriggeredBy", texts(&["a.socket"])),
                        ("ActiveState", text("failed")),
                        ("Result", text("exit-code")),
                        ("ExecMainCode", Value::Number(1)),
                        ("ExecMainStatus", Value::Number(243)),
                    ],
                )
        };
        let provided = Provided { missed: [("a.service".to_owned(), true)].into(), ..Provided::default() };
        assert!(starts(&mut units("active", "success"), &provided).is_empty());
        assert_eq!(starts(&mut units("failed", "trigger-limit-hit"), &provided), ["a.socket"]);
        assert!(starts(&mut units("failed", "resources"), &provided).is_empty());
    }

    #[test]
    fn a_unit_that_systemd_forgot_is_remembered_and_started_where_the_configuration_names_it() {
        let (there, away, _) = files();
        // The tests of a unit that is read anew have no result.
        let asserts = ("Asserts", tests_of(&[("AssertPathExists", &there, false, 0)]));
        let mut units =
            Units::default().with("a.service", &[asserts.clone(), ("UnitFileState", text("static"))]);
        let named = |unit: &str| {
            let mut provided = provided();
            provided.files.get_mut(&there).unwrap().insert(unit.into());
            provided
        };
        let mut left = Left::default();
        left.files.insert("a.service".into(), [there.clone()].into());
        assert!(left.next_starts(&[], &named("b.service"), |_| true, &mut units).is_empty());
        left.files.insert("a.service".into(), [there.clone()].into());
        assert_eq!(left.next_starts(&[], &named("a.service"), |_| true, &mut units), ["a.service"]);
        assert!(left.next_starts(&[], &named("a.service"), |_| true, &mut units).is_empty(), "once");
        // It is noted when its start fails, and forgotten when it succeeds.
        let mut units = Units::default()
            .with("a.service", &[("Asserts", tests_of(&[("AssertPathExists", &away, false, 0)]))]);
        left.ended("a.service", "assert", &provided(), &mut units);
        assert_eq!(left.files["a.service"], [away].into());
        left.ended("a.service", "done", &provided(), &mut units);
        assert!(left.files.is_empty());
        let mut units = Units::default().with("a.service", &[asserts]);
        left.ended("a.service", "assert", &provided(), &mut units);
        assert!(left.files.is_empty(), "its file was there");
    }

    #[test]
    fn those_that_require_it_come_after_it() {
        let mut units = reader(&[("RequiredBy", texts(&["b.service"])), ("WantedBy", texts(&[]))]).with(
            "b.service",
            &[("WantedBy", texts(&["multi-user.target"])), ("Requires", texts(&["a.service"]))],
        );
        let down = ["a.service".to_owned(), "b.service".to_owned()];
        let mut left = Left::default();
        assert_eq!(left.next_starts(&down, &provided(), |_| true, &mut units), ["a.service"], "what b needs");
        units.set("a.service", "ActiveState", text("active"));
        assert_eq!(left.next_starts(&down[1..], &provided(), |_| true, &mut units), ["b.service"]);
        assert!(left.next_starts(&down[1..], &provided(), |_| true, &mut units).is_empty(), "once");
        // One that ran may have been stopped.
        left.lacking.insert("a.service".into());
        units.set("b.service", "ActiveEnterTimestampMonotonic", Value::Number(5));
        assert!(left.next_starts(&down[1..], &provided(), |_| true, &mut units).is_empty());
        // Unless its start was seen to fail with that of the other.
        units.set("a.service", "ActiveState", text("failed"));
        left.ended("b.service", "dependency", &provided(), &mut units);
        assert!(left.next_starts(&down[1..], &provided(), |_| true, &mut units).is_empty());
        units.set("a.service", "ActiveState", text("active"));
        assert_eq!(left.next_starts(&down[1..], &provided(), |_| true, &mut units), ["b.service"]);
    }

    #[test]
    fn a_failure_with_a_unit_that_opnix_knows_nothing_of_is_none_of_ours() {
        let mut units = Units::default().with("a.service", &[("ActiveState", text("failed"))]).with(
            "b.service",
            &[("Requires", texts(&["a.service"])), ("WantedBy", texts(&["multi-user.target"]))],
        );
        let mut left = Left::default();
        left.ended("b.service", "dependency", &provided(), &mut units);
        assert!(left.dependents.is_empty());
    }

    #[test]
    fn the_order_is_that_of_after() {
        let mut units = Units::default()
            .with("a.service", &[("After", texts(&["b.service", "x.target"]))])
            .with("b.service", &[("After", texts(&["c.service"]))])
            .with("c.service", &[]);
        let all = ["a.service", "b.service", "c.service"];
        let units = all.map(|name| (name.to_owned(), units.unit(name).unwrap())).into();
        assert_eq!(in_order(units), ["c.service", "b.service", "a.service"]);
    }
}
