//! What is done to units: to those whose secret changed, and to those that missed theirs.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use tracing::warn;

use super::plan::{self, Task, Tasks};
use super::recover::{Left, Provided};
use super::startable::{Look, is_startable, is_up, is_wanted};
use crate::config::OnChange;
use crate::records;
use crate::systemd::manager::{Ended, Manager, Unit};

/// How long a reload may take before the restart that follows cuts it short.
const FIRST: Duration = Duration::from_secs(90);

impl Look for Manager {
    fn unit(&mut self, name: &str) -> Option<Unit> {
        Self::unit(self, name).inspect_err(|error| warn!("how {name} is, is not known: {error}")).ok()
    }
}

/// What was begun on units whose secret changed, and what came of it.
#[derive(Debug, Default)]
pub struct Acts {
    /// By the job.
    begun: BTreeMap<String, Act>,
    /// Of units, what failed last.
    failed: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Act {
    unit: String,
    /// What systemctl calls it.
    word: &'static str,
    /// It is restarted after that in any case.
    is_first: bool,
    at: Instant,
}

impl Acts {
    /// Whether the end of this job tells something.
    pub fn concerns(&self, ended: &Ended) -> bool {
        self.begun.contains_key(&ended.job) || self.failed.contains_key(&ended.unit)
    }

    pub fn ended(&mut self, ended: &Ended) {
        if ended.result == "done" {
            self.failed.remove(&ended.unit);
        }
        let Some(Act { unit, word, is_first, .. }) = self.begun.remove(&ended.job) else { return };
        match ended.result.as_str() {
            "done" => records::unit_told(&unit, word),
            // Another job is in its place, or somebody does not want it.
            "canceled" => {}
            _ if is_first => {}
            result => self.failed(&unit, word, result),
        }
    }

    fn begun(&mut self, job: String, unit: &str, word: &'static str, is_first: bool) {
        // The ends of others may not have been heard.
        self.begun.retain(|_, act| act.unit != unit);
        self.begun.insert(job, Act { unit: unit.to_owned(), word, is_first, at: Instant::now() });
    }

    /// Whether the unit is still told what comes before its restart.
    fn is_at_work(&self, unit: &str) -> bool {
        self.begun.values().any(|act| act.unit == unit && act.is_first && act.at.elapsed() < FIRST)
    }

    fn failed(&mut self, unit: &str, word: &str, why: &str) {
        records::unit_not_told(unit, word, why);
        self.failed.insert(unit.to_owned(), format!("systemctl {word} {unit} failed ({why})"));
    }

    /// What could not be done to units, in words.
    pub fn failures(&self) -> impl Iterator<Item = &str> {
        self.failed.values().map(String::as_str)
    }
}

/// Acts on units whose secret changed: on those that are active, and on those that failed, perhaps over the old value; on
/// each only once. What is left in `tasks`, by the units' own names, cannot be done yet: who is just starting has the old value
/// already, and hears nothing yet. `socket` is where credentials come from.
pub fn act(tasks: &mut Tasks, socket: &Path, acts: &mut Acts) -> io::Result<()> {
    let manager = &mut Manager::connect()?;
    let is_system_up = is_up(&manager.state()?);
    // One unit may be meant by several: by its name, another one, and a pattern.
    let (mut found, mut units) = (Tasks::new(), BTreeMap::new());
    for (pattern, task) in tasks.iter() {
        for name in meant(pattern, manager)? {
            let Some(unit) = answered(&name, manager.unit(&name))? else { continue };
            if unit.is_known() {
                plan::add(&mut found, unit.id.clone(), task.clone());
                units.insert(unit.id.clone(), unit);
            } else {
                warn!(
                    "a secret changed, and there is no unit {name} to be told: correct its name in the configuration"
                );
            }
        }
    }
    *tasks = found;
    for (id, unit) in units {
        let Some(task) = tasks.get(&id) else { continue };
        let [action, then] = suited(task, &unit, socket);
        let started_at = i64::try_from(unit.started_at()).ok();
        let is_over = task.unless_started_since.is_some_and(|before| started_at != Some(before));
        let mut later = None;
        let acted = match unit.state() {
            _ if is_over => Ok(()),
            _ if task.unless_started_since.is_some() && acts.is_at_work(&id) => {
                later = Some(task.clone());
                Ok(())
            }
            "active" | "reloading" | "refreshing" => {
                later = (*then != OnChange::Nothing).then(|| Task::then_restart(&unit));
                act_on(manager, &id, action, later.is_some(), acts)
            }
            // It may have the old value already.
            "activating" if action.max(then) >= &OnChange::ReloadOrRestart => {
                act_on(manager, &id, action.max(then), false, acts)
            }
            "activating" => {
                later = Some(task.clone());
                Ok(())
            }
            "failed" if is_system_up && is_startable(&unit, manager) && is_wanted(&unit, manager) => {
                start(manager, &id, "a secret changed").map(|job| acts.begun(job, &id, "start", false))
            }
            _ => Ok(()),
        };
        answered(&id, acted)?;
        match later {
            Some(later) => drop(tasks.insert(id, later)),
            None => drop(tasks.remove(&id)),
        }
    }
    Ok(())
}

/// The names of the units that a name or pattern stands for. A name may be an alias, which no list has.
pub fn meant(pattern: &str, manager: &mut Manager) -> io::Result<Vec<String>> {
    if pattern.contains('*') {
        manager.list(&["active", "reloading", "refreshing", "activating", "failed"], &[pattern])
    } else {
        Ok(vec![pattern.to_owned()])
    }
}

/// What to do with the unit, and then: to one that is only reloaded or signalled systemd gives no new credentials, unless its
/// `RefreshOnReload=` says so, from version 260 on. So it is restarted after that.
pub fn suited<'t>(task: &'t Task, unit: &Unit, socket: &Path) -> [&'t OnChange; 2] {
    let is_asked_for =
        |name: &String| unit.credential("LoadCredential", name).is_some_and(|source| source == socket);
    let is_reload = matches!(task.action, OnChange::Reload | OnChange::ReloadOrRestart);
    let is_renewed = task.action == OnChange::Restart
        || is_reload && unit.texts("RefreshOnReload").any(|what| what == "credentials")
        || !task.credentials.iter().any(is_asked_for);
    match is_renewed {
        true => [&task.action, &OnChange::Nothing],
        false if is_reload && !unit.can_reload() => [&OnChange::Restart, &OnChange::Nothing],
        false => [&task.action, &OnChange::Restart],
    }
}

