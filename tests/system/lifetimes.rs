//! What waits outlives us: crashes, restarts, stops and reloads.

use std::time::Duration;

use serde_json::json;

use crate::machine::Machine;
use crate::opnix::*;

const UNITS: usize = 50;

/// Fifty units that wait for one secret of a vault which does not answer.
/// (Each asks a single time: of two processes of a unit, the second would hide that the first got an empty value.)
fn fifty_waiting(machine: &Machine) -> crate::lease::Lease {
    fifty_waiting_for(machine, "")
}

/// The same, for a service with these further lines in its unit.
fn fifty_waiting_for(machine: &Machine, more: &str) -> crate::lease::Lease {
    set_up(machine, &[secret("slow", &["waiter@*.service"])], &[("slow", value("slow"))], "60s");
    machine.unit("opnix.service.d/60-more.conf", &format!("[Service]\n{more}\n"));
    asks_once(machine, "waiter@.service", "slow");
    let vault = slow_vault(machine);
    start(machine, 1, UNITS);
    stored(machine, UNITS);
    vault
}

fn start(machine: &Machine, from: usize, to: usize) {
    let units = format!("$(printf 'waiter@%s.service ' $(seq {from} {to}))");
    machine.sh(&format!("systemctl start --no-block {units}")).ok();
}

fn in_state(machine: &Machine, state: &str) -> usize {
    let list = machine.systemctl(&["list-units", "--all", "--plain", "--no-legend", "waiter@*"]).ok();
    list.lines().filter(|line| line.split_whitespace().nth(2) == Some(state)).count()
}

fn all_started(machine: &Machine) {
    machine.wait("all to start", || in_state(machine, "active") == UNITS, LONG);
    let right = format!(
        "for n in $(seq {UNITS}); do [ \"$(cat /run/got-waiter@$n.service)\" = {} ]; done",
        value("slow")
    );
    machine.sh(&right).ok();
    stored(machine, 0);
    machine.sh("systemctl stop 'waiter@*'; systemctl reset-failed; rm -rf /run/got /run/got-*").ok();
}

pub fn units_that_wait_survive_a_kill(machine: &Machine) {
    let vault = fifty_waiting(machine);
    machine.sh("systemctl kill --signal=KILL opnix.service").ok();
    machine.wait("the next instance", || machine.show("opnix.service", "NRestarts") != "0", LONG);
    machine.wait("it to run", || machine.show("opnix.service", "SubState") == "running", LONG);
    assert_eq!(in_state(machine, "active"), 0);
    drop(vault);
    all_started(machine);
}

pub fn units_that_wait_survive_a_restart(machine: &Machine) {
    let vault = fifty_waiting(machine);
    machine.systemctl(&["restart", "opnix.service"]).ok();
    assert_eq!(in_state(machine, "active"), 0);
    drop(vault);
    all_started(machine);
}

pub fn units_that_begin_to_wait_during_a_restart_are_served_as_well(machine: &Machine) {
    set_up(machine, &[secret("slow", &["waiter@*.service"])], &[("slow", value("slow"))], "60s");
    asks_once(machine, "waiter@.service", "slow");
    let vault = slow_vault(machine);
    start(machine, 1, UNITS / 2);
    stored(machine, UNITS / 2);
    let restart = machine.spawn(&["systemctl", "restart", "opnix.service"]);
    // The old instance has stopped accepting, and takes two seconds to give up on what waits.
    machine.wait("the drain", || machine.show("opnix.service", "SubState") == "stop-sigterm", LONG);
    start(machine, UNITS / 2 + 1, UNITS);
    restart.wait().ok();
    // Those that came just before it heard of its end may be among them.
    let left = machine.journal(&["MESSAGE_ID=8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c08"]);
    let left = left[0]["MESSAGE"].as_str().and_then(|text| text.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    assert!((UNITS / 2..UNITS).contains(&left), "left {left}");
    stored(machine, UNITS);
    assert_eq!(in_state(machine, "active"), 0);
    drop(vault);
    all_started(machine);
}

pub fn units_that_wait_survive_a_package_upgrade(machine: &Machine) {
    let vault = fifty_waiting(machine);
    let running =
        || machine.sh("sha256sum </proc/$(systemctl show --value -p MainPID opnix.service)/exe").ok();
    let old = running();
    upgrade_to_another_program(machine, &["opnix.service"]);
    assert_ne!(running(), old, "the new program runs");
    assert_eq!(in_state(machine, "active"), 0);
    drop(vault);
    all_started(machine);
}

/// What the release before does with a request that waits, whose program had no keeper: it puts the connection into
/// systemd's store by the same name, and keeps nothing else there. Of one it has begun to answer.
const RELEASE_BEFORE: &str = r"
import os, signal, socket
BEGUN = 6
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
listener = socket.socket(fileno=3 + os.environ['LISTEN_FDNAMES'].split(':').index('creds'))
systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
systemd.connect(os.environ['NOTIFY_SOCKET'].replace('@', '\0', 1))
systemd.send(b'READY=1')
connections = []
while True:
    connection, address = listener.accept()
    if address.endswith(b'/begun'):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, BEGUN)
        connection.send(b'the beginning of a value')
    message = b'FDSTORE=1\nFDNAME=request-%d\nFDPOLL=0' % os.fstat(connection.fileno()).st_ino
    socket.send_fds(systemd, [message], [connection.fileno()])
    connections.append(connection)
