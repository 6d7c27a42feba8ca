//! What is on record of a request is what became of it, and one thing only.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use opnix::internals::asker::connect_as;
use serde_json::json;

use crate::daemon::{Daemon, UNIT, new_directory, signal};
use crate::helpers::wait;

/// More than a socket's buffer takes, and less than systemd's limit.
const SIZE: usize = 900 << 10;

fn daemon() -> Daemon {
    let vault = new_directory("verdicts").join("vault.json");
    let fields = json!([{"label": "large", "value": "x".repeat(SIZE)}]);
    let content = json!({"vaults": [{"name": "v", "items": [{"title": "i", "fields": fields}]}]});
    fs::write(&vault, content.to_string()).unwrap();
    let secrets = json!([{"name": "large", "reference": "op://v/i/large", "units": [UNIT]}]);
    Daemon::configured(&[], &json!({"provider": {"kind": "local", "path": vault}, "secrets": secrets}), "")
}

/// How often it is on record that the unit has its value, and that it was refused.
fn verdicts(log: &str) -> (usize, usize) {
    (log.matches("granted credential").count(), log.matches("refused credential").count())
}

fn read(mut peer: UnixStream) -> usize {
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).unwrap();
    answer.len()
}

#[test]
fn granted_is_on_record_when_the_unit_has_its_value_and_not_before() {
    let daemon = daemon();
    let slow = connect_as(&daemon.socket(), UNIT, "large").unwrap();
    sleep(Duration::from_millis(500));
    assert_eq!(verdicts(&daemon.log()), (0, 0), "half of it is no value");
    assert_eq!(read(slow), SIZE);
    wait("the record", || verdicts(&daemon.log()) == (1, 0));
    // Who goes away in the middle has nothing, and was refused nothing.
    let gone = connect_as(&daemon.socket(), UNIT, "large").unwrap();
    sleep(Duration::from_millis(200));
    drop(gone);
    wait("the record", || daemon.log().contains("nobody waits any more"));
    assert_eq!(verdicts(&daemon.stop()), (1, 0));
}

#[test]
fn a_service_that_ends_while_a_unit_reads_says_one_thing_of_it_and_the_right_one() {
    let daemon = daemon();
    let slow = connect_as(&daemon.socket(), UNIT, "large").unwrap();
    sleep(Duration::from_millis(300));
    signal(daemon.keeper(), Signal::SIGTERM);
    sleep(Duration::from_millis(300));
    let whole = read(slow) == SIZE;
    assert_eq!(verdicts(&daemon.stop()), if whole { (1, 0) } else { (0, 1) });
}
