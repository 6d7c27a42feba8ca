//! Which units are started because what they lacked is there now.
//!
//! Whoever asked for their start asked once, and it failed for want of a secret; systemd does not try again by itself. A unit is
//! started if
//! - something that is active wants or requires it: a target or a service; what a timer, socket or path starts comes by itself;
//! - an administrator lets it be started, it is not running, no job of it is queued, and it would stop nothing that runs;
//! - it last ended because of opnix: conditions or assertions on files of ours failed and no others did; its
//!   `EnvironmentFile=` of ours was not there; it failed after a refusal that the service remembers ([`crate::server`]); or its
//!   start failed with that of such a unit.
//!
//! Nothing is started while the system goes down, or in rescue mode. What cannot be told from a stop by an administrator is
//! not started.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

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
/// How soon a unit is started again that failed once more for the same reason; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);
/// No longer than this if what it lacks went away and came again.
const NEWS_PAUSE: Duration = Duration::from_secs(60);

/// What opnix provides.
#[derive(Debug, Default)]
pub struct Provided {
    /// The files and links of the mirror, and who is said to read them.
    pub files: BTreeMap<PathBuf, BTreeSet<String>>,
    /// Units that were refused, and whether they would get everything now; `None`: that is not known.
    pub missed: Option<BTreeMap<String, bool>>,
}

/// The units that could not start for want of something from opnix. It is remembered, because systemd forgets: of units that
/// nothing refers to everything, of all units which of their tests failed when it reads its unit files anew, and of a start that
/// failed with another's even that.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Left(BTreeMap<String, Wait>);

/// What a unit waits for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Wait {
    /// When it was last started before that, by [`Unit::started_at`]: later, it is over.
    started_at: i128,
    /// It was left failed: if it is inactive later, an administrator has reset that.
    failed: bool,
    files: BTreeSet<PathBuf>,
    /// It was refused.
    refused: bool,
    /// Units that it requires and that wait themselves, with when they were last started.
    needs: BTreeMap<String, i128>,
    /// It was reset for a start of ours: that it is not failed any more says nothing.
    reset: bool,
    #[serde(skip)]
    tried: Option<(Instant, Duration)>,
}

/// Looks at a unit; `None` if that cannot be done now.
pub trait Look {
    fn unit(&mut self, name: &str) -> Option<Unit>;
}

impl Provided {
    /// The files of ours that must be there for these tests.
    fn files_of<'t>(&self, tests: &'t [Test]) -> BTreeSet<&'t Path> {
        let paths = tests.iter().filter(|test| is_on_a_file(test)).map(|test| Path::new(&test.parameter));
        paths.filter(|path| self.files.contains_key(*path)).collect()
    }

    /// What this unit lacked when it last was to start, if that was something from opnix and nothing else.
    fn lacked_by(&self, unit: &Unit) -> Option<Wait> {
        let of_it =
            Wait { started_at: unit.started_at(), failed: unit.state() == "failed", ..Wait::default() };
        let owned = |paths: BTreeSet<&Path>| paths.into_iter().map(Path::to_owned).collect();
        let failed: Vec<Test> = unit.tests().into_iter().filter(|test| test.failed).collect();
        let ours = self.files_of(&failed);
        if !failed.is_empty() && failed.iter().all(|test| ours.contains(Path::new(&test.parameter))) {
            return Some(Wait { files: owned(ours), ..of_it });
        }
        if unit.state() != "failed" {
            return None;
        }
        if unit.result() == "resources" {
            let of_ours =
                unit.environment_files().map(Path::new).filter(|path| self.files.contains_key(*path));
            let missing: BTreeSet<&Path> =
                of_ours.filter(|path| was_missing(path, unit.ended_at())).collect();
            return (!missing.is_empty()).then(|| Wait { files: owned(missing), ..of_it });
        }
        let refused = self.was_refused(&unit.id)
            && (unit.may_have_lacked_credentials() || AFTER_A_REFUSAL.contains(&unit.result()));
        refused.then_some(Wait { refused, ..of_it })
    }

    fn was_refused(&self, unit: &str) -> bool {
        self.missed.as_ref().is_some_and(|missed| missed.contains_key(unit))
    }

    /// Whether the configuration says that this unit reads a file that it waited for. That is as good as a target that wants it,
    /// where nothing else starts it.
    fn is_said_to_read(&self, unit: &Unit, files: &BTreeSet<PathBuf>) -> bool {
        let reads = |path: &PathBuf| {
            let readers = self.files.get(path);
            readers.is_some_and(|readers| {
                unit.texts("Names").chain([unit.id.as_str()]).any(|name| readers.contains(name))
            })
        };
        files.iter().any(reads) && unit.texts("TriggeredBy").next().is_none()
    }
}