";

/// Units wait for the release before, in a unit file like its own; then comes this one.
fn upgrade(machine: &Machine, end: &str) {
    let secrets = [secret("slow", &["waiter@*.service"]), secret("begun", &["begun.service"])];
    set_up(machine, &secrets, &[("slow", value("slow")), ("begun", value("begun"))], "60s");
    machine.write("/run/release-before.py", RELEASE_BEFORE, "0644");
    // Python takes longer to start than the watchdog of a busy machine may wait, and sends no heartbeat.
    let before = Lines::of(
        machine,
        "opnix.service",
        "[Service]\nExecStart=\nExecStart=python3 /run/release-before.py\nKillMode=mixed\nOOMScoreAdjust=0\n\
         WatchdogSec=0\n",
    );
    asks_once(machine, "waiter@.service", "slow");
    consumer(machine, "begun.service", "begun", "");
    let vault = slow_vault(machine);
    start(machine, 1, UNITS);
    machine.systemctl(&["start", "--no-block", "begun.service"]).ok();
    let kept = || machine.show("opnix.service", "NFileDescriptorStore") == (UNITS + 1).to_string();
    machine.wait("all requests to be in its store", kept, LONG);
    drop(before);
    machine.sh(end).ok();
    // What waits, but not what was begun; and the records of this release.
    stored(machine, UNITS);
    assert_eq!(in_state(machine, "active"), 0);
    machine.wait("the refusal", || machine.show("begun.service", "ActiveState") == "failed", LONG);
    assert_refused(machine, "begun.service", "begun", "interrupted");
    drop(vault);
    all_started(machine);
}

pub fn units_that_wait_survive_the_upgrade_from_the_release_before(machine: &Machine) {
    upgrade(machine, "systemctl restart opnix.service");
}

pub fn units_that_wait_survive_a_kill_of_the_release_before_after_the_upgrade(machine: &Machine) {
    upgrade(machine, "systemctl kill --signal=KILL opnix.service");
}

pub fn a_service_that_hangs_is_replaced_and_units_that_wait_are_served(machine: &Machine) {
    let vault = fifty_waiting_for(machine, "WatchdogSec=1s");
    let hung = machine.show("opnix.service", "MainPID");
    // It lives on its heartbeat for longer than the watchdog's time.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(machine.show("opnix.service", "MainPID"), hung, "it does not hang yet");
    machine.sh("systemctl kill --signal=STOP opnix.service").ok();
    machine.wait("the next instance", || machine.show("opnix.service", "NRestarts") == "1", LONG);
    machine.wait("it to run", || machine.show("opnix.service", "SubState") == "running", LONG);
    assert_eq!(machine.journal(&["UNIT=opnix.service", "UNIT_RESULT=watchdog"]).len(), 1);
    assert_eq!(in_state(machine, "active"), 0);
    drop(vault);
    all_started(machine);
}

fn all_refused(machine: &Machine) {
    machine.wait("all to fail", || in_state(machine, "failed") == UNITS, LONG);
    let statuses = machine.systemctl(&["show", "--value", "--property=ExecMainStatus", "waiter@*"]).ok();
    assert_eq!(statuses.lines().filter(|&status| status == "243").count(), UNITS, "{statuses}");
    machine.sh("systemctl reset-failed; rm -rf /run/got /run/got-*").ok();
}

pub fn units_that_wait_are_refused_when_the_service_is_stopped(machine: &Machine) {
    let vault = fifty_waiting(machine);
    machine.systemctl(&["stop", "opnix-mirror.service", "opnix.service", "opnix.socket"]).ok();
    all_refused(machine);
    let stopping = machine.journal(&[&format!("MESSAGE_ID={REFUSED}"), "OPNIX_CHECK=stopping"]);
    assert_eq!(stopping.len(), UNITS);
    drop(vault);
}

/// Where no instance follows, what the keeper gave to systemd would end with the store: empty.
pub fn units_that_wait_are_refused_when_the_worker_dies_or_hangs_while_it_is_stopped(machine: &Machine) {
    for signal in ["KILL", "STOP"] {
        let vault = fifty_waiting(machine);
        let worker = worker(machine);
        if signal == "STOP" {
            machine.run(&["kill", "-STOP", &worker]).ok();
        }
        machine.systemctl(&["stop", "--no-block", "opnix.service", "opnix.socket"]).ok();
        if signal == "KILL" {
            let stopping = || machine.show("opnix.service", "SubState") == "stop-sigterm";
            machine.wait("the stop", stopping, LONG);
            machine.run(&["kill", "-KILL", &worker]).ok();
        }
        all_refused(machine);
        drop(vault);
    }
}

