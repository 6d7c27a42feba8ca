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

use super::startable::{Look, is_startable, is_wanted};
use crate::systemd::manager::{Test, Unit};

/// Tests that a file, or a link to it, can pass by being there.
const ON_FILES: [&str; 3] = ["PathExists", "PathIsSymbolicLink", "FileNotEmpty"];
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
    /// Of those that lie in directories of others, which may answer nobody: when they were written, if they are there.
    pub elsewhere: BTreeMap<PathBuf, Option<SystemTime>>,
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
    /// The attempt to start it ([`Unit::tried_at`]) of which it was told which file is not there.
    #[serde(default)]
    told: Option<i128>,
    /// It was reset for a start of ours: that it is not failed any more says nothing.
    reset: bool,
    #[serde(skip)]
    tried: Option<(Instant, Duration)>,
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
                of_ours.filter(|path| self.was_missing(path, unit.ended_at())).collect();
            return (!missing.is_empty()).then(|| Wait { files: owned(missing), ..of_it });
        }
        let refused = self.was_refused(&unit.id)
            && (unit.may_have_lacked_credentials() || AFTER_A_REFUSAL.contains(&unit.result()));
        refused.then_some(Wait { refused, ..of_it })
    }

    fn written(&self, path: &Path) -> Option<SystemTime> {
        let known = self.elsewhere.get(path).copied();
        known.unwrap_or_else(|| path.symlink_metadata().and_then(|metadata| metadata.modified()).ok())
    }

    fn is_there(&self, path: &Path) -> bool {
        self.written(path).is_some()
    }

    /// Whether a file was not there at that time, as far as that can be seen now.
    fn was_missing(&self, path: &Path, at: SystemTime) -> bool {
        self.written(path).is_none_or(|written| written > at)
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

impl Left {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that lacked files, with what they lacked.
    pub fn for_want_of_files(&self) -> impl Iterator<Item = (String, Vec<PathBuf>)> {
        let lacked = self.0.iter().filter(|(_, wait)| !wait.files.is_empty());
        lacked.map(|(unit, wait)| (unit.clone(), wait.files.iter().cloned().collect()))
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
                let missing = provided
                    .files_of(&tests)
                    .into_iter()
                    .filter(|path| !others_failed && !provided.is_there(path));
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
            // By a condition, or for want of an `EnvironmentFile=`.
            _ => match provided.lacked_by(&unit) {
                Some(wait) if !wait.files.is_empty() => wait,
                _ => return,
            },
        };
        if !wait.files.is_empty() || !wait.needs.is_empty() {
            self.note(unit.id.clone(), wait);
            if result == "assert" {
                // Each is told, although systemd may have forgotten when it was.
                self.0.entry(unit.id).and_modify(|wait| wait.told = None);
            }
        }
    }

    fn note(&mut self, unit: String, wait: Wait) {
        let before = self.0.get(&unit);
        let (tried, reset, told) =
            before.map_or((None, false, None), |before| (before.tried, before.reset, before.told));
        // Refused or failed once more, it can be stopped or reset by an administrator once more.
        self.0.insert(unit, Wait { tried, told, reset: reset && !wait.failed && !wait.refused, ..wait });
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

    /// The files that are not there and that units lacked at their last attempt to start, where they were not told so yet, and whether
    /// such a unit is started when they are there.
    pub fn untold(&mut self, provided: &Provided, look: &mut impl Look) -> Vec<(String, PathBuf, bool)> {
        let mut all = Vec::new();
        for (name, wait) in self.0.iter_mut().filter(|(_, wait)| !wait.files.is_empty()) {
            let Some(unit) = look.unit(name) else { continue };
            // What systemd has forgotten since was told, or never happened.
            if wait.told.is_some_and(|told| unit.tried_at() <= told) {
                continue;
            }
            wait.told = Some(unit.tried_at());
            let comes = is_startable(&unit, look)
                && (is_wanted(&unit, look) || provided.is_said_to_read(&unit, &wait.files));
            let missing = wait.files.iter().filter(|path| !provided.is_there(path));
            all.extend(missing.map(|path| (name.clone(), path.clone(), comes)));
        }
        all
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
        self.files.iter().all(|path| provided.is_there(path))
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

/// What a unit cannot be without.
fn needs(unit: &Unit) -> impl Iterator<Item = &str> {
    ["Requires", "BindsTo", "Requisite"].into_iter().flat_map(|kind| unit.texts(kind))
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
mod tests;