/// One of several tests of which one must pass says nothing by itself.
fn is_on_a_file(test: &Test) -> bool {
    let kind = test.kind.strip_prefix("Assert").or(test.kind.strip_prefix("Condition"));
    kind.is_some_and(|kind| ON_FILES.contains(&kind)) && !test.negated && !test.is_one_of_several
}

/// Whether a file was not there at that time, as far as that can be seen now.
fn was_missing(path: &Path, at: SystemTime) -> bool {
    let written = path.symlink_metadata().and_then(|metadata| metadata.modified());
    written.is_err() || written.is_ok_and(|written| written > at)
}

impl Left {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the end of a job of this unit may tell something.
    pub fn concerns(&self, unit: &str, result: &str) -> bool {
        self.0.contains_key(unit) || ["assert", "dependency"].contains(&result)
    }

    /// A job of a unit ended.
    pub fn ended(&mut self, name: &str, result: &str, provided: &Provided, look: &mut impl Look) {
        let Some(unit) = look.unit(name) else { return };
        let started_at = unit.started_at();
        let wait = match result {
            "assert" => {
                // systemd may have forgotten already which of them failed.
                let tests = unit.tests();
                let others_failed =
                    tests.iter().any(|test| test.failed) && provided.lacked_by(&unit).is_none();
                let missing =
                    provided.files_of(&tests).into_iter().filter(|path| !others_failed && !path.exists());
                Wait { started_at, files: missing.map(Path::to_owned).collect(), ..Wait::default() }
            }
            "dependency" => {
                let needed: Vec<Unit> = needs(&unit).filter_map(|name| look.unit(name)).collect();
                // What it failed with may have come up since.
                let all_up = needed.iter().all(|unit| unit.state() == "active");
                let down = needed.iter().filter(|unit| all_up || unit.state() != "active");
                let ours = down.filter(|unit| self.is_ours(unit, provided));
                Wait {
                    started_at,
                    needs: ours.map(|unit| (unit.id.clone(), unit.started_at())).collect(),
                    ..Wait::default()
                }
            }
            _ => return,
        };
        if !wait.files.is_empty() || !wait.needs.is_empty() {
            self.note(unit.id, wait);
        }
    }

    fn note(&mut self, unit: String, wait: Wait) {
        let before = self.0.get(&unit);
        let (tried, reset) = before.map_or((None, false), |before| (before.tried, before.reset));
        // Refused or failed once more, it can be stopped or reset by an administrator once more.
        self.0.insert(unit, Wait { tried, reset: reset && !wait.failed && !wait.refused, ..wait });
    }

    /// Whether a unit may be down because of opnix.
    fn is_ours(&self, unit: &Unit, provided: &Provided) -> bool {
        self.0.contains_key(&unit.id)
            || provided.was_refused(&unit.id)
            || !provided.files_of(&unit.tests()).is_empty()
            || unit.environment_files().any(|path| provided.files.contains_key(Path::new(path)))
    }

    /// Looks at these units, which are inactive or failed, for what they lacked.
    pub fn scan(&mut self, down: &[String], provided: &Provided, look: &mut impl Look) {
        for name in down {
            let Some(unit) = look.unit(name) else { continue };
            if let Some(wait) = provided.lacked_by(&unit) {
                self.note(unit.id, wait);
            }
        }
        // One that tries again by itself is not down; but others may have failed with it.
        for name in provided.missed.iter().flat_map(BTreeMap::keys) {
            let Some(unit) = look.unit(name).filter(|unit| unit.state() == "activating") else { continue };
            let of_it = Wait { started_at: unit.started_at(), refused: true, ..Wait::default() };
            self.note(unit.id, of_it);
        }
    }