/// systemd would take a question that nobody answers any more for a reason to start the service again, and give the stop up.
pub fn who_asks_in_the_moment_of_a_stop_does_not_start_the_service_again(machine: &Machine) {
    let vault = fifty_waiting(machine);
    let asking = "for n in $(seq 200); do opnix status >/dev/null 2>&1; done";
    machine.run(&["systemd-run", "--quiet", "--unit=asks", "sh", "-c", asking]).ok();
    machine.systemctl(&["stop", "opnix.service", "opnix.socket"]).ok();
    all_refused(machine);
    machine.wait("it to give up", || machine.show("asks.service", "ActiveState") != "active", LONG);
    assert_eq!(machine.show("opnix.service", "ActiveState"), "inactive");
    drop(vault);
}

/// The worker reads what the keeper passes on when it has time: here, after hundreds of other signals.
pub fn the_signal_to_stop_is_not_lost_among_others(machine: &Machine) {
    let vault = fifty_waiting(machine);
    let worker = worker(machine);
    machine.run(&["kill", "-STOP", &worker]).ok();
    machine
        .sh("main=$(systemctl show --value -p MainPID opnix.service); for n in $(seq 600); do kill -HUP $main; done")
        .ok();
    machine.systemctl(&["stop", "--no-block", "opnix.service", "opnix.socket"]).ok();
    machine.wait("the stop", || machine.show("opnix.service", "SubState") == "stop-sigterm", LONG);
    machine.run(&["kill", "-CONT", &worker]).ok();
    all_refused(machine);
    machine.wait("its end", || machine.show("opnix.service", "ActiveState") == "inactive", LONG);
    drop(vault);
}

pub fn a_broken_configuration_keeps_the_old_one(machine: &Machine) {
    set_up(machine, &[secret("key", &["old.service"])], &[("key", value("key"))], "30s");
    consumer(machine, "old.service", "key", "");
    machine.systemctl(&["start", "old.service"]).ok();
    machine.write("/etc/opnix/secrets.json", "{\"secrets\": [{\"nmae\": 1}]}", "0644");
    machine.systemctl(&["reload", "opnix.service"]).fails();
    machine.sh("systemctl kill --signal=HUP opnix.service").ok();
    let kept = || machine.show("opnix.service", "StatusText").starts_with("Kept the old configuration");
    machine.wait("it to say so", kept, LONG);
    machine.systemctl(&["restart", "old.service"]).ok();
    assert_eq!(found(machine, "old.service"), value("key").into_bytes());
    let place = machine.journal_text();
    assert!(place.contains("secrets.json:1:15: unknown key \"nmae\""), "{place}");
    // Mended, it is taken.
    configure(machine, &[secret("key", &["new.service"])], "30s");
    machine.systemctl(&["reload", "opnix.service"]).ok();
    consumer(machine, "new.service", "key", "");
    machine.wait("the new one", || machine.systemctl(&["restart", "new.service"]).code == Some(0), LONG);
    machine.systemctl(&["restart", "old.service"]).fails();
    machine.sh("systemctl reset-failed").ok();
}

/// While somebody writes the files, the service may find other ones than who looks after it: it is the service that tells.
pub fn a_reload_that_ends_well_has_the_new_configuration_in_force(machine: &Machine) {
    set_up(machine, &[], &[("one", value("one")), ("two", value("two"))], "30s");
    consumer(machine, "taken.service", "key", "");
    machine.sh("mkdir -p /etc/opnix/secrets.d; systemctl start opnix.service").ok();
    let writes =
        machine.spawn(&["sh", "-c", "while :; do echo '{}' >/etc/opnix/secrets.d/written.json; done"]);
    let mut taken = 0;
    for round in 0..12 {
        let name = ["one", "two"][round % 2];
        let reference = format!("op://Vault/{name}/value");
        configure(
            machine,
            &[json!({"name": "key", "reference": reference, "units": ["taken.service"]})],
            "30s",
        );
        if machine.systemctl(&["reload", "opnix.service"]).code == Some(0) {
            taken += 1;
            machine.systemctl(&["restart", "taken.service"]).ok();
            assert_eq!(found(machine, "taken.service"), value(name).into_bytes(), "round {round}");
        }
    }
    drop(writes);
    assert!(taken > 0, "none was seen whole");
    machine.sh("rm -r /etc/opnix/secrets.d; systemctl reload opnix.service").ok();
}

pub fn a_service_that_starts_with_a_broken_configuration_refuses_and_says_so(machine: &Machine) {
    set_up(machine, &[], &[("key", value("key"))], "30s");
    machine.write("/etc/opnix/secrets.json", "{", "0644");
    consumer(machine, "early.service", "key", "");
    machine.systemctl(&["start", "early.service"]).fails();
    assert_refused(machine, "early.service", "key", "configuration");
    configure(machine, &[secret("key", &["early.service"])], "30s");
    machine.systemctl(&["reload", "opnix.service"]).ok();
    // Nothing wants it but who started it: so it is for them to do that again.
    machine.wait(
        "a start",
        || machine.systemctl(&["restart", "early.service"]).code == Some(0),
        Duration::from_secs(10),
    );
}
