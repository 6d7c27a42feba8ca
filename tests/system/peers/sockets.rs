//! All sockets that systemd may pass, and the wrong one.

use super::{cached, starts_soon};
use crate::machine::Machine;
use crate::opnix::*;

pub fn every_socket_of_a_socket_unit_is_served(machine: &Machine) {
    cached(machine);
    let _second = Lines::of(machine, "opnix.socket", "[Socket]\nListenStream=/run/opnix/second.sock\n");
    stop(machine);
    machine.systemctl(&["start", "opnix.socket"]).ok();
    machine.unit(
        "victim.service",
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nLoadCredential=key:/run/opnix/second.sock\n\
         ExecStart=sh -c 'cat $CREDENTIALS_DIRECTORY/key'\nStandardOutput=truncate:/run/got-%n\n",
    );
    starts_soon(machine, "victim.service", &value("key"));
    starts_soon(machine, "quick.service", &value("key"));
    // Also by an instance that follows another one.
    machine.systemctl(&["restart", "opnix.service"]).ok();
    starts_soon(machine, "quick.service", &value("key"));
    starts_soon(machine, "victim.service", &value("key"));
}

pub fn every_control_socket_is_served(machine: &Machine) {
    cached(machine);
    let second =
        Lines::of(machine, "opnix-control.socket", "[Socket]\nListenStream=/run/opnix/control-2.sock\n");
    machine
        .sh("systemctl stop opnix-mirror.service opnix.service opnix-control.socket; systemctl start opnix-control.socket")
        .ok();
    let asks = |path: &str| machine.run(&["timeout", "10", "opnix", "status", "--json", "--control", path]);
    let answers = ["/run/opnix/control-2.sock", "/run/opnix/control.sock"].map(|path| asks(path).code);
    drop(second);
    machine.sh("systemctl stop opnix-mirror.service opnix.service opnix-control.socket").ok();
    assert_eq!(answers, [Some(0); 2]);
}

/// Closed or shut down it would be of no use to whoever it is for; a listener that is shut down is so for PID 1 as well.
pub fn a_listener_of_another_name_is_reported_and_left_open(machine: &Machine) {
    const PATH: &str = "/run/opnix-foo.sock";
    cached(machine);
    stop(machine);
    machine.unit(
        "opnix-foo.socket",
        &format!(
            "[Socket]\nListenStream={PATH}\nFileDescriptorName=foo\nService=opnix.service\nRemoveOnStop=yes\n"
        ),
    );
    machine.systemctl(&["start", "opnix-foo.socket", "opnix.socket"]).ok();
    starts_soon(machine, "quick.service", &value("key"));
    // Of the sockets with this path the one that listens; those of its connections have the same.
    let listens = |path: &str| {
        let inode =
            machine.sh(&format!("awk '$8 == \"{path}\" && $4 == 10000 {{ print $7 }}' /proc/net/unix")).ok();
        machine.sh(&format!("ls -l /proc/{}/fd | grep -F 'socket:[{inode}]'", worker(machine)))
    };
    listens("/run/opnix/creds.sock").ok();
    let open = listens(PATH);
    let connects = machine.run(&[
        "python3",
        "-c",
        "import socket, sys\nsocket.socket(socket.AF_UNIX).connect(sys.argv[1])",
        PATH,
    ]);
    let said = machine.journal(&["_SYSTEMD_UNIT=opnix.service"]);
    let starts = machine.show("opnix.service", "NRestarts");
    // First of all, as the connection in its backlog would start the service again.
    machine.sh("systemctl stop opnix-foo.socket; rm /run/systemd/system/opnix-foo.socket; systemctl daemon-reload").ok();
    let names_it =
        |record: &serde_json::Value| record["MESSAGE"].as_str().is_some_and(|text| text.contains("foo"));
    assert!(said.iter().any(names_it), "{said:?}");
    connects.ok();
    open.ok();
    assert_eq!(starts, "0");
}

/// Two sockets lie in /run/opnix, and somebody names the wrong one.
pub fn the_control_socket_refuses_who_asks_for_a_credential(machine: &Machine) {
    set_up(machine, &[secret("app-key", &["app.service"])], &[("app-key", value("app-key"))], "30s");
    machine.systemctl(&["start", "opnix-control.socket"]).ok();
    consumer(machine, "app.service", "app-key", "LoadCredential=app-key:/run/opnix/control.sock");
    machine.sh("systemctl stop app.service; rm -f /run/got/app.service.started /run/got-app.service").ok();
    let start = machine.systemctl(&["start", "app.service"]);
    assert!(
        start.code != Some(0),
        "it started with {:?}",
        String::from_utf8_lossy(&found(machine, "app.service"))
    );
    assert_eq!(machine.show("app.service", "ExecMainStatus"), "243");
    machine.run(&["test", "-e", "/run/got/app.service.started"]).fails();
    let records = || machine.journal(&[&kind("02"), "OPNIX_UNIT=app.service", "OPNIX_CREDENTIAL=app-key"]);
    machine.wait("the record", || !records().is_empty(), LONG);
    let records = records();
    assert_eq!(records.len(), 1, "{records:?}");
    let said = records[0].to_string();
    assert!(
        said.contains("LoadCredential=") && said.contains(":/run/opnix/creds.sock"),
        "what to write: {said}"
    );
    // It goes on serving those that it is for.
    machine.run(&["opnix", "status"]).ok();
    machine.systemctl(&["reset-failed"]).ok();
}
