//! One look says how a machine is: `opnix status`, `opnix explain` and what `systemctl status` shows of opnix.service.

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::opnix::*;

fn status(machine: &Machine, code: i32) -> String {
    let said = machine.run(&["opnix", "status"]);
    assert_eq!(said.code, Some(code), "{said}");
    said.text()
}

#[track_caller]
fn says(text: &str, line: &str) {
    assert!(text.contains(line), "{line:?} in\n{text}");
}

pub fn a_refusal_counts_until_the_unit_has_its_secret_or_is_gone(machine: &Machine) {
    set_up(machine, &[secret("told", &["told.service"]), secret("gone", &["told-gone.service"])], &[], "2s");
    let unit = |name: &str, credential: &str| {
        let load = format!("LoadCredential={credential}:/run/opnix/creds.sock");
        machine.unit(name, &format!("[Service]\nType=exec\n{load}\nExecStart=sleep infinity\n"));
    };
    unit("told.service", "told");
    unit("told-gone.service", "gone");
    unit("told-denied.service", "tolled");
    write_vault(machine, &[]);
    machine.systemctl(&["start", "opnix-control.socket"]).ok();
    // What was not mapped to it is no fault of the service; see the unit itself.
    machine.systemctl(&["start", "told.service", "told-gone.service", "told-denied.service"]).fails();
    // Who would start them again is not there.
    machine.systemctl(&["stop", "opnix-mirror.service"]).ok();
    says(&status(machine, 69), "2 of 2 secrets cannot be had now: told, gone\n");
    machine.wait(
        "systemd to be told",
        || machine.show("opnix.service", "StatusText").starts_with("2 of 2 secrets cannot be had: "),
        LONG,
    );
    let explained = machine.run(&["opnix", "explain", "told.service", "told"]);
    assert_eq!(explained.code, Some(69), "{explained}");
    says(&explained.text(), "allowed, but cannot be had now: told.service may have \"told\"");
    let one = machine.run(&["opnix", "status", "told-denied"]);
    assert_eq!(one.code, Some(69), "{one}");
    says(&one.text(), "failed (243/CREDENTIALS");
    says(&one.text(), "asks for   \"tolled\", which the mapping does not give it\n");

    write_vault(machine, &[("told", value("told")), ("gone", value("gone"))]);
    machine.run(&["opnix", "refresh"]).ok();
    machine.wait(
        "systemd to be told again",
        || machine.show("opnix.service", "StatusText") == "Serving 2 credentials.",
        LONG,
    );
    let told = status(machine, 69);
    says(&told, "told.service was refused \"told\" ");
    says(&told, "told-gone.service was refused \"gone\" ");
    machine.systemctl(&["start", "told.service"]).ok();
    machine.sh("rm /run/systemd/system/told-gone.service /run/systemd/system/told-denied.service; systemctl daemon-reload; systemctl reset-failed").ok();
    let told = status(machine, 0);
    says(&told, "in short   each of the 2 secrets would be served now\n");
    machine.systemctl(&["stop", "told.service"]).ok();
}

pub fn the_files_are_told_as_they_are_and_why_not_as_they_are_to_be(machine: &Machine) {
    let file = |name: &str, more: Value| {
        let mut file = json!({"name": name, "reference": format!("op://Vault/{name}/value"), "path": name});
        file.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        file
    };
    forget_files(machine);
    let files = [
        file("mine", json!({})),
        file("late", json!({"owner": "told-owner", "services": ["told-reader.service"]})),
    ];
    set_up(machine, &files, &[("mine", value("mine")), ("late", value("late"))], "5s");
    machine.systemctl(&["start", "opnix-control.socket", "opnix-mirror.service"]).ok();
    let told = status(machine, 69);
    says(&told, "in short   /run/secrets/late is not there\n");
    says(&told, "mirror     runs\n");
    says(&told, "files      /run/secrets/mine  there  root:root 0600\n");
    says(&told, "/run/secrets/late  is not there\n               since ");
    says(&told, "there is no user \"told-owner\"");
    let unit = machine.run(&["opnix", "explain", "told-reader.service"]);
    assert_eq!(unit.code, Some(69), "{unit}");
    says(&unit.text(), "files      /run/secrets/late  is not there\n");

    machine.sh("useradd --system told-owner").ok();
    let is_fine = || machine.run(&["opnix", "status"]).code == Some(0);
    machine.wait("the file", is_fine, LONG);
    says(&status(machine, 0), "/run/secrets/late  there  told-owner:root 0600");
    machine.systemctl(&["stop", "opnix-mirror.service"]).ok();
    machine.sh("chmod 0444 /run/opnix-files/memory/mine").ok();
    let told = status(machine, 69);
    says(&told, "mirror     does not run (inactive)");
    says(&told, "files      /run/secrets/mine  is root:root 0444, and to be root:root 0600\n");
    machine.sh("userdel told-owner").ok();
}
