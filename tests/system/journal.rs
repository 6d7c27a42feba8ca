//! The record when the journal is slow, hangs or limits: units start all the same, and a gap is visible.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::crowd::Crowd;
use crate::machine::Machine;
use crate::opnix::*;

const WATCHDOG: Duration = Duration::from_secs(2);
const WATCHDOG_LINES: &str = "[Service]\nWatchdogSec=2s\n";

/// Sends until the journal's queue is full: a blocking send waits from then on. What one socket may have on its way is less
/// than what the queue takes, so it is full when a new one cannot send at all.
const FILL: &str = r"
import socket, time
sockets, rounds = [], 0
while rounds < 3:
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journal.connect('/run/systemd/journal/socket')
    journal.setblocking(False)
    sockets.append(journal)
    sent = 0
    try:
        while True:
            journal.send(b'MESSAGE=fills the queue\n')
            sent += 1
    except BlockingIOError:
        pass
    # Also what journald takes before it stops is to be made up for.
    rounds = 0 if sent else rounds + 1
    time.sleep(0 if sent else 0.05)
";

/// journald stopped, with its queue full, while this lives. Nothing can be read from the journal meanwhile.
struct Hung<'a>(&'a Machine);

impl<'a> Hung<'a> {
    fn journal(machine: &'a Machine) -> Self {
        machine.run(&["journalctl", "--sync"]).ok();
        machine.systemctl(&["kill", "--signal=STOP", "systemd-journald.service"]).ok();
        let hung = Hung(machine);
        machine.run(&["python3", "-c", FILL]).ok();
        hung
    }
}

impl Drop for Hung<'_> {
    fn drop(&mut self) {
        let _ = self.0.systemctl(&["kill", "--signal=CONT", "systemd-journald.service"]);
    }
}

/// The sum of a field that counts, over these records.
fn total(records: &[Value], field: &str) -> usize {
    let count = |record: &Value| record[field].as_str().and_then(|count| count.parse::<usize>().ok());
    records.iter().filter_map(count).sum()
}

fn records(machine: &Machine) -> Value {
    let status = machine.run(&["opnix", "status", "--json"]).ok();
    let status: Value = serde_json::from_str(&status).expect("the status is JSON");
    status["records"].clone()
}

fn grants(machine: &Machine, unit: &str) -> usize {
    machine.journal(&[&kind("01"), &format!("OPNIX_UNIT={unit}")]).len()
}

/// A secret that is in memory, for `quick@*.service`, and a watchdog of two seconds.
fn cached(machine: &Machine) {
    set_up(machine, &[secret("key", &["quick@*.service"])], &[("key", value("key"))], "30s");
    machine.unit("opnix.service.d/60-more.conf", WATCHDOG_LINES);
    asks_once(machine, "quick@.service", "key");
    machine.systemctl(&["start", "quick@0.service"]).ok();
}

fn starts_whole(machine: &Machine, number: usize) {
    let unit = format!("quick@{number}.service");
    machine.systemctl(&["start", &unit]).ok();
    assert_eq!(String::from_utf8_lossy(&found(machine, &unit)), value("key"), "{unit}");
}

pub fn units_start_at_once_and_whole_while_the_journal_hangs(machine: &Machine) {
    const UNITS: usize = 12;
    cached(machine);
    let service = machine.show("opnix.service", "MainPID");
    let since = Instant::now();
    let hung = Hung::journal(machine);
    let began = Instant::now();
    starts_whole(machine, 1);
    assert!(began.elapsed() < WATCHDOG, "it waited {:?}", began.elapsed());
    for number in 2..UNITS {
        starts_whole(machine, number);
    }
    // Long enough for the watchdog to bite twice.
    std::thread::sleep((3 * WATCHDOG).saturating_sub(since.elapsed()));
    starts_whole(machine, UNITS);
    assert_eq!(machine.show("opnix.service", "MainPID"), service, "the watchdog has not killed it");
    assert_eq!(machine.show("opnix.service", "NRestarts"), "0");
    let told = records(machine);
    assert!(told["queued"].as_u64().is_some_and(|queued| queued >= UNITS as u64), "{told}");
    assert_eq!(told["dropped"], 0, "{told}");
    drop(hung);
    for number in 0..=UNITS {
        let on_record = || grants(machine, &format!("quick@{number}.service")) == 1;
        machine.wait(&format!("the record of start {number}"), on_record, LONG);
    }
    machine.wait("an empty queue", || records(machine)["queued"] == 0, LONG);
    assert_eq!(machine.journal(&[&kind("0f")]).len(), 0, "nothing was dropped");
}

