//! What is done to units: to those whose secret changed, and to those that missed theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use tracing::warn;

use super::plan::{self, Task, Tasks};
use super::recover::{Left, Provided};
use super::startable::{Look, is_startable, is_up, is_wanted};
use crate::config::OnChange;
use crate::records;
use crate::systemd::manager::{Ended, Manager, Unit};

impl Look for Manager {
    fn unit(&mut self, name: &str) -> Option<Unit> {
        Self::unit(self, name).inspect_err(|error| warn!("how {name} is, is not known: {error}")).ok()
    }
}

/// What was begun on units whose secret changed, and what came of it.
#[derive(Debug, Default)]
pub struct Acts {
    /// The unit and what systemctl calls it, by the job.
    begun: BTreeMap<String, (String, &'static str)>,
    /// Of units, what failed last.
    failed: BTreeMap<String, String>,
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
        let Some((unit, word)) = self.begun.remove(&ended.job) else { return };
        match ended.result.as_str() {
            "done" => records::unit_told(&unit, word),
            // Another job is in its place, or somebody does not want it.
            "canceled" => {}
            result => self.failed(&unit, word, result),
        }
    }

    fn failed(&mut self, unit: &str, word: &str, why: &str) {
        records::unit_not_told(unit, word, why);
        self.failed.insert(unit.to_owned(), format!("systemctl {word} {unit} failed ({why})"));
    }

    /// The units that may go on with an old secret, in words.
    pub fn failures(&self) -> impl Iterator<Item = &str> {
        self.failed.values().map(String::as_str)
    }
}

/// Acts on units whose secret changed: on those that are active, and on those that failed, perhaps over the old value; on
/// each only once. What is left in `tasks` cannot be done yet: who is just starting has the old value already, and hears nothing
/// yet. `socket` is where credentials come from.
pub fn act(tasks: &mut Tasks, socket: &Path, acts: &mut Acts) -> io::Result<()> {
    let mut later = Tasks::new();
    let acted = act_now(tasks, &mut later, socket, acts);
    // Not before: what is planned for a unit by its name would take away what is put off for it as an instance.
    for (unit, task) in later {
        plan::add(tasks, unit, task);
    }
    acted
}

fn act_now(tasks: &mut Tasks, later: &mut Tasks, socket: &Path, acts: &mut Acts) -> io::Result<()> {
    let manager = &mut Manager::connect()?;
    let is_system_up = is_up(&manager.state()?);
    // A restart covers what else is planned for an instance of a template.
    let mut done = BTreeSet::new();
    let mut planned: Vec<_> = tasks.clone().into_iter().collect();
    planned.sort_by(|(_, one), (_, other)| other.action.cmp(&one.action));
    for (pattern, task) in planned {
        let found =
            manager.list(&["active", "reloading", "refreshing", "activating", "failed"], &[&pattern])?;
        // A name may be an alias, which no list has.
        let named = if pattern.contains('*') { Vec::new() } else { vec![pattern.clone()] };
        for name in found.into_iter().chain(named) {
            let Some(unit) = answered(&name, manager.unit(&name))? else { continue };
            if !done.insert(unit.id.clone()) {
                continue;
            }
            if !unit.is_known() {
                warn!(
                    "a secret changed, and there is no unit {name} to be told: correct its name in the configuration"
                );
                continue;
            }
            let [action, then] = suited(&task, &unit, socket);
            let acted = match unit.state() {
                // What it was told before is to be over.
                "reloading" | "refreshing" if *action == OnChange::Restart => {
                    later.insert(unit.id, task.clone());
                    continue;
                }
                "active" | "reloading" | "refreshing" => {
                    if *then != OnChange::Nothing {
                        later.insert(unit.id.clone(), Task::of_a_file(then));
                    }
                    act_on(manager, &unit.id, action, acts)
                }
                // It may have the old value already.
                "activating" if action.max(then) >= &OnChange::ReloadOrRestart => {
                    act_on(manager, &unit.id, action.max(then), acts)
                }
                "activating" => {
                    later.insert(unit.id, task.clone());
                    continue;
                }
                "failed" if is_system_up && is_startable(&unit, manager) && is_wanted(&unit, manager) => {
                    start(manager, &unit.id, "a secret changed")
                }
                _ => Ok(()),
            };
            answered(&unit.id, acted)?;
        }
        tasks.remove(&pattern);
    }
    Ok(())
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

fn act_on(manager: &mut Manager, unit: &str, action: &OnChange, acts: &mut Acts) -> io::Result<()> {
    let (word, call) = match action {
        OnChange::Nothing => return Ok(()),
        OnChange::Signal(signal) => {
            records::secret_changed(&format!("kill --kill-whom=main --signal={}", signal.as_str()), unit);
            return manager.kill(unit, signal.number());
        }
        OnChange::Restart => ("try-restart", "TryRestartUnit"),
        OnChange::Reload => ("reload", "ReloadUnit"),
        OnChange::ReloadOrRestart => ("try-reload-or-restart", "ReloadOrTryRestartUnit"),
    };
    records::secret_changed(word, unit);
    match manager.queue(call, unit, "replace") {
        Ok(job) => drop(acts.begun.insert(job, (unit.to_owned(), word))),
        // It said no.
        Err(error) if error.kind() == io::ErrorKind::Other => acts.failed(unit, word, &error.to_string()),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Starts a unit, whatever its start limit says, and does not wait for it.
fn start(manager: &mut Manager, unit: &str, why: &str) -> io::Result<()> {
    records::unit_started(unit, why);
    // Where it is not in memory, there is nothing to forget.
    let _ = manager.reset_failed(unit);
    // A job that is in the way has its reasons.
    manager.queue("StartUnit", unit, "fail").map(drop)
}

/// Starts what was left behind and can go on now. `scans`: looks at everything that is down first.
pub fn recover(left: &mut Left, provided: &Provided, scans: bool) -> io::Result<()> {
    let mut manager = Manager::connect()?;
    if scans {
        let down = manager.list(&["inactive", "failed"], &[])?;
        left.scan(&down, provided, &mut manager);
    }
    if left.is_empty() || !is_up(&manager.state()?) {
        return Ok(());
    }
    for unit in left.next_starts(provided, &mut manager) {
        if let Err(error) = start(&mut manager, &unit, "what it lacked is there") {
            warn!("{unit}: {error}");
        }
    }
    Ok(())
}
