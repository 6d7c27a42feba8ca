//! `opnix demo`: the whole product in ten seconds, with made-up secrets and no account.

mod host;
mod manager;

use std::time::{Duration, Instant};

use super::status::{Styled, bad, good};
use super::{Exit, fail};
use crate::cli::output::say;
use crate::documents::document;
use host::{Host, SECRETS};
use manager::{Manager, Outcome};

/// See opnix at work, with made-up secrets: needs no account and no root
///
/// Makes a throw-away vault, starts the service on a throw-away socket, and lets five units ask for their secrets:
/// real units, where a service manager is at hand, else a client that connects exactly as systemd does. Then a unit
/// asks for a secret that is not its own, and a process pretends to be a unit that it is not.
#[derive(clap::Args)]
pub struct Arguments {}

type Failure = Box<dyn std::error::Error>;

pub fn run(_: Arguments) -> Exit {
    match show() {
        Ok(true) => Exit::Ok,
        Ok(false) => fail(Exit::Software, "the demo did not go as it should: please report what is above"),
        Err(error) => fail(Exit::Unavailable, format_args!("the demo cannot run here: {error}")),
    }
}

fn show() -> Result<bool, Failure> {
    let manager = Manager::at_hand();
    let host = Host::start(&manager)?;
    say!("opnix demo: five made-up secrets, five units, one vault, nobody's account.");
    say!("Asking: {manager}.\n");

    let mut well = true;
    say!("Each unit says LoadCredential=NAME:{}, and finds:\n", host.socket.display());
    for secret in &SECRETS {
        let begun = Instant::now();
        let outcome = manager.start(&host.socket, secret.unit, secret.name)?;
        let time = begun.elapsed();
        let right = matches!(&outcome, Outcome::Started(value) if *value == host.value_of(secret).as_bytes());
        well &= right;
        let found = match &outcome {
            Outcome::Started(value) => String::from_utf8_lossy(value).trim_end().to_owned(),
            Outcome::Refused => "REFUSED".into(),
        };
        let found = shortened(&found);
        row(secret.unit, secret.name, if right { good(found) } else { bad(found) }, Some(time));
    }

    say!("\nA unit that asks for a secret which is not mapped to it does not start:\n");
    let (intruder, key) = ("opnix-demo-intruder.service", SECRETS[0].name);
    let outcome = manager.start(&host.socket, intruder, key)?;
    well &= outcome == Outcome::Refused;
    row(intruder, key, bad(verdict(&outcome, &host.last_reason())), None);

    say!("\nA process that takes the name of a unit is caught by its cgroup:\n");
    let (outcome, reason) = host.forge(SECRETS[0].unit, key)?;
    well &= outcome == Outcome::Refused && reason.contains("forged");
    row(&format!("\"{}\"", SECRETS[0].unit), key, bad(verdict(&outcome, &reason)), None);

    if let Some(median) = host.time_from_memory(&manager)? {
        say!("\nFrom memory, an answer takes {} (median of {} requests).", human(median), host::TIMED);
    }
    say!(
        "\nNext: {} shows the unit file and the configuration for secrets of your own.",
        document("README.md")
    );
    Ok(well)
}

fn row(unit: &str, credential: &str, what: Styled<String>, time: Option<Duration>) {
    let time = time.map(|time| format!("  {}", human(time))).unwrap_or_default();
    say!("  {unit:<31} {credential:<26} {what:<36}{time}");
}

fn verdict(outcome: &Outcome, reason: &str) -> String {
    match outcome {
        Outcome::Refused => format!("refused: {reason}"),
        Outcome::Started(value) => format!("GOT {} BYTES", value.len()),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(34) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn human(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..1000 => format!("{micros} µs"),
        micros => format!("{:.1} ms", micros as f64 / 1000.0),
    }
}