/// Its end and its start both have something to say: there is a request that waits.
pub fn the_service_is_restarted_while_the_journal_hangs(machine: &Machine) {
    set_up(machine, &[secret("slow", &["patient.service"])], &[("slow", value("slow"))], "60s");
    machine.unit("opnix.service.d/60-more.conf", WATCHDOG_LINES);
    asks_once(machine, "patient.service", "slow");
    let vault = slow_vault(machine);
    machine.systemctl(&["start", "--no-block", "patient.service"]).ok();
    stored(machine, 1);
    let hung = Hung::journal(machine);
    // It takes two seconds to give up on what waits.
    machine.run(&["timeout", "10", "systemctl", "restart", "opnix.service"]).ok();
    assert_eq!(machine.show("opnix.service", "SubState"), "running");
    assert_eq!(machine.show("opnix.service", "Result"), "success");
    assert_eq!(machine.show("patient.service", "ActiveState"), "activating");
    drop(vault);
    machine.wait("its start", || machine.show("patient.service", "ActiveState") == "active", LONG);
    assert_eq!(found(machine, "patient.service"), value("slow").into_bytes());
    assert_eq!(machine.show("opnix.service", "NRestarts"), "0");
    drop(hung);
    // What the first instance had to say was not lost with it.
    for (digits, what) in [("08", "what was left"), ("07", "what was found"), ("01", "the grant")] {
        machine.wait(what, || machine.journal(&[&kind(digits)]).len() == 1, LONG);
    }
}

pub fn records_that_a_kill_left_in_the_queue_are_told_by_the_next_instance(machine: &Machine) {
    const UNITS: usize = 5;
    cached(machine);
    let hung = Hung::journal(machine);
    for number in 1..=UNITS {
        starts_whole(machine, number);
    }
    machine.sh(&format!("kill -KILL {}", worker(machine))).ok();
    machine.wait("the next instance", || machine.show("opnix.service", "NRestarts") == "1", LONG);
    machine.wait("it to run", || machine.show("opnix.service", "SubState") == "running", LONG);
    drop(hung);
    machine.wait("the next instance to say so", || !machine.journal(&[&kind("10")]).is_empty(), LONG);
    let told = machine.journal(&[&kind("10")]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(total(&told, "OPNIX_RECORDS") >= UNITS, "{told:?}");
    for number in 1..=UNITS {
        let on_record = || grants(machine, &format!("quick@{number}.service")) == 1;
        machine.wait(&format!("the record of start {number}"), on_record, LONG);
    }
}

pub fn what_finds_no_room_in_the_queue_is_counted_and_grants_go_first(machine: &Machine) {
    // A long name makes a long record: more than 4 MiB of them together.
    const NAME: &str = "quick-and-with-a-name-that-makes-its-records-longer-than-most";
    const COUNT: usize = 20_000;
    let unit = format!("{NAME}@1.service");
    let secrets = [secret("key", &[&format!("{NAME}@*.service"), "warm.service"])];
    set_up(machine, &secrets, &[("key", value("key"))], "30s");
    machine.unit("opnix.service.d/60-more.conf", WATCHDOG_LINES);
    asks_once(machine, "warm.service", "key");
    machine.systemctl(&["restart", "warm.service"]).ok();
    let hung = Hung::journal(machine);
    let crowd = Crowd::stream(machine, NAME, "key", COUNT);
    assert_eq!(crowd.answers(), [(value("key"), COUNT)].into());
    // Not a unit that systemd starts: it would take ten seconds to fail, for its own record of that.
    let stranger = Crowd::gather(machine, "stranger", "key", 1, 1);
    assert_eq!(stranger.answers(), [("refused".to_owned(), 1)].into());
    let told = records(machine);
    assert!(told["dropped"].as_u64().is_some_and(|dropped| dropped > 0), "{told}");
    drop(hung);
    machine.wait("an empty queue", || records(machine)["queued"] == 0, 2 * LONG);
    let gaps = || machine.journal(&[&kind("0f")]);
    machine.wait("the record of what was dropped", || !gaps().is_empty(), LONG);
    let told = gaps();
    assert_eq!(grants(machine, &unit) + total(&told, "OPNIX_DROPPED_GRANTS"), COUNT);
    assert!(grants(machine, &unit) > 1_000, "the queue holds 4 MiB");
    assert_eq!(total(&told, "OPNIX_DROPPED_REFUSALS"), 0, "{told:?}");
    assert_eq!(total(&told, "OPNIX_DROPPED_FAULTS"), 0, "{told:?}");
    let refusals = machine.journal(&[&kind("02"), "OPNIX_UNIT=stranger@1.service"]);
    assert_eq!(refusals.len(), 1, "{refusals:?}");
}

/// journald's own limits while this lives; the machine has them lifted for the other tests.
struct Limits<'a>(&'a Machine);