/// `None`, with a warning, if the service manager said no. Fails if it said nothing: it may when it is asked again.
fn answered<T>(unit: &str, answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind() == io::ErrorKind::Other => {
            warn!("{unit}: {error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// `is_first`: it is restarted after that.
fn act_on(
    manager: &mut Manager,
    unit: &str,
    action: &OnChange,
    is_first: bool,
    acts: &mut Acts,
) -> io::Result<()> {
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::Other => Ok(error.to_string()),
        _ => Err(error),
    };
    let (word, call) = match action {
        OnChange::Nothing => return Ok(()),
        OnChange::Signal(signal) => {
            let word = format!("kill --kill-whom=main --signal={}", signal.as_str());
            records::secret_changed(&word, unit);
            if let Err(error) = manager.kill(unit, signal.number()) {
                let why = refused(error)?;
                if !is_first {
                    acts.failed(unit, &word, &why);
                }
            }
            return Ok(());
        }
        OnChange::Restart => ("try-restart", "TryRestartUnit"),
        OnChange::Reload => ("reload", "ReloadUnit"),
        OnChange::ReloadOrRestart => ("try-reload-or-restart", "ReloadOrTryRestartUnit"),
    };
    records::secret_changed(word, unit);
    match manager.queue(call, unit, "replace") {
        Ok(job) => acts.begun(job, unit, word, is_first),
        Err(error) => {
            let why = refused(error)?;
            if !is_first {
                acts.failed(unit, word, &why);
            }
        }
    }
    Ok(())
}

/// Starts a unit, whatever its start limit says, and does not wait for it. Returns the job.
fn start(manager: &mut Manager, unit: &str, why: &str) -> io::Result<String> {
    records::unit_started(unit, why);
    // Where it is not in memory, there is nothing to forget.
    let _ = manager.reset_failed(unit);
    // A job that is in the way has its reasons.
    manager.queue("StartUnit", unit, "fail")
}

/// Starts what was left behind and can go on now. `scans`: looks at everything that is down first.
pub fn recover(left: &mut Left, provided: &Provided, scans: bool) -> io::Result<Manager> {
    let mut manager = Manager::connect()?;
    if scans {
        let down = manager.list(&["inactive", "failed"], &[])?;
        left.scan(&down, provided, &mut manager);
    }
    if left.is_empty() || !is_up(&manager.state()?) {
        return Ok(manager);
    }
    for unit in left.next_starts(provided, &mut manager) {
        if let Err(error) = start(&mut manager, &unit, "what it lacked is there") {
            warn!("{unit}: {error}");
        }
    }
    Ok(manager)
}
