//! What the other tests rely on in the machine itself.

use std::time::{Duration, Instant};

use crate::birth;
use crate::machine::Machine;
use crate::worker::{is_gone, is_stopped};

pub fn a_lease_holds_up_a_reader(machine: &Machine) {
    machine.write("/run/held", "bytes", "0600");
    let lease = machine.hold("/run/held");
    let mut reader = machine.spawn(&["cat", "/run/held"]);
    machine.wait("the reader at the file", || lease.is_awaited(), Duration::from_secs(5));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!reader.is_done());
    let released = Instant::now();
    drop(lease);
    assert_eq!(reader.wait().ok(), "bytes");
    assert!(released.elapsed() < Duration::from_secs(5));
}

pub fn a_test_sees_its_own_journal_records_only(machine: &Machine) {
    let say = |word: &str| machine.run(&["systemd-cat", "-t", "harness", "echo", word]).ok();
    let heard = || {
        let records = machine.journal(&["SYSLOG_IDENTIFIER=harness"]);
        records.iter().map(|record| record["MESSAGE"].as_str().unwrap_or("?").to_owned()).collect::<Vec<_>>()
    };
    say("before");
    assert_eq!(heard(), ["before"]);
    machine.begin();
    say("after");
    assert_eq!(heard(), ["after"]);
}

pub fn what_a_command_leaves_running_is_killed(machine: &Machine) {
    machine.sh("setsid sleep 4711 >/dev/null 2>&1 &").ok();
    let dropped = machine.spawn(&["sh", "-c", "sleep 4712 & sleep 4713"]);
    let sleeping =
        || machine.sh("cat /proc/[0-9]*/cmdline | tr -d '\\0' | grep -o '[s]leep471.' || true").ok();
    machine.wait("it to sleep", || sleeping().contains("4713"), Duration::from_secs(5));
    drop(dropped);
    assert_eq!(sleeping(), "");
}

pub fn a_process_is_stopped_at_its_birth(machine: &Machine) {
    machine.sh("mkdir -p /run/birth; rm -f /run/birth/*; mkfifo /run/birth/gate").ok();
    let gate = machine.path("/run/birth/gate");
    // After its exec, as a service without a keeper; the first one that it makes, as with one.
    for has_keeper in [false, true] {
        let program =
            "read _ </run/birth/gate; exec sh -c 'touch /run/birth/exec; touch /run/birth/child; sleep 60'";
        machine.unit("birth.service", &format!("[Service]\nExecStart=sh -c \"{program}\"\n"));
        machine.systemctl(&["restart", "birth.service"]).ok();
        let processes = || machine.processes("birth.service");
        let at_the_gate = || {
            let place = processes().first().map(|pid| std::fs::read_to_string(format!("/proc/{pid}/wchan")));
            place.and_then(Result::ok).is_some_and(|place| birth::is_before_a_gate(&place))
        };
        machine.wait("it to stand before the gate", at_the_gate, Duration::from_secs(5));
        let waiting = processes()[0];
        let held = birth::hold(waiting, &gate, has_keeper);
        assert_eq!(held == waiting, !has_keeper);
        machine.wait("it to stop", || is_stopped(held), Duration::from_secs(5));
        machine.run(&["test", "-e", "/run/birth/exec"]).fails();
        machine.systemctl(&["kill", "--signal=CONT", "birth.service"]).ok();
        machine.wait("it to go on", || gate.with_file_name("child").exists(), Duration::from_secs(5));
        assert!(!is_gone(waiting));
        machine.sh("systemctl stop birth.service; rm -f /run/birth/exec /run/birth/child").ok();
    }
}
