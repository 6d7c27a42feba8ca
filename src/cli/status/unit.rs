//! `opnix status UNIT`: what concerns one unit.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::{describe_missed, describe_request, relative};
use crate::cli::control::ControlArguments;
use crate::cli::output::say;
use crate::cli::{Exit, fail};
use crate::control::interface::{Control, Held, UnitState};
use crate::names::{NameError, UnitName};
use crate::systemd::manager::{Manager, Unit};

pub fn run(name: &str, json: bool, control: &ControlArguments) -> Exit {
    // As systemctl takes it.
    let name = match name.parse::<UnitName>() {
        Err(NameError::NoSuffix(_)) => &format!("{name}.service"),
        _ => name,
    };
    // Without root's rights nobody says how it is, and which are its other names.
    let unit = control.manager().and_then(|mut manager| manager.unit(name).ok());
    let own = unit.as_ref().map_or(name, |unit| &unit.id);
    let state = match control.ask(async |mut service| service.unit(own).await) {
        Ok(state) => state,
        Err(why) => return control.fail(why),
    };
    if json {
        match serde_json::to_string_pretty(&state) {
            Ok(text) => say!("{text}"),
            Err(error) => return fail(Exit::Software, error),
        }
    } else {
        crate::cli::output::to_stdout(format_args!(
            "{}",
            describe(name, own, unit.as_ref(), &state, SystemTime::now())
        ));
    }
    if state.missed.is_empty() { Exit::Ok } else { Exit::Unavailable }
}

fn describe(name: &str, own: &str, unit: Option<&Unit>, state: &UnitState, now: SystemTime) -> String {
    let mut text = String::new();
    let mut line = |name: &str, what: String| text.push_str(&format!("{name:<10} {what}\n"));
    let is_there = unit.is_none_or(Unit::is_known);
    line("unit", unit.map_or(own.to_owned(), |unit| format!("{own}, {}", unit.state())));
    if own != name {
        line("", format!("{name} is another name of it"));
    }
    if !is_there {
        line("", "systemd knows no unit of this name".to_owned());
    }
    if state.credentials.is_empty() {
        line("may have", "nothing: the mapping has no secret for it".to_owned());
    }
    let width = state.credentials.iter().map(|held| held.credential.len()).max().unwrap_or(0) + 2;
    for (number, held) in state.credentials.iter().enumerate() {
        let credential = format!("\"{}\"", held.credential);
        let what = format!("{credential:<width$}  {}", describe_held(held, unit, now));
        line(if number == 0 { "may have" } else { "" }, what);
    }
    for (number, missed) in state.missed.iter().enumerate() {
        line(if number == 0 { "left out" } else { "" }, format!("it {}", describe_missed(missed, now)));
        line("", format!("    {}", missed.reason));
    }
    for (number, request) in state.requests.iter().enumerate() {
        let what = format!("for \"{}\": {}", request.credential, describe_request(request, now));
        line(if number == 0 { "waiting" } else { "" }, what);
    }
    text
}

fn describe_held(held: &Held, unit: Option<&Unit>, now: SystemTime) -> String {
    let Some(at) = held.given_at else {
        return "not asked for since the boot, as far as opnix remembers".to_owned();
    };
    let when = format!("given {}", relative(at, now));
    let is_over = unit.is_some_and(|unit| is_over(held, unit));
    match held.is_newest {
        _ if is_over => format!("{when}, to what does not run any more"),
        Some(true) => format!("{when}, and the newest value"),
        Some(false) => format!("{when}, and OLDER than the newest value: systemctl restart {}", held.unit),
        None => format!("{when}; whether there is a newer value is not known, as none is kept"),
    }
}

/// Whether what was given it is of no use any more: the unit does not run, or began to without asking again.
fn is_over(held: &Held, unit: &Unit) -> bool {
    !unit.is_running() || held.given_at.is_some_and(|at| unit.started() > at)
}

/// Those of units that run with it.
pub fn what_runs(mut outdated: Vec<Held>, manager: Option<Manager>) -> Vec<Held> {
    let Some(mut manager) = manager.filter(|_| !outdated.is_empty()) else { return outdated };
    let running = manager.list(&["active", "reloading", "refreshing", "activating", "deactivating"], &[]);
    if let Ok(running) = running {
        let running: BTreeSet<String> = running.into_iter().collect();
        outdated.retain(|held| running.contains(&held.unit));
    }
    outdated.retain(|held| manager.unit(&held.unit).map_or(true, |unit| !is_over(held, &unit)));
    outdated
}

pub fn describe_outdated(outdated: &[Held], now: SystemTime) -> String {
    let mut text = String::new();
    for (number, held) in outdated.iter().enumerate() {
        let name = if number == 0 { "outdated" } else { "" };
        let Held { unit, credential, .. } = held;
        let since = held.given_at.map_or(String::new(), |at| format!(", given {}", relative(at, now)));
        text.push_str(&format!(
            "{name:<10} {unit} goes on with an older value of \"{credential}\"{since}\n           \x20   systemctl restart {unit}\n"
        ));
    }
    text
}
