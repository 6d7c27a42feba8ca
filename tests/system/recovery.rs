//! What missed its secret comes up by itself, and nothing else does. After something is mended, no test here lays a hand on a
//! unit.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::opnix::*;

/// How long a value that was added may take to reach whoever waits: what is denied is asked for less and less often.
const SOON: Duration = Duration::from_secs(90);
/// How long to look whether something starts that must not.
const WHILE: Duration = Duration::from_secs(6);
/// What wants the units of a test: they are started with it, as at a boot.
const TARGET: &str = "left.target";

/// Units on a machine, with what wants them. All of it goes when the test ends, whether it passes or not.
struct Host<'a> {
    machine: &'a Machine,
}

impl<'a> Host<'a> {
    /// With these entries, of a vault that has these values.
    fn new(machine: &'a Machine, secrets: &[Value], values: &[&str]) -> Self {
        forget_files(machine);
        set_up(machine, secrets, &[], "2s");
        let host = Host { machine };
        host.vault(values);
        machine.systemctl(&["start", "opnix-control.socket"]).ok();
        host
    }

    fn vault(&self, names: &[&str]) {
        let values: Vec<(&str, String)> = names.iter().map(|name| (*name, value(name))).collect();
        write_vault(self.machine, &values);
    }

    /// Writes units that the target wants.
    fn units(&self, units: &[(&str, &str)]) {
        for (name, text) in units {
            self.machine.unit(name, &format!("{text}\n[Install]\nWantedBy={TARGET}\n"));
        }
        self.machine.unit(TARGET, "[Unit]\nAllowIsolate=no\n");
        let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
        self.machine.systemctl(&[&["enable", "--runtime"][..], &names].concat()).ok();
    }

    /// As a boot does it.
    fn boot(&self) {
        self.machine.systemctl(&["start", "--no-block", TARGET]).ok();
        self.machine.wait(
            "the boot",
            || self.machine.systemctl(&["list-jobs", "--no-legend"]).text() == "",
            LONG,
        );
    }

    fn state(&self, unit: &str) -> String {
        self.machine.show(unit, "ActiveState")
    }

