//! What the other tests rely on in the machine itself.

use std::time::{Duration, Instant};

use crate::machine::Machine;

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
