//! Other clients than units: they ask from other addresses.

use super::{AT_ONCE, Client, cached, starts_soon};
use crate::machine::Machine;
use crate::opnix::*;

/// For systemd-nspawn and systemd-cryptsetup the overrun is a value like any other, and so is an end without a byte.
pub fn who_asks_from_another_address_is_held_through_kills_and_restarts(machine: &Machine) {
    cached(machine);
    let clients = [("container", ""), ("volume", "/cryptsetup/data")]
        .map(|(unit, address)| Client::start(machine, unit, &[], (address, 1, AT_ONCE)));
    let records = || machine.journal(&[&kind("11")]);
    let known = || records().len() == 2 || clients.iter().any(|client| !client.ended().is_empty());
    machine.wait("both to be held, or to hear something", known, LONG);
    let held = |when: &str| clients.iter().for_each(|client| client.is_held(when));
    held("after it asked");
    // What to write instead.
    for record in records() {
        assert!(record.to_string().contains("LoadCredential="), "{record}");
    }
    for (number, again) in
        ["systemctl kill --signal=KILL opnix.service", "systemctl restart opnix.service"].iter().enumerate()
    {
        let before = machine.show("opnix.service", "MainPID");
        machine.sh(again).ok();
        let follows = || {
            machine.show("opnix.service", "SubState") == "running"
                && machine.show("opnix.service", "MainPID") != before
        };
        machine.wait("the next instance", follows, LONG);
        // It answers others after it has looked at what it found.
        starts_soon(machine, &format!("new@{number}.service"), &value("new"));
        held(again);
    }
    drop(clients);
    stored(machine, 0);
}

/// It reads its credentials before it looks at anything else.
pub fn systemd_nspawn_gets_nothing_for_a_credential(machine: &Machine) {
    cached(machine);
    machine.sh("mkdir -p /run/no-root").ok();
    let _ended = Ended::with(machine, "nspawn.service");
    machine
        .sh("systemd-run --quiet --unit=nspawn systemd-nspawn --load-credential=key:/run/opnix/creds.sock \
             --directory=/run/no-root true")
        .ok();
    let running = || machine.show("nspawn.service", "SubState") == "running";
    let known = || machine.journal(&[&kind("11")]).len() == 1 || !running();
    machine.wait("it to be held, or to go on", known, LONG);
    let said = machine.journal(&["_SYSTEMD_UNIT=nspawn.service"]);
    assert!(running(), "it went on: {:?}", said.iter().map(|record| &record["MESSAGE"]).collect::<Vec<_>>());
    starts_soon(machine, "quick.service", &value("key"));
    assert!(running());
}
