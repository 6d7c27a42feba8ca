//! `opnix status UNIT` and `opnix explain UNIT`: what concerns one unit.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use super::page::{Page, bad, doubtful, good};
use super::service::{describe_missed, describe_state};
use super::verdict::{Refused, is_servable, over};
use super::{Look, View, describe_refusal, describe_request, files, relative, socket};
use crate::cli::Exit;
use crate::cli::control::{ControlArguments, Unanswered};
use crate::control::interface::{Control, Held, MirroredFile, Status, UnitState, whole_status};
use crate::names::{NameError, UnitName};
use crate::systemd::manager::{Manager, Unit};
use crate::systemd::running::Load;
use crate::systemd::unit_files::UnitFiles;

/// What is known of a unit.
struct About<'a> {
    /// As it was asked for, and its own.
    name: &'a str,
    own: &'a str,
    /// As its service manager has it.
    unit: Option<&'a Unit>,
    state: &'a UnitState,
    status: &'a Status,
    refused: Vec<Refused>,
    /// What it loads from the service and may not have.
    denied: Vec<Load>,
    looks: &'a [Look],
    mirror: &'a files::Mirror,
    /// Why nobody is given anything.
    unheard: Option<String>,
}

/// As systemctl takes it.
fn with_suffix(name: &str) -> String {
    match name.parse::<UnitName>() {
        Err(NameError::NoSuffix(_)) => format!("{name}.service"),
        _ => name.to_owned(),
    }
}

/// The unit's own name on this machine, by its service manager or its files.
pub fn own_name(name: &str, control: &ControlArguments) -> String {
    let running = control.manager().and_then(|mut manager| manager.unit(name).ok());
    if let Some(unit) = running.filter(Unit::is_known) {
        return unit.id;
    }
    UnitFiles::of_the_machine().map_or_else(|_| name.to_owned(), |files| files.own_name(name).to_owned())
}

/// Shows it as `opnix status UNIT` does.
pub fn show(name: &str, control: &ControlArguments) -> Result<Exit, Unanswered> {
    look(name, true, control).map(|view| view.show(false))
}

pub(super) fn look(name: &str, pretty: bool, control: &ControlArguments) -> Result<View, Unanswered> {
    let name = &with_suffix(name);
    // Without root's rights nobody says how it is, and which are its other names.
    let mut manager = control.manager();
    let unit = manager.as_mut().and_then(|manager| manager.unit(name).ok());
    let own = unit.as_ref().map_or(name, |unit| &unit.id);
    let state = control.ask(async |mut service| service.unit(own).await)?;
    let mut status = control.ask(async |mut service| whole_status(&mut service).await)?;
    status.files.retain(|file| file.services.contains(own));
    status.missed = state.missed.clone();
    // An older service tells of them for all units only.
    let of_it = |mut all: Vec<_>| {
        all.retain(|refusal: &crate::control::interface::Refusal| refusal.unit == *own);
        all
    };
    status.refusals = if state.refusals.is_empty() { of_it(status.refusals) } else { state.refusals.clone() };
    let socket = socket(control);
    let refused = super::refused(&status, |refusal| over(refusal, &status.requests, unit.as_ref()?, &socket));
    let looks = files::look_at(&status.files);
    let mirror = files::mirror(manager.as_mut());
    let denied = unit.as_ref().map_or_else(Vec::new, |unit| denied(unit, &state, &socket));
    let about = About {
        name,
        own,
        unit: unit.as_ref(),
        state: &state,
        status: &status,
        refused,
        denied,
        looks: &looks,
        mirror: &mirror,
        unheard: control.unheard(),
    };
    let mut page = Page::for_the_terminal();
    about.describe(&mut page, SystemTime::now());
    Ok(View::new(page, &state, pretty, about.exit()))
}

fn denied(unit: &Unit, state: &UnitState, socket: &Path) -> Vec<Load> {
    let may_have = |load: &Load| state.credentials.iter().any(|held| held.credential == load.id);
    unit.loads().into_iter().filter(|load| Path::new(&load.source) == socket && !may_have(load)).collect()
}

