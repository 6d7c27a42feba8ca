//! Whether a unit that is down may be started: something wants it, and nothing and nobody keeps it down.

use std::collections::BTreeSet;

use crate::systemd::manager::Unit;

/// The states of the system in which units are started.
const UP: [&str; 4] = ["initializing", "starting", "running", "degraded"];
/// What triggers units: these come by themselves.
const TRIGGERS: [&str; 4] = [".timer", ".socket", ".path", ".automount"];

/// Looks at a unit; `None` if that cannot be done now.
pub trait Look {
    fn unit(&mut self, name: &str) -> Option<Unit>;
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
