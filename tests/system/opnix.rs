//! opnix on the machine: its configuration, its vault, and units that ask.

use std::time::Duration;

use serde_json::{Value, json};

use crate::machine::Machine;

pub const REFUSED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c02";
pub const VAULT: &str = "/run/opnix-vault/vault.json";

/// A kind of record, by the last two digits of its MESSAGE_ID: see `systemd/opnix.catalog`.
pub fn kind(digits: &str) -> String {
    format!("MESSAGE_ID=8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c{digits}")
}

/// Longer than anything here takes, but for what hangs.
pub const LONG: Duration = Duration::from_secs(30);

/// A made-up value that no log may ever show: every value of these tests holds this word.
pub const CANARY: &str = "canary-7f3a";

pub fn value(name: &str) -> String {
    format!("{CANARY}-{name}")
}

/// One secret of the configuration, whose value is `value(name)`.
pub fn secret(name: &str, units: &[&str]) -> Value {
    json!({"name": name, "reference": format!("op://Vault/{name}/value"), "units": units})
}

/// The process that serves: the child of the unit's main process, which only keeps.
pub fn worker(machine: &Machine) -> String {
    machine
        .sh("cat /proc/$(systemctl show --value -p MainPID opnix.service)/task/*/children")
        .ok()
        .trim()
        .to_owned()
}

pub fn stop(machine: &Machine) {
    // The mirror with it: a question that it asks in this moment would start the service again.
    machine.systemctl(&["stop", "opnix-mirror.service", "opnix.service", "opnix.socket"]).ok();
}

/// As a package manager does it: the new file under another name, then renamed over the old one. A byte after its end makes
/// another file of a program, and no other program.
pub fn upgrade_to_another_program(machine: &Machine, units: &[&str]) {
    let copy = "cp /usr/bin/opnix /usr/bin/opnix.new && echo >>/usr/bin/opnix.new && mv /usr/bin/opnix.new /usr/bin/opnix";
    machine.sh(copy).ok();
    machine.systemctl(&["daemon-reload"]).ok();
    machine.systemctl(&[&["restart"], units].concat()).ok();
}

/// What it kept: on disk, and from systemd 254 on in the store, which outlives a stop there. Who counts what is in the
/// store would count what an earlier test left.
fn forget(machine: &Machine) {
    machine.sh("rm -rf /var/lib/private/opnix; systemctl reset-failed opnix.service || true").ok();
    if machine.systemd_version() >= 254 {
        machine.systemctl(&["clean", "--what=fdstore", "opnix.service"]).ok();
    }
}

/// Stops opnix, forgets what it kept, and starts its socket with this configuration; the service itself starts when the first unit asks.
pub fn set_up_with(machine: &Machine, config: &Value) {
    stop(machine);
    forget(machine);
    machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
    machine.systemctl(&["start", "opnix.socket"]).ok();
}

/// The same, with a vault of its own.
pub fn set_up(machine: &Machine, secrets: &[Value], values: &[(&str, String)], deadline: &str) {
    stop(machine);
    // What an earlier test changed in the service, whether it passed or not, and what it kept.
    machine.sh("rm -rf /run/systemd/system/opnix.service.d").ok();
    forget(machine);
    machine.sh("groupadd --force --system opnix-vault").ok();
    machine.unit("opnix.service.d/50-test.conf", "[Service]\nSupplementaryGroups=opnix-vault\n");
    configure(machine, secrets, deadline);
    write_vault(machine, values);
    machine.systemctl(&["start", "opnix.socket"]).ok();
}

/// Ends the mirror, and takes away what it wrote and remembers.
pub fn forget_files(machine: &Machine) {
    machine
        .sh("systemctl stop opnix-mirror.service opnix-mount.service; for mount in /run/secrets /run/opnix-files/memory; do \
             while mountpoint -q $mount; do umount $mount; done; done; rm -rf /run/opnix-mirror /run/opnix-files /var/lib/opnix-mirror")
        .ok();
}

/// Lines added to a unit while it lives. A changed socket unit must be started anew: see [`stop`].
#[must_use]
pub struct Lines<'a> {
    machine: &'a Machine,
    unit: &'static str,
}

impl<'a> Lines<'a> {
    pub fn of(machine: &'a Machine, unit: &'static str, lines: &str) -> Self {
        machine.unit(&format!("{unit}.d/70-lines.conf"), lines);
        Lines { machine, unit }
    }
}