    /// Goes on with those that require a unit which is not waited for any more.
    fn pass_on(&mut self, provided: &Provided, look: &mut impl Look) {
        for name in self.0.keys().cloned().collect::<Vec<_>>() {
            let Some(unit) = look.unit(&name) else { continue };
            let Some(wait) = self.0.get(&name).filter(|wait| wait.is_over(&unit, provided)) else { continue };
            let before = wait.started_at;
            self.0.remove(&name);
            if !has_come(&unit, before) {
                continue;
            }
            for dependent in dependents(&unit, look) {
                let needs = [(unit.id.clone(), before)].into();
                self.note(dependent.id, Wait { needs, ..Wait::default() });
            }
        }
    }

    /// What is to be started now, in this order.
    pub fn next_starts(&mut self, provided: &Provided, look: &mut impl Look) -> Vec<String> {
        self.pass_on(provided, look);
        let mut starts: BTreeMap<String, Unit> = BTreeMap::new();
        let now = Instant::now();
        for name in self.0.keys().cloned().collect::<Vec<_>>() {
            let Some(unit) = look.unit(&name) else { continue };
            let Some(wait) = self.0.get(&name).cloned() else { continue };
            if !wait.is_ready(&name, provided, look) {
                // What comes next is news: it is not to wait for long.
                let calm = |(last, pause): (Instant, Duration)| (last, pause.min(NEWS_PAUSE));
                self.0.entry(name).and_modify(|wait| wait.tried = wait.tried.map(calm));
                continue;
            }
            let is_early = wait.tried.is_some_and(|(last, pause)| now < last + pause);
            if is_early || !["inactive", "failed"].contains(&unit.state()) {
                continue;
            }
            let count = starts.len();
            for name in unit.texts("TriggeredBy") {
                let Some(trigger) = look.unit(name) else { continue };
                let is_down = trigger.state() == "failed" && OF_A_TRIGGER.contains(&trigger.result());
                if is_down && is_startable(&trigger, look) && is_wanted(&trigger, look) {
                    starts.insert(trigger.id.clone(), trigger);
                }
            }
            let mut reset = wait.reset;
            if is_startable(&unit, look)
                && (is_wanted(&unit, look) || provided.is_said_to_read(&unit, &wait.files))
            {
                reset = true;
                starts.insert(unit.id.clone(), unit);
            }
            if starts.len() > count {
                let pause = wait.tried.map_or(FIRST_PAUSE, |(_, pause)| (pause * 2).min(LONGEST_PAUSE));
                let tried = Some((now, pause));
                self.0.entry(name).and_modify(|wait| (wait.tried, wait.reset) = (tried, reset));
            }
        }
        in_order(starts)
    }
}

impl Wait {
    /// It is up, or was started since and ended otherwise, or is gone.
    fn is_over(&self, unit: &Unit, provided: &Provided) -> bool {
        match unit.state() {
            "active" | "reloading" | "refreshing" => true,
            "inactive" => {
                unit.started_at() > self.started_at
                    || !unit.is_known()
                    || (self.failed || self.refused) && !self.reset
                    || self.is_settled(&unit.id, provided)
            }
            // Unless it failed in the same way again.
            "failed" => {
                let is_past = unit.started_at() > self.started_at || self.is_settled(&unit.id, provided);
                is_past && provided.lacked_by(unit).is_none()
            }
            _ => false,
        }
    }

    /// It was refused, and has got everything since, or has no right to it any more.
    fn is_settled(&self, unit: &str, provided: &Provided) -> bool {
        self.refused && provided.missed.as_ref().is_some_and(|missed| !missed.contains_key(unit))
    }

    fn is_ready(&self, unit: &str, provided: &Provided, look: &mut impl Look) -> bool {
        self.files.iter().all(|path| path.exists())
            && (!self.refused || provided.missed.as_ref().and_then(|missed| missed.get(unit)) == Some(&true))
            && self
                .needs
                .iter()
                .all(|(name, before)| look.unit(name).is_some_and(|unit| has_come(&unit, *before)))
    }
}

/// Whether a unit has come up since it was last started at that time, or ran and is done.
fn has_come(unit: &Unit, before: i128) -> bool {
    match unit.state() {
        "active" | "reloading" | "refreshing" => true,
        "inactive" => unit.started_at() > before && unit.result() == "success",
        _ => false,
    }
}

/// Those that require a unit which lacked something and has come up, and were not started: no property tells that their start
/// failed with another's, but one that never was started was not stopped either.
fn dependents(unit: &Unit, look: &mut impl Look) -> Vec<Unit> {
    let names = ["RequiredBy", "BoundBy", "RequisiteOf"].into_iter().flat_map(|kind| unit.texts(kind));
    let mut all: Vec<Unit> = names.filter_map(|name| look.unit(name)).collect();
    all.retain(|unit| {
        unit.state() == "inactive" && unit.started_at() == 0 && unit.tests().iter().all(|test| !test.failed)
    });
    all.retain(|unit| is_startable(unit, look) && is_wanted(unit, look));
    all
}