impl About<'_> {
    fn files(&self) -> impl Iterator<Item = (&MirroredFile, &Look)> + Clone {
        self.status.files.iter().zip(self.looks)
    }

    fn exit(&self) -> Exit {
        let is_had = |held: &Held| held.state.as_ref().is_none_or(|secret| is_servable(secret, self.status));
        let is_there = |(file, look): (&MirroredFile, &Look)| match look {
            Look::Missing => file.optional,
            Look::Other(_) => false,
            Look::Fine(_) | Look::Unknown(_) => true,
        };
        let is_fine = self.state.credentials.iter().all(is_had)
            && self.refused.iter().all(|refused| refused.over.is_some())
            && self.denied.is_empty()
            && self.files().all(is_there)
            && self.unheard.is_none()
            && self.status.obstacle.is_none()
            && !self.unit.is_some_and(Unit::lacked_credentials);
        if is_fine { Exit::Ok } else { Exit::Unavailable }
    }

    fn describe(&self, page: &mut Page, now: SystemTime) {
        let Self { name, own, unit, state, status, .. } = self;
        page.line(
            "unit",
            unit.map_or_else(|| (*own).to_owned(), |unit| format!("{own}, {}", describe_unit(unit))),
        );
        if let Some(why) = self.unheard.as_ref().or(status.obstacle.as_ref()) {
            page.line("obstacle", bad(why));
        }
        if own != name {
            page.line("unit", format_args!("{name} is another name of it"));
        }
        if !unit.is_none_or(Unit::is_known) {
            page.line("unit", bad("systemd knows no unit of this name"));
        }
        if state.credentials.is_empty() {
            page.line("may have", "nothing: the mapping has no secret for it");
        }
        let width = state.credentials.iter().map(|held| held.credential.len()).max().unwrap_or(0) + 2;
        let mut told = None;
        for held in &state.credentials {
            let credential = format!("\"{}\"", held.credential);
            let now_is = held.state.as_ref().map_or(String::new(), |secret| describe_state(secret, status));
            page.line("may have", format!("{credential:<width$}  {now_is}").trim_end());
            for reference in &held.references {
                page.line("may have", format_args!("    from {reference}"));
            }
            page.line("may have", format_args!("    {}", describe_held(held, *unit, now)));
            if let Some(secret) = held.state.as_ref().filter(|secret| !is_servable(secret, status)) {
                let provider = status.provider.as_ref();
                let of_the_provider =
                    || provider.and_then(|it| it.error.as_ref().or(it.token_error.as_ref()));
                let why = secret.error.as_ref().or_else(of_the_provider);
                let cannot = bad("cannot be had now");
                match why {
                    // Once is enough.
                    Some(why) if told == Some(why) => {
                        page.line("may have", format_args!("    {cannot}, as above"))
                    }
                    Some(why) => {
                        let why = why.replace('\n', "\n    ");
                        page.line("may have", format_args!("    {cannot}\n    {why}"));
                    }
                    None => page.line("may have", format_args!("    {cannot}")),
                }
                told = why;
            }
        }
        for load in &self.denied {
            let what = bad(format!("\"{}\", which the mapping does not give it", load.id));
            page.line("asks for", format_args!("{what}\nopnix explain {own} {}", load.id));
        }
        self.describe_refusals(page, now);
        for request in &state.requests {
            let what = format!("for \"{}\": {}", request.credential, describe_request(request, now));
            page.line("waiting", what);
        }
        if !status.files.is_empty() {
            self.mirror.describe(page, true);
            files::describe_all(page, self.files(), self.mirror, now);
        }
    }

    fn describe_refusals(&self, page: &mut Page, now: SystemTime) {
        for refused in &self.refused {
            let missed =
                self.status.missed.iter().find(|missed| missed.credential == refused.refusal.credential);
            match missed {
                Some(missed) => {
                    page.line("left out", format_args!("it {}", describe_missed(missed, self.status, now)));
                    page.line("left out", format_args!("    {}", missed.reason.replace('\n', "\n    ")));
                }
                None => describe_refusal(page, refused, self.status, now),
            }
        }
    }
}

/// What systemd says of it.
fn describe_unit(unit: &Unit) -> String {
    let state = unit.state();
    match (state, unit.result()) {
        ("active" | "reloading" | "refreshing", _) => good(state).to_string(),
        ("failed", _) if unit.lacked_credentials() => {
            bad("failed (243/CREDENTIALS: a process was not given its credentials)").to_string()
        }
        ("failed", result) => bad(format_args!("failed ({result})")).to_string(),
        (state, "" | "success") => state.to_owned(),
        (state, result) => doubtful(format_args!("{state} ({result})")).to_string(),
    }
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
        Some(false) => {
            format!(
                "{when}, and {} than the newest value: systemctl restart {}",
                doubtful("OLDER"),
                held.unit
            )
        }
        None => format!("{when}; whether there is a newer value is not known, as none is kept"),
    }
}

/// Whether what was given it is of no use any more: the unit does not run, or began to without asking again.
fn is_over(held: &Held, unit: &Unit) -> bool {
    !unit.is_running() || held.given_at.is_some_and(|at| unit.started() > at)
}

/// Those of units that run with it.
pub(super) fn what_runs(mut outdated: Vec<Held>, manager: Option<Manager>) -> Vec<Held> {
    let Some(mut manager) = manager.filter(|_| !outdated.is_empty()) else { return outdated };
    let running = manager.list(&["active", "reloading", "refreshing", "activating", "deactivating"], &[]);
    if let Ok(running) = running {
        let running: BTreeSet<String> = running.into_iter().collect();
        outdated.retain(|held| running.contains(&held.unit));
    }
    outdated.retain(|held| manager.unit(&held.unit).map_or(true, |unit| !is_over(held, &unit)));
    outdated
}

pub(super) fn describe_outdated(page: &mut Page, outdated: &[Held], now: SystemTime) {
    for Held { unit, credential, given_at, .. } in outdated {
        let since = given_at.map_or(String::new(), |at| format!(", given {}", relative(at, now)));
        page.line(
            "outdated",
            format_args!("{unit} goes on with an {} value of \"{credential}\"{since}", doubtful("older")),
        );
        page.line("outdated", format_args!("    systemctl restart {unit}"));
    }
}
