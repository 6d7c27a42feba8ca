//! A configuration that changes while the service runs: what is right is taken without a hand, what is not never.

use std::time::Duration;

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::opnix::*;

const FILE: &str = "/etc/opnix/secrets.json";

/// The configuration with these units, as text.
fn for_units(units: &[&str]) -> String {
    json!({"provider": {"kind": "local", "path": "/run/opnix-vault/vault.json"}, "secrets": [secret("key", units)]})
        .to_string()
}

fn set_up_for(machine: &Machine) {
    set_up(machine, &[secret("key", &["old.service"])], &[("key", value("key"))], "30s");
    for unit in ["old.service", "new.service"] {
        consumer(machine, unit, "key", "");
    }
    machine.systemctl(&["restart", "old.service"]).ok();
    machine.systemctl(&["stop", "new.service"]).ok();
}

fn starts(machine: &Machine, unit: &str) -> bool {
    machine.sh(&format!("systemctl reset-failed {unit} || true")).ok();
    machine.systemctl(&["restart", unit]).code == Some(0)
}

/// `opnix status`: what is wrong with the files, and how it exits.
fn rejected(machine: &Machine) -> (Value, Option<i32>) {
    let output = machine.run(&["opnix", "status", "--json"]);
    let status: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
    (status["rejected"].clone(), output.code)
}

/// Somebody else could have written it: named by the reload, by status and by `opnix check`, and not in force.
fn is_not_taken(machine: &Machine, why: &str) {
    machine.systemctl(&["reload", "opnix.service"]).fails();
    let is_known = || rejected(machine).0["faults"].as_str().is_some_and(|faults| faults.contains(why));
    machine.wait(why, is_known, LONG);
    assert_eq!(rejected(machine).1, Some(78), "{why}");
    let told = machine.run(&["opnix", "check"]);
    assert!(told.stderr.contains(why) && told.code == Some(78), "{}", told.stderr);
    let doctor = machine.run(&["opnix", "doctor"]).text();
    assert!(doctor.contains("an older configuration is in force") && doctor.contains(why), "{doctor}");
    assert!(!starts(machine, "new.service") && starts(machine, "old.service"), "{why}");
}

/// It is in force without a reload. A unit that it does not allow was refused, which the exit code tells.
fn is_taken(machine: &Machine, what: &str) {
    machine.wait(what, || matches!(rejected(machine), (Value::Null, Some(0 | 69))), LONG);
    assert!(starts(machine, "new.service") && !starts(machine, "old.service"), "{what}");
}

/// As in a NixOS switch, where a service starts before opnix was reloaded.
pub fn a_unit_that_only_the_new_files_allow_starts_before_any_reload(machine: &Machine) {
    set_up_for(machine);
    machine.write(FILE, for_units(&["new.service"]), "0644");
    machine.systemctl(&["start", "new.service"]).ok();
    assert_eq!(found(machine, "new.service"), value("key").into_bytes());
    // As NixOS changes them: nothing in /etc but a link, to other files of one date.
    for (place, unit) in [("first", "old.service"), ("second", "new.service")] {
        let file = format!("/var/{place}/etc/opnix/secrets.json");
        machine.write(&file, for_units(&[unit]), "0444");
        machine.run(&["touch", "-d", "@1", &file]).ok();
    }
    machine.run(&["ln", "-sfn", "/etc/static/opnix/secrets.json", FILE]).ok();
    for (place, unit) in [("first", "old.service"), ("second", "new.service"), ("first", "old.service")] {
        machine.run(&["ln", "-sfn", &format!("/var/{place}/etc"), "/etc/static"]).ok();
        assert!(starts(machine, unit), "{unit}");
    }
    // Many that nobody allows are refused together, and the one that is allowed is not held up.
    consumer(machine, "nobody@.service", "key", "");
    machine.sh("systemctl start --no-block $(printf 'nobody@%s.service ' $(seq 40))").ok();
    assert!(starts(machine, "old.service"));
    let failed = || machine.sh("systemctl list-units --plain --no-legend --state=failed 'nobody@*'").ok();
    machine.wait("all to be refused", || failed().lines().count() == 40, LONG);
    machine.sh(&format!("rm -r /var/first /var/second /etc/static {FILE}; systemctl reset-failed")).ok();
}

pub fn a_faulty_configuration_is_named_and_a_mended_one_is_taken(machine: &Machine) {
    set_up_for(machine);
    let whole = for_units(&["new.service"]);
    // Half-written, by whoever reloads too early, and by whoever does not reload.
    machine.write(FILE, &whole[..whole.len() / 2], "0644");
    is_not_taken(machine, "secrets.json:1:");
    let (first, _) = rejected(machine);
    machine.run(&["sleep", "2"]).ok();
    machine.write(FILE, &whole[..whole.len() - 1], "0644");
    machine.wait("the other fault", || rejected(machine).0["faults"] != first["faults"], LONG);
    assert_eq!(rejected(machine).0["since"], first["since"]);
    let told = machine.run(&["opnix", "status"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("an older configuration is in force"), "{told}");
    assert!(machine.show("opnix.service", "StatusText").starts_with("Kept the old configuration"));
    machine.write(FILE, &whole, "0644");
    is_taken(machine, "the mended one");

    machine.write(FILE, &for_units(&["old.service"])[..40], "0644");
    assert!(!starts(machine, "old.service") && starts(machine, "new.service"), "half of it says nothing");
    machine.write(FILE, for_units(&["old.service"]), "0644");
    machine.wait("the whole", || starts(machine, "old.service"), Duration::from_secs(10));
}

pub fn a_configuration_that_others_could_have_written_is_not_taken(machine: &Machine) {
    for (spoil, why, mend) in [
        (format!("chmod 0666 {FILE}"), "chmod go-w /etc/opnix/secrets.json", format!("chmod 0644 {FILE}")),
        ("chmod 0775 /etc/opnix".into(), "chmod go-w /etc/opnix", "chmod 0755 /etc/opnix".into()),
        (format!("chown daemon {FILE}"), "belongs to user 1,", format!("chown root {FILE}")),
        ("chown daemon /etc/opnix".into(), "belongs to user 1,", "chown root /etc/opnix".into()),
        (
            format!(
                "mkdir -m 0777 /var/theirs; mv {FILE} /var/theirs; ln -s /var/theirs/secrets.json {FILE}"
            ),
            "chmod go-w /var/theirs",
            "chmod 1777 /var/theirs".into(),
        ),
    ] {
        set_up_for(machine);
        machine.write(FILE, for_units(&["new.service"]), "0644");
        machine.sh(&spoil).ok();
        is_not_taken(machine, why);
        machine.sh(&mend).ok();
        is_taken(machine, &mend);
    }
    machine.sh(&format!("rm -r /var/theirs {FILE}")).ok();
}

pub fn a_service_that_comes_up_with_a_faulty_configuration_takes_the_mended_one(machine: &Machine) {
    set_up(machine, &[], &[("key", value("key"))], "30s");
    consumer(machine, "mended.service", "key", "");
    machine.write(FILE, "{", "0644");
    assert!(!starts(machine, "mended.service"));
    assert_refused(machine, "mended.service", "key", "configuration");
    machine.write(FILE, for_units(&["mended.service"]), "0644");
    assert!(starts(machine, "mended.service"));
}
