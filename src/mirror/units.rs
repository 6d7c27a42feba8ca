//! What is done to units: to those whose secret changed, and to those that missed theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use tracing::warn;

use super::plan;
use super::recover::{Left, Provided};
use super::startable::{Look, is_startable, is_up, is_wanted};
use crate::config::OnChange;
use crate::records;
use crate::systemd::manager::{Manager, Unit};

impl Look for Manager {
    fn unit(&mut self, name: &str) -> Option<Unit> {
        Self::unit(self, name).inspect_err(|error| warn!("how {name} is, is not known: {error}")).ok()
    }
}

/// Acts on units whose secret changed: on those that are active, and on those that failed, perhaps over the old value; on
/// each only once. What is left in `units` cannot be done yet: who is just starting has the old value already, and hears nothing
/// yet.
pub fn act(units: &mut BTreeMap<String, OnChange>) -> io::Result<()> {
    let mut later = BTreeMap::new();
    let acted = act_now(units, &mut later);
    // Not before: what is planned for a unit by its name would take away what is put off for it as an instance.
    for (unit, action) in later {
        plan::add(units, unit, &action);
    }
    acted
}

fn act_now(units: &mut BTreeMap<String, OnChange>, later: &mut BTreeMap<String, OnChange>) -> io::Result<()> {
    let manager = &mut Manager::connect()?;
    let is_system_up = is_up(&manager.state()?);
    // A restart covers what else is planned for an instance of a template.
    let mut done = BTreeSet::new();
    let mut planned: Vec<_> = units.clone().into_iter().collect();
    planned.sort_by(|(_, one), (_, other)| other.cmp(one));
    for (pattern, action) in planned {
        let found =
            manager.list(&["active", "reloading", "refreshing", "activating", "failed"], &[&pattern])?;
        // A name may be an alias, which no list has.
        let named = if pattern.contains('*') { Vec::new() } else { vec![pattern.clone()] };
        for name in found.into_iter().chain(named) {
            let Some(unit) = answered(&name, manager.unit(&name))? else { continue };
            if !done.insert(unit.id.clone()) {
                continue;
            }
            let acted = match unit.state() {
                "active" | "reloading" | "refreshing" => act_on(manager, &unit.id, &action),
                // It may have the old value already.
                "activating" if action >= OnChange::ReloadOrRestart => act_on(manager, &unit.id, &action),
                "activating" => {
                    later.insert(unit.id, action.clone());
                    continue;
                }
                "failed" if is_system_up && is_startable(&unit, manager) && is_wanted(&unit, manager) => {
                    start(manager, &unit.id, "a secret changed")
                }
                _ => Ok(()),
            };
            answered(&unit.id, acted)?;
        }
        units.remove(&pattern);
    }
    Ok(())
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

fn act_on(manager: &mut Manager, unit: &str, action: &OnChange) -> io::Result<()> {
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
    manager.queue(call, unit, "replace")
}

/// Starts a unit, whatever its start limit says, and does not wait for it.
fn start(manager: &mut Manager, unit: &str, why: &str) -> io::Result<()> {
    records::unit_started(unit, why);
    // Where it is not in memory, there is nothing to forget.
    let _ = manager.reset_failed(unit);
    // A job that is in the way has its reasons.
    manager.queue("StartUnit", unit, "fail")
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