impl<'a> Limits<'a> {
    /// The interval is the default. Of the burst journald makes up to six times as much where a disk is large: with a tenth of
    /// the default's 10,000 it stays below what is sent here, wherever this runs.
    fn of_journald(machine: &'a Machine) -> Self {
        let lines = "[Journal]\nRateLimitIntervalSec=30s\nRateLimitBurst=1000\n";
        machine.write("/run/systemd/journald.conf.d/zzz-limits.conf", lines, "0644");
        let limits = Limits(machine);
        machine.systemctl(&["restart", "systemd-journald.service"]).ok();
        limits
    }
}

impl Drop for Limits<'_> {
    fn drop(&mut self) {
        let lift =
            "rm -f /run/systemd/journald.conf.d/zzz-limits.conf; systemctl restart systemd-journald.service";
        let _ = self.0.sh(lift);
    }
}

pub fn the_journals_rate_limit_takes_no_record(machine: &Machine) {
    const COUNT: usize = 12_000;
    let _limits = Limits::of_journald(machine);
    set_up(machine, &[secret("key", &["burst@*.service"])], &[("key", value("key"))], "30s");
    let crowd = Crowd::stream(machine, "burst", "key", COUNT);
    assert_eq!(crowd.answers(), [(value("key"), COUNT)].into());
    // What is in the queue may still be on its way.
    let end = Instant::now() + LONG / 2;
    let mut on_record = 0;
    while on_record < COUNT && Instant::now() < end {
        on_record = grants(machine, "burst@1.service");
    }
    assert_eq!(on_record, COUNT, "{}", suppressed(machine));
}

/// What journald says that it left out.
fn suppressed(machine: &Machine) -> String {
    machine.journal_text().lines().filter(|line| line.contains("Suppressed")).collect()
}

pub fn a_grant_is_on_record_when_the_value_was_delivered_and_a_wait_when_it_begins(machine: &Machine) {
    set_up(machine, &[secret("slow", &["patient.service"])], &[("slow", value("slow"))], "60s");
    asks_once(machine, "patient.service", "slow");
    let vault = slow_vault(machine);
    machine.systemctl(&["start", "--no-block", "patient.service"]).ok();
    machine.wait("any record of it", || !machine.journal(&["OPNIX_UNIT=patient.service"]).is_empty(), LONG);
    let said = machine.journal(&["OPNIX_UNIT=patient.service"]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(
        format!("MESSAGE_ID={}", said[0]["MESSAGE_ID"].as_str().unwrap_or("?")),
        kind("0e"),
        "{said:?}"
    );
    assert_eq!(said[0]["OPNIX_CREDENTIAL"], "slow");
    drop(vault);
    machine.wait("its start", || machine.show("patient.service", "ActiveState") == "active", LONG);
    machine.wait("the grant", || grants(machine, "patient.service") == 1, LONG);
    assert_eq!(machine.journal(&["OPNIX_UNIT=patient.service"]).len(), 2);
}