/// Whether units are started at all while the system is in this state.
pub fn is_up(system: &str) -> bool {
    UP.contains(&system)
}

/// Whether nothing and nobody keeps this unit down.
pub fn is_startable(unit: &Unit, look: &mut impl Look) -> bool {
    is_free(unit) && !is_opposed(unit, look)
}

fn is_free(unit: &Unit) -> bool {
    unit.may_start() && !unit.has_job()
}

/// Whether a start would stop something that runs.
fn is_opposed(unit: &Unit, look: &mut impl Look) -> bool {
    let mut others = ["Conflicts", "ConflictedBy"].into_iter().flat_map(|kind| unit.texts(kind));
    others.any(|name| look.unit(name).is_some_and(|other| !["inactive", "failed"].contains(&other.state())))
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
                    || (!kind.starts_with("Wanted") && is_free(&other) && wanted(&other, look, seen))
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
            missed: Some(BTreeMap::new()),
        }
    }

    fn starts(units: &mut Units, provided: &Provided) -> Vec<String> {
        let mut left = Left::default();
        scan(&mut left, units, provided);
        left.next_starts(provided, units)
    }

    fn scan(left: &mut Left, units: &mut Units, provided: &Provided) {
        let down: Vec<String> = units.0.keys().cloned().collect();
        left.scan(&down, provided, units);
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
        let cases: [(&str, Vec<(&'static str, Value)>); 16] = [
            ("it was stopped while it ran", vec![asserts(&[("AssertPathExists", there.clone(), false, 1)])]),
            ("it was never started", vec![asserts(&[("AssertPathExists", there.clone(), false, 0)])]),
            ("its tests held as a whole", vec![("AssertResult", Value::Flag(true))]),
            ("its file is not there", vec![asserts(&[failed(&away)])]),
            ("another assertion failed too", vec![asserts(&[failed(&there), failed(&other)])]),
            ("it waits for a file to go", vec![asserts(&[("AssertPathExists", there.clone(), true, -1)])]),
            ("it is disabled", vec![("UnitFileState", text("disabled"))]),
            ("it cannot be started by hand", vec![("CanStart", Value::Flag(false))]),
            ("it would stop what runs", vec![("Conflicts", texts(&["other.service"]))]),
            ("what runs would be stopped", vec![("ConflictedBy", texts(&["other.service"]))]),
            ("it is masked", vec![("LoadState", text("masked")), ("UnitFileState", text("masked"))]),
            ("it has a job", vec![("Job", job(7))]),
            ("it runs", vec![("ActiveState", text("active"))]),
            ("nothing wants it", vec![("WantedBy", texts(&[]))]),
            ("only a timer wants it", vec![("WantedBy", texts(&["a.timer"]))]),
            ("what wants it is down", vec![("WantedBy", texts(&["rescue.target"]))]),
        ];
        for (why, more) in cases {
            let mut units = reader(&more)
                .with("a.timer", &target())
                .with("rescue.target", &[])
                .with("other.service", &target());
            assert!(starts(&mut units, &provided()).is_empty(), "{why}");
        }
        for system in ["stopping", "maintenance", "offline", "unknown", ""] {
            assert!(!is_up(system));
        }
    }

    #[test]
    fn what_systemd_forgets_is_remembered_until_the_unit_has_run() {
        let place = std::env::temp_dir().join(format!("opnix-left-{}", std::process::id()));
        let _ = std::fs::remove_file(&place);
        let provided =
            Provided { files: [(place.clone(), BTreeSet::new())].into(), missed: Some(BTreeMap::new()) };
        let tests = |path: &Path, state| ("Asserts", tests_of(&[("AssertPathExists", path, false, state)]));
        let mut units = reader(&[tests(&place, -1)]);
        let mut left = Left::default();
        scan(&mut left, &mut units, &provided);
        assert!(left.next_starts(&provided, &mut units).is_empty());
        // It reads its unit files anew.
        units.set("a.service", "Asserts", tests(&place, 0).1);
        scan(&mut left, &mut units, &provided);
        std::fs::write(&place, "").unwrap();
        let saved = serde_json::to_string(&left).unwrap();
        assert_eq!(left.next_starts(&provided, &mut units), ["a.service"]);
        assert!(left.next_starts(&provided, &mut units).is_empty(), "not again at once");
        // It ran, and was stopped.
        units.set("a.service", "InactiveExitTimestampMonotonic", Value::Number(5));
        let mut left: Left = serde_json::from_str(&saved).unwrap();
        assert!(left.next_starts(&provided, &mut units).is_empty() && left.is_empty());
        std::fs::remove_file(place).unwrap();
    }

    fn refused(result: &str, code: i128, status: i128, state: &str) -> Units {
        Units::default().with("multi-user.target", &target()).with(
            "a.service",
            &[
                ("WantedBy", texts(&["multi-user.target"])),
                ("ActiveState", text(state)),
                ("Result", text(result)),
                ("ExecMainCode", Value::Number(code)),
                ("ExecMainStatus", Value::Number(status)),
            ],
        )
    }

    fn missed(ready: bool) -> Provided {
        Provided { missed: Some([("a.service".to_owned(), ready)].into()), ..Provided::default() }
    }

    #[test]
    fn a_unit_that_was_refused_starts_when_it_would_get_everything() {
        let started = ["a.service"];
        assert_eq!(starts(&mut refused("exit-code", 1, 243, "failed"), &missed(true)), started);
        assert_eq!(starts(&mut refused("start-limit-hit", 1, 1, "failed"), &missed(true)), started);
        assert_eq!(starts(&mut refused("timeout", 0, 0, "failed"), &missed(true)), started);
        let step = |code, status| {
            let command = Value::List(vec![text("/bin/true"), Value::Number(code), Value::Number(status)]);
            let mut units = refused("exit-code", 0, 0, "failed");
            units.set("a.service", "ExecStartPre", Value::List(vec![command]));
            units
        };
        assert_eq!(starts(&mut step(1, 243), &missed(true)), started);
        assert_eq!(starts(&mut step(0, 0), &missed(true)), started, "systemd forgot how it ended");
        let nothing = [
            (step(1, 1), missed(true)),
            (refused("exit-code", 1, 243, "failed"), missed(false)),
            (refused("exit-code", 1, 243, "failed"), Provided::default()),
            (refused("exit-code", 1, 1, "failed"), missed(true)),
            (refused("exit-code", 1, 243, "inactive"), missed(true)),
            (refused("exit-code", 1, 243, "activating"), missed(true)),
        ];
        for (mut units, provided) in nothing {
            assert!(starts(&mut units, &provided).is_empty());
        }
    }

    #[test]
    fn a_failure_that_an_administrator_reset_is_over() {
        let mut units = refused("exit-code", 1, 243, "failed");
        let mut left = Left::default();
        scan(&mut left, &mut units, &missed(false));
        assert!(left.next_starts(&missed(false), &mut units).is_empty());
        units.set("a.service", "ActiveState", text("inactive"));
        assert!(left.next_starts(&missed(true), &mut units).is_empty() && left.is_empty());
        // So is one that was stopped while it tried again by itself.
        let mut units = refused("exit-code", 1, 243, "activating");
        scan(&mut left, &mut units, &missed(false));
        assert!(!left.is_empty());
        units.set("a.service", "ActiveState", text("inactive"));
        assert!(left.next_starts(&missed(true), &mut units).is_empty() && left.is_empty());
        // One that was reset for a start of ours, which failed with another's, is not.
        let mut units = refused("exit-code", 1, 243, "failed");
        scan(&mut left, &mut units, &missed(true));
        assert_eq!(left.next_starts(&missed(true), &mut units), ["a.service"]);
        units.set("a.service", "ActiveState", text("inactive"));
        assert!(left.next_starts(&missed(true), &mut units).is_empty() && !left.is_empty());
    }

    #[test]
    fn what_a_socket_starts_comes_by_itself_unless_the_socket_gave_up() {
        let units = |socket: &str, result: &str| {
            let mut units = refused("exit-code", 1, 243, "failed").with("sockets.target", &target()).with(
                "a.socket",
                &[
                    ("ActiveState", text(socket)),
                    ("Result", text(result)),
                    ("WantedBy", texts(&["sockets.target"])),
                ],
            );
            units.set("a.service", "WantedBy", texts(&[]));
            units.set("a.service", "TriggeredBy", texts(&["a.socket"]));
            units
        };
        assert!(starts(&mut units("active", "success"), &missed(true)).is_empty());
        assert_eq!(starts(&mut units("failed", "trigger-limit-hit"), &missed(true)), ["a.socket"]);
        assert!(starts(&mut units("failed", "resources"), &missed(true)).is_empty());
    }

    #[test]
    fn a_unit_that_nothing_refers_to_is_started_where_the_configuration_names_it() {
        let (there, away, _) = files();
        // The tests of a unit that is read anew have no result.
        let asserts = |path: &Path| ("Asserts", tests_of(&[("AssertPathExists", path, false, 0)]));
        let mut units =
            Units::default().with("a.service", &[asserts(&away), ("UnitFileState", text("static"))]);
        let named = |unit: &str| {
            let mut provided = provided();
            provided.files.get_mut(&there).unwrap().insert(unit.into());
            provided
        };
        let mut left = Left::default();
        left.ended("a.service", "assert", &provided(), &mut units);
        assert_eq!(left.0["a.service"].files, [away].into());
        // As if that file were there now.
        left.0.get_mut("a.service").unwrap().files = [there.clone()].into();
        assert!(left.next_starts(&named("b.service"), &mut units).is_empty());
        assert_eq!(left.next_starts(&named("a.service"), &mut units), ["a.service"]);
        let mut units = Units::default().with("a.service", &[asserts(&there)]);
        let mut left = Left::default();
        left.ended("a.service", "assert", &provided(), &mut units);
        assert!(left.is_empty(), "its file was there");
    }

    #[test]
    fn those_that_require_it_come_after_it() {
        let mut units = reader(&[("RequiredBy", texts(&["b.service"])), ("WantedBy", texts(&[]))]).with(
            "b.service",
            &[("WantedBy", texts(&["multi-user.target"])), ("Requires", texts(&["a.service"]))],
        );
        let mut left = Left::default();
        scan(&mut left, &mut units, &provided());
        assert_eq!(left.next_starts(&provided(), &mut units), ["a.service"], "what b needs");
        units.set("a.service", "ActiveState", text("active"));
        assert_eq!(left.next_starts(&provided(), &mut units), ["b.service"]);
        assert!(left.next_starts(&provided(), &mut units).is_empty(), "once");
    }

    #[test]
    fn one_that_ran_comes_after_it_only_if_its_start_was_seen_to_fail_with_it() {
        let mut units = refused("exit-code", 1, 243, "failed").with(
            "b.service",
            &[
                ("WantedBy", texts(&["multi-user.target"])),
                ("Requires", texts(&["a.service"])),
                ("InactiveExitTimestampMonotonic", Value::Number(5)),
            ],
        );
        units.set("a.service", "RequiredBy", texts(&["b.service"]));
        for seen in [false, true] {
            let mut left = Left::default();
            units.set("a.service", "ActiveState", text("failed"));
            scan(&mut left, &mut units, &missed(false));
            if seen {
                left.ended("b.service", "dependency", &missed(false), &mut units);
            }
            assert!(left.next_starts(&missed(false), &mut units).is_empty());
            units.set("a.service", "ActiveState", text("active"));
            let expected: &[&str] = if seen { &["b.service"] } else { &[] };
            assert_eq!(left.next_starts(&Provided::default(), &mut units), expected);
        }
        // A step that ran and is done counts as well.
        let mut left = Left::default();
        units.set("a.service", "ActiveState", text("failed"));
        left.ended("b.service", "dependency", &missed(false), &mut units);
        units.set("a.service", "ActiveState", text("inactive"));
        units.set("a.service", "Result", text("success"));
        assert!(left.next_starts(&Provided::default(), &mut units).is_empty());
        units.set("a.service", "InactiveExitTimestampMonotonic", Value::Number(9));
        assert_eq!(left.next_starts(&Provided::default(), &mut units), ["b.service"]);
    }

    #[test]
    fn a_failure_with_a_unit_that_opnix_knows_nothing_of_is_none_of_ours() {
        let mut units = Units::default().with("a.service", &[("ActiveState", text("failed"))]).with(
            "b.service",
            &[("Requires", texts(&["a.service"])), ("WantedBy", texts(&["multi-user.target"]))],
        );
        let mut left = Left::default();
        left.ended("b.service", "dependency", &provided(), &mut units);
        assert!(left.is_empty());
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