impl Drop for Lines<'_> {
    fn drop(&mut self) {
        let directory = format!("/run/systemd/system/{}.d", self.unit);
        let remove =
            format!("rm -f {directory}/70-lines.conf; rmdir {directory} || true; systemctl daemon-reload");
        let _ = self.machine.sh(&remove);
    }
}

/// A unit that ends with this, whether the test passes or not.
#[must_use]
pub struct Ended<'a> {
    machine: &'a Machine,
    unit: String,
}

impl<'a> Ended<'a> {
    /// One unit, or all that match a pattern.
    pub fn with(machine: &'a Machine, unit: impl Into<String>) -> Self {
        Ended { machine, unit: unit.into() }
    }
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        for verb in [&["kill", "--signal=KILL"][..], &["stop"], &["reset-failed"]] {
            let _ = self.machine.systemctl(&[verb, &[&self.unit]].concat());
        }
    }
}

pub fn configure(machine: &Machine, secrets: &[Value], deadline: &str) {
    let config =
        json!({"provider": {"kind": "local", "path": VAULT}, "deadline": deadline, "secrets": secrets});
    machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
}

pub fn write_vault(machine: &Machine, values: &[(&str, String)]) {
    let items: Vec<Value> = values
        .iter()
        .map(|(name, value)| json!({"title": name, "fields": [{"label": "value", "value": value}]}))
        .collect();
    machine.write(VAULT, json!({"vaults": [{"name": "Vault", "items": items}]}).to_string(), "0600");
    machine
        .sh(&format!("chgrp opnix-vault {VAULT} && chmod 0640 {VAULT} && chmod 0755 /run/opnix-vault"))
        .ok();
}

/// Holds up every fetch while it lives.
pub fn slow_vault(machine: &Machine) -> crate::lease::Lease {
    machine.hold(VAULT)
}

/// A oneshot unit that copies its credential to `/run/got/UNIT`, with these further lines.
pub fn consumer(machine: &Machine, unit: &str, credential: &str, more: &str) {
    let text = format!(
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nRemainAfterExit=yes\nTimeoutStartSec=60\n\
         LoadCredential={credential}:/run/opnix/creds.sock\n{more}\n\
         ExecStart=+sh -c 'mkdir -p /run/got; echo started >/run/got/%n.started'\n\
         ExecStart=sh -c 'cat $CREDENTIALS_DIRECTORY/{credential}'\n\
         StandardOutput=truncate:/run/got-%n\n"
    );
    machine.unit(unit, &text);
}

/// The same in a single step: systemd asks anew for each process that it starts, so this one asks once.
pub fn asks_once(machine: &Machine, unit: &str, credential: &str) {
    let text = format!(
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nRemainAfterExit=yes\nTimeoutStartSec=20\n\
         LoadCredential={credential}:/run/opnix/creds.sock\n\
         ExecStart=sh -c 'cat $CREDENTIALS_DIRECTORY/{credential}'\nStandardOutput=truncate:/run/got-%n\n"
    );
    machine.unit(unit, &text);
    let _ = machine.sh(&format!("systemctl stop '{}'; rm -f /run/got-{unit}", unit.replace("@.", "@*.")));
}

/// What the unit found. It has started.
pub fn found(machine: &Machine, unit: &str) -> Vec<u8> {
    machine.run(&["cat", &format!("/run/got-{unit}")]).stdout
}

/// The unit did not start, for want of its credential, and its own program never ran.
#[track_caller]
pub fn assert_refused(machine: &Machine, unit: &str, credential: &str, check: &str) {
    assert_eq!(machine.show(unit, "ExecMainStatus"), "243", "{unit}");
    assert_eq!(machine.show(unit, "Result"), "exit-code", "{unit}");
    machine.run(&["test", "-e", &format!("/run/got/{unit}.started")]).fails();
    let records = machine.journal(&[
        &format!("MESSAGE_ID={REFUSED}"),
        &format!("OPNIX_UNIT={unit}"),
        &format!("OPNIX_CREDENTIAL={credential}"),
    ]);
    assert_eq!(records.len(), 1, "one record of it: {records:?}");
    assert_eq!(records[0]["OPNIX_CHECK"], check);
    assert_ne!(records[0]["OPNIX_REASON"], "", "with a reason");
}

/// Waits until systemd stores this many requests. The running service's records are in its store as well.
#[track_caller]
pub fn stored(machine: &Machine, requests: usize) {
    let count = || machine.show("opnix.service", "NFileDescriptorStore") == (requests + 1).to_string();
    machine.wait(&format!("{requests} requests in the store"), count, LONG);
}