    #[track_caller]
    fn come_up(&self, units: &[&str]) {
        let end = Instant::now() + SOON;
        for unit in units {
            while self.state(unit) != "active" {
                let status = || self.machine.run(&["opnix", "status"]).text();
                assert!(Instant::now() < end, "{unit} is {}; {}", self.state(unit), status());
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    #[track_caller]
    fn stay_down(&self, units: &[&str]) {
        std::thread::sleep(WHILE);
        for unit in units {
            assert!(
                ["inactive", "failed"].contains(&self.state(unit).as_str()),
                "{unit}: {}",
                self.state(unit)
            );
        }
    }
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        let _ = self
            .machine
            .sh("systemctl stop left.target 'left-*' opnix-mirror.service; systemctl reset-failed; \
             rm -rf /run/systemd/system/left* /run/systemd/system/*.wants/left-*; systemctl daemon-reload");
    }
}

fn file(name: &str, more: Value) -> Value {
    let mut entry = json!({"name": name, "reference": format!("op://Vault/{name}/value"), "path": name});
    entry.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    entry
}

/// A service that reads a file, as docs/configuration.md has it. It notes what it read.
fn reader(name: &str, more: &str) -> String {
    format!(
        "[Unit]\nWants=opnix-mirror.service\nAfter=opnix-mirror.service\nAssertPathExists=/run/secrets/{name}\n{more}\n\
         [Service]\nExecStart=sh -c 'cat /run/secrets/{name} >/run/left-read-{name}; exec sleep infinity'\n"
    )
}

/// A service that has a credential, with these further lines.
fn holder(name: &str, more: &str) -> String {
    format!(
        "[Service]\nType=exec\nLoadCredential={name}:/run/opnix/creds.sock\nExecStart=sh -c 'cat $CREDENTIALS_DIRECTORY/{name} >/run/left-read-{name}; exec sleep infinity'\n{more}"
    )
}

pub fn units_that_lacked_a_file_come_up_when_it_is_there_and_no_others_do(machine: &Machine) {
    let names = ["one", "two", "three", "four", "late"];
    let secrets: Vec<Value> = names.iter().map(|name| file(name, json!({}))).collect();
    let host = Host::new(machine, &secrets, &names[..4]);
    let readers: Vec<(String, String)> =
        names.iter().map(|name| (format!("left-{name}.service"), reader(name, ""))).collect();
    let mut units: Vec<(&str, &str)> =
        readers.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let late = reader("late", "");
    let masked = reader("late", "Description=masked");
    let gated = reader("late", "AssertPathExists=/run/left-gate");
    let environment = "[Service]\nEnvironmentFile=/run/secrets/late\nExecStart=sleep infinity\n";
    let dependent =
        "[Unit]\nRequires=left-late.service\nAfter=left-late.service\n[Service]\nExecStart=sleep infinity\n";
    units.extend([
        ("left-disabled.service", late.as_str()),
        ("left-masked.service", masked.as_str()),
        ("left-gated.service", gated.as_str()),
        ("left-environment.service", environment),
        ("left-dependent.service", dependent),
        ("left-stopped.service", readers[0].1.as_str()),
    ]);
    host.units(&units);
    machine.unit("left-timed.service", &late);
    machine.unit("left-timed.timer", "[Timer]\nOnActiveSec=1s\n[Install]\nWantedBy=left.target\n");
    machine.systemctl(&["enable", "--runtime", "left-timed.timer"]).ok();
    host.boot();
    // A missing file holds back its own consumers only, and does not fail the mirror.
    for name in &names[..4] {
        assert_eq!(host.state(&format!("left-{name}.service")), "active", "{name}");
    }
    assert_eq!(host.state("opnix-mirror.service"), "active");
    let said = machine.show("opnix-mirror.service", "StatusText");
    assert!(
        said.starts_with("4 of 5 files are in place. /run/secrets/late: the service refused it"),
        "{said}"
    );
    let late = ["left-late.service", "left-environment.service", "left-dependent.service"];
    for unit in late.iter().chain(&["left-gated.service", "left-masked.service", "left-disabled.service"]) {
        assert_ne!(host.state(unit), "active", "{unit}");
    }
    machine.wait("the timer", || machine.show("left-timed.service", "AssertTimestampMonotonic") != "0", LONG);
    // What an administrator does meanwhile.
    machine.systemctl(&["stop", "left-stopped.service"]).ok();
    machine.systemctl(&["disable", "--runtime", "left-disabled.service"]).ok();
    // As `systemctl mask` does it with a unit file that is somewhere else.
    machine.sh("ln -sf /dev/null /run/systemd/system/left-masked.service; systemctl daemon-reload").ok();

    host.vault(&names);
    host.come_up(&late);
    assert_eq!(machine.run(&["cat", "/run/left-read-late"]).ok(), value("late"));
    machine.wait(
        "the status",
        || machine.show("opnix-mirror.service", "StatusText") == "All 5 files are in place.",
        LONG,
    );
    host.stay_down(&[
        "left-stopped.service",
        "left-disabled.service",
        "left-masked.service",
        "left-gated.service",
        "left-timed.service",
    ]);
    // It is on record in the unit's own journal.
    let told = machine.run(&["journalctl", "--unit=left-late.service", "--output=cat"]).text();
    assert!(told.contains("what it lacked is there: systemctl start left-late.service"), "{told}");
}

pub fn what_waits_survives_an_upgrade_of_the_service_of_the_mirror_and_of_both(machine: &Machine) {
    let (service, mirror) = ("opnix.service", "opnix-mirror.service");
    for upgraded in [&[service][..], &[mirror], &[mirror, service, "opnix-token.service"]] {
        let patient = json!({"units": [{"unit": "left-patient.service", "deadline": "5m"}]});
        let host = Host::new(machine, &[file("late", patient)], &["other"]);
        let program = |unit: &str| {
            machine.sh(&format!("sha256sum </proc/$(systemctl show --value -p MainPID {unit})/exe")).ok()
        };
        host.units(&[
            ("left-patient.service", holder("late", "TimeoutStartSec=5min\n").as_str()),
            ("left-reader.service", reader("late", "").as_str()),
        ]);
        machine.systemctl(&["start", "--no-block", TARGET]).ok();
        let waits = || !machine.journal(&[&kind("14"), "OPNIX_UNIT=left-patient.service"]).is_empty();
        machine.wait("a request that waits", waits, LONG);
        let lacks = || {
            host.state("opnix-mirror.service") == "active"
                && machine.show("left-reader.service", "AssertResult") == "no"
        };
        machine.wait("a unit without its file", lacks, LONG);
        let before: Vec<String> = upgraded.iter().map(|unit| program(unit)).collect();
        upgrade_to_another_program(machine, upgraded);
        for (unit, before) in upgraded.iter().zip(before) {
            assert_ne!(program(unit), before, "{unit}");
        }
        assert_eq!(host.state("left-patient.service"), "activating", "{upgraded:?}");
        host.vault(&["late"]);
        // What is not there is asked for less and less often, and this is not about that.
        machine.run(&["opnix", "refresh", "late"]).ok();
        host.come_up(&["left-patient.service", "left-reader.service"]);
        assert_eq!(machine.run(&["cat", "/run/left-read-late"]).ok(), value("late"), "{upgraded:?}");
    }
}

pub fn units_that_were_refused_come_up_when_their_value_is_there_and_no_others_do(machine: &Machine) {
    let of =
        |units: &[&str]| -> Vec<String> { units.iter().map(|unit| format!("left-{unit}.service")).collect() };
    let mapped = of(&["once", "again", "triggered", "stopped", "stopping", "reset", "disabled", "two"]);
    let mapped: Vec<&str> = mapped.iter().map(String::as_str).collect();
    let host =
        Host::new(machine, &[secret("key", &mapped), secret("other", &["left-two.service"])], &["other"]);
    let once = holder("key", "");
    let again = holder("key", "Restart=on-failure\nRestartSec=100ms\n");
    let two = holder("key", "LoadCredential=other:/run/opnix/creds.sock\nExecStartPre=true\n");
    let patient = holder("key", "Restart=on-failure\nRestartSec=1h\n");
    let denied = holder("key", "");
    host.units(&[
        ("left-once.service", once.as_str()),
        ("left-again.service", again.as_str()),
        ("left-two.service", two.as_str()),
        ("left-stopped.service", again.as_str()),
        ("left-stopping.service", patient.as_str()),
        ("left-reset.service", once.as_str()),
        ("left-disabled.service", once.as_str()),
        ("left-denied.service", denied.as_str()),
        ("left-needs.service", "[Unit]\nRequires=left-once.service\nAfter=left-once.service\n[Service]\nExecStart=sleep infinity\n"),
    ]);
    machine.unit("left-triggered.service", &once);
    machine.unit(
        "left-triggered.socket",
        "[Socket]\nListenStream=/run/left-triggered.sock\nTriggerLimitBurst=3\n[Install]\nWantedBy=left.target\n",
    );
    machine.systemctl(&["enable", "--runtime", "left-triggered.socket"]).ok();
    host.boot();
    machine.wait(
        "the start limit",
        || {
            machine.show("left-again.service", "Result") != "success"
                && host.state("left-again.service") == "failed"
        },
        LONG,
    );
    machine.sh("python3 -c 'import socket; s=socket.socket(socket.AF_UNIX); s.connect(\"/run/left-triggered.sock\")'").ok();
    machine.wait("the socket to give up", || host.state("left-triggered.socket") == "failed", LONG);
    let waiting = ["left-once.service", "left-again.service", "left-two.service", "left-needs.service"];
    for unit in waiting.iter().chain(&["left-denied.service"]) {
        assert!(["failed", "inactive"].contains(&host.state(unit).as_str()), "{unit}");
    }
    // The mirror runs wherever opnix does; where no file belongs there, nothing is mounted.
    assert_eq!(host.state("opnix-mirror.service"), "active");
    machine.run(&["mountpoint", "-q", "/run/secrets"]).fails();
    // What an administrator does meanwhile. A stop during the pause before a restart leaves the unit inactive.
    machine.systemctl(&["reset-failed", "left-reset.service", "left-stopped.service"]).ok();
    machine.systemctl(&["stop", "left-stopping.service"]).ok();
    machine.systemctl(&["disable", "--runtime", "left-disabled.service"]).ok();
    let status = machine.run(&["opnix", "status"]).text();
    assert!(status.contains("left-once.service was refused \"key\""), "{status}");
    // What was denied is told, and nobody waits for it to come.
    assert!(
        status.contains("refused    left-denied.service ")
            || status.contains("           left-denied.service \""),
        "{status}"
    );
    let told: Value =
        serde_json::from_slice(&machine.run(&["opnix", "status", "--json"]).stdout).expect("JSON");
    assert!(!told["missed"].to_string().contains("left-denied.service"), "{told}");
    // The list outlives both.
    machine.sh("systemctl kill --signal=KILL opnix.service opnix-mirror.service").ok();

    host.vault(&["key", "other"]);
    host.come_up(&waiting);
    host.come_up(&["left-triggered.socket"]);
    assert_eq!(machine.run(&["cat", "/run/left-read-key"]).ok(), value("key"));
    host.stay_down(&[
        "left-denied.service",
        "left-reset.service",
        "left-stopped.service",
        "left-stopping.service",
        "left-disabled.service",
    ]);
    machine.wait(
        "nobody to miss anything",
        || !machine.run(&["opnix", "status"]).text().contains("left-once.service"),
        LONG,
    );
}

pub fn what_stands_in_the_way_of_a_file_is_tried_again_until_it_is_gone(machine: &Machine) {
    let secrets = [
        file("owned", json!({"owner": "late-owner"})),
        file("blocked", json!({"path": "/run/left-way/blocked"})),
        file("plain", json!({})),
    ];
    let host = Host::new(machine, &secrets, &["owned", "blocked", "plain"]);
    machine.sh("userdel late-owner 2>/dev/null || true; rm -rf /run/left-way; touch /run/left-way").ok();
    let (owned, plain) = (reader("owned", ""), reader("plain", ""));
    let blocked = reader("blocked", "").replace("/run/secrets/blocked", "/run/left-way/blocked");
    host.units(&[
        ("left-owned.service", owned.as_str()),
        ("left-blocked.service", blocked.as_str()),
        ("left-plain.service", plain.as_str()),
    ]);
    host.boot();
    assert_eq!(host.state("left-plain.service"), "active");
    let said = machine.show("opnix-mirror.service", "StatusText");
    assert!(
        said.contains("1 of 3 files are in place.") && said.contains("there is no user \"late-owner\""),
        "{said}"
    );
    assert!(said.contains("/run/left-way/blocked: "), "{said}");
    machine.sh("useradd --system late-owner; rm /run/left-way").ok();
    host.come_up(&["left-owned.service", "left-blocked.service"]);
    assert_eq!(machine.run(&["stat", "-c", "%U", "/run/secrets/owned"]).ok(), "late-owner");

    // Its memory is emptied, then taken away: what was there is put back.
    machine.sh("rm -r /run/opnix-files/memory/*").ok();
    machine.wait("the files", || machine.run(&["cat", "/run/secrets/plain"]).code == Some(0), SOON);
    machine.sh("umount /run/secrets; rm -rf /run/secrets").ok();
    let is_there = || machine.sh("mountpoint -q /run/secrets && cat /run/secrets/plain").code == Some(0);
    machine.wait("the mount and its files", is_there, SOON);
    assert_eq!(machine.run(&["cat", "/run/secrets/owned"]).ok(), value("owned"));

    // Somebody else's mount holds back what belongs there, and nothing else.
    machine.sh("systemctl stop opnix-mirror opnix-mount left-plain left-owned; umount /run/secrets /run/opnix-files/memory; mkdir -p /run/left-disk; rm -f /run/left-way/blocked").ok();
    machine.sh("mount -t proc proc /run/secrets").ok();
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    machine.wait(
        "the other file",
        || machine.run(&["test", "-e", "/run/left-way/blocked"]).code == Some(0),
        LONG,
    );
    let said = machine.show("opnix-mirror.service", "StatusText");
    assert!(said.contains("what is mounted at /run/secrets is not opnix's"), "{said}");
    machine.sh("umount /run/secrets").ok();
    machine.wait("the mount and its files", is_there, SOON);
    machine.sh("userdel late-owner; rm -rf /run/left-way").ok();
}

pub fn the_mirror_is_back_whatever_becomes_of_it_and_a_reload_returns_when_the_files_are_there(
    machine: &Machine,
) {
    let host = Host::new(machine, &[file("one", json!({}))], &["one", "two"]);
    let one = reader("one", "");
    host.units(&[("left-one.service", one.as_str())]);
    host.boot();
    for signal in ["KILL", "TERM"] {
        let before = machine.show("opnix-mirror.service", "InvocationID");
        machine.systemctl(&["kill", &format!("--signal={signal}"), "opnix-mirror.service"]).ok();
        let is_back = || {
            host.state("opnix-mirror.service") == "active"
                && machine.show("opnix-mirror.service", "InvocationID") != before
        };
        machine.wait(&format!("the mirror after SIG{signal}"), is_back, LONG);
    }
    let config = |secrets: &[Value]| configure(machine, secrets, "2s");
    for round in 0..3 {
        config(&[file("one", json!({})), file("two", json!({"path": format!("two-{round}")}))]);
        machine.systemctl(&["reload", "opnix.service", "opnix-mirror.service"]).ok();
        assert_eq!(machine.run(&["cat", &format!("/run/secrets/two-{round}")]).ok(), value("two"));
    }
    // What may be missing does not fail it; what has to be there does, with its reason, and all else is done.
    config(&[file("one", json!({})), file("three", json!({"optional": true}))]);
    machine.systemctl(&["reload", "opnix.service", "opnix-mirror.service"]).ok();
    config(&[file("one", json!({})), file("three", json!({})), file("two", json!({}))]);
    machine.systemctl(&["reload", "opnix.service", "opnix-mirror.service"]).fails();
    assert_eq!(machine.run(&["cat", "/run/secrets/two"]).ok(), value("two"));
    let named = machine.journal(&["_SYSTEMD_UNIT=opnix-mirror.service"]);
    let named =
        named.iter().any(|record| format!("{record:?}").contains("/run/secrets/three is not there: "));
    assert!(named, "{}", machine.journal_text());
    let said = machine.show("opnix-mirror.service", "StatusText");
    assert!(said.contains("2 of 3 files are in place. /run/secrets/three: "), "{said}");
    // What is faulty does.
    machine.write("/etc/opnix/secrets.json", "{", "0644");
    machine.systemctl(&["reload", "opnix-mirror.service"]).fails();
    assert_eq!(machine.run(&["cat", "/run/secrets/one"]).ok(), value("one"));
    // A start with it fails as well, and comes right by itself once the fault is mended.
    machine.systemctl(&["restart", "opnix-mirror.service"]).fails();
    machine.run(&["rm", "/run/opnix-files/memory/one"]).ok();
    machine.systemctl(&["stop", "left-one.service"]).ok();
    config(&[file("one", json!({}))]);
    machine.wait("the file", || machine.run(&["cat", "/run/secrets/one"]).code == Some(0), SOON);
    host.stay_down(&["left-one.service"]);
}

pub fn a_unit_that_failed_over_its_old_value_starts_with_the_new_one(machine: &Machine) {
    let with = |unit: &str, action: &str| json!({"name": "key", "reference": "op://Vault/key/value", "units": [{"unit": unit, "on_change": action}]});
    let mut quiet = with("left-quiet.service", "none");
    quiet["name"] = json!("quiet");
    quiet["units"][0]["credential"] = json!("key");
    let host = Host::new(machine, &[with("left-strict.service", "restart"), quiet], &[]);
    write_vault(machine, &[("key", "broken".into())]);
    let text = "[Unit]\nStartLimitBurst=3\nStartLimitIntervalSec=10min\n[Service]\nType=exec\nRestart=on-failure\nRestartSec=100ms\nLoadCredential=key:/run/opnix/creds.sock\n\
                ExecStart=sh -c 'sleep 0.3; grep -q whole $CREDENTIALS_DIRECTORY/key && exec sleep infinity'\n";
    host.units(&[("left-strict.service", text), ("left-quiet.service", text)]);
    host.boot();
    for unit in ["left-strict.service", "left-quiet.service"] {
        machine.wait(unit, || host.state(unit) == "failed", LONG);
    }
    machine.run(&["opnix", "refresh"]).ok();
    write_vault(machine, &[("key", "whole".into())]);
    machine.run(&["opnix", "refresh"]).ok();
    host.come_up(&["left-strict.service"]);
    host.stay_down(&["left-quiet.service"]);
}
