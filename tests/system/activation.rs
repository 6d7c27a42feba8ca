//! What `opnix serve` does with what systemd passes to it at its start: arguments and descriptors.

use crate::machine::Machine;
use crate::opnix::*;

/// Under socket activation, with these arguments, opnix ends as on any misuse, and nobody is served.
fn is_refused(machine: &Machine, arguments: &str, why: &str) {
    set_up(machine, &[secret("key", &["patient.service"])], &[("key", value("key"))], "30s");
    let command = format!("[Service]\nExecStart=\nExecStart=/usr/bin/opnix serve {arguments}\n");
    machine.unit("opnix.service.d/60-arguments.conf", &command);
    consumer(machine, "patient.service", "key", "");
    machine.systemctl(&["stop", "patient.service"]).ok();
    machine.systemctl(&["start", "--no-block", "patient.service"]).ok();

    let restarts = || machine.show("opnix.service", "NRestarts").parse::<u32>().unwrap_or(0);
    machine.wait("a second attempt", || restarts() >= 2, LONG);
    // None of these instances took the request: it waits in the backlog of the socket, which stays.
    assert_eq!(machine.show("patient.service", "ActiveState"), "activating", "{arguments}");
    assert_eq!(machine.journal(&["OPNIX_UNIT=patient.service"]).len(), 0, "{arguments}");
    let ends = machine.journal(&["UNIT=opnix.service", "EXIT_STATUS=64", "EXIT_CODE=exited"]);
    assert!(ends.len() >= 2, "{arguments}: {ends:?}");
    let said = machine.journal(&["_SYSTEMD_UNIT=opnix.service"]);
    let message =
        |record: &serde_json::Value| record["MESSAGE"].as_str().is_some_and(|text| text.contains(why));
    assert!(said.iter().any(message), "{arguments}: {said:?}");

    // With the right arguments the next instance serves what waited.
    machine.sh("rm /run/systemd/system/opnix.service.d/60-arguments.conf; systemctl daemon-reload").ok();
    machine.wait("the unit", || machine.show("patient.service", "ActiveState") == "active", LONG);
    assert_eq!(found(machine, "patient.service"), value("key").into_bytes());
}

pub fn a_socket_of_its_own_is_refused_under_socket_activation(machine: &Machine) {
    is_refused(machine, "--socket /run/opnix/other.sock", "--socket cannot be used under socket activation");
    machine.run(&["test", "-e", "/run/opnix/other.sock"]).fails();
}

pub fn trust_in_names_is_refused_under_socket_activation(machine: &Machine) {
    let refused = "--trust-peer-names is for development";
    is_refused(machine, "--trust-peer-names --socket /run/opnix/other.sock", refused);
    machine.run(&["test", "-e", "/run/opnix/other.sock"]).fails();
}

pub fn trust_in_names_alone_is_refused_as_well(machine: &Machine) {
    is_refused(machine, "--trust-peer-names", "--socket <PATH>");
}

/// What the first release with these sockets had, and what a later one may have changed besides: on NixOS a switch leaves sockets
/// that changed as they are, so that this program gets them until the next boot.
const OLD_SOCKETS: [(&str, &str); 2] = [
    (
        "opnix.socket",
        "[Socket]\nListenStream=/run/opnix/creds.sock\nFileDescriptorName=creds\nSocketMode=0666\nBacklog=16\n",
    ),
    (
        "opnix-control.socket",
        "[Socket]\nListenStream=/run/opnix/control.sock\nFileDescriptorName=control\nService=opnix.service\n\
         SocketMode=0600\nBacklog=16\nRemoveOnStop=yes\n",
    ),
];

pub fn a_socket_that_an_older_release_opened_is_served_by_this_one(machine: &Machine) {
    let units = ["inherited-0.service", "inherited-1.service"];
    set_up(machine, &[secret("key", &units)], &[("key", value("key"))], "30s");
    units.iter().for_each(|unit| consumer(machine, unit, "key", ""));
    stop(machine);
    OLD_SOCKETS.iter().for_each(|(unit, text)| machine.unit(unit, text));
    let sockets = OLD_SOCKETS.map(|(unit, _)| unit);
    machine.systemctl(&["start", sockets[0], sockets[1]]).ok();
    for unit in sockets {
        machine.run(&["rm", &format!("/run/systemd/system/{unit}")]).ok();
    }
    machine.systemctl(&["daemon-reload"]).ok();
    assert_eq!(machine.show("opnix.socket", "Backlog"), "4096", "that is said by now");
    let socket = |name: &str| machine.sh(&format!("stat -c '%i %a' /run/opnix/{name}.sock")).ok();
    let (requests, control) = (socket("creds"), socket("control"));
    assert!(requests.ends_with(" 666"), "{requests}: what is open is the old one");

    machine.systemctl(&["start", units[0]]).ok();
    assert_eq!(found(machine, units[0]), value("key").into_bytes());
    assert_eq!(machine.run(&["opnix", "status"]).code, Some(0));
    // A restart keeps the one, and opens the other anew, as it is to be by now.
    machine.systemctl(&["restart", "opnix.service"]).ok();
    machine.systemctl(&["start", units[1]]).ok();
    assert_eq!(found(machine, units[1]), value("key").into_bytes());
    assert_eq!(machine.run(&["opnix", "status"]).code, Some(0));
    assert_eq!(socket("creds"), requests);
    assert_ne!(socket("control"), control);
    stop(machine);
}
