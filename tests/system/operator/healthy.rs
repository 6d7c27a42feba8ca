//! Hosts that are well.

use serde_json::json;

use super::{Diagnosis, is_well, machine_faults};
use crate::boot::Kind;
use crate::machine::Machine;
use crate::opnix::*;

pub fn a_host_that_is_well_has_no_finding(_: &Machine) {
    let machine = &Machine::boot_as(Kind::Fresh);
    machine_faults::host(machine);
    is_well(machine).expect("credentials and files");
    let config = |secrets: serde_json::Value| {
        json!({"provider": {"kind": "local", "path": VAULT}, "secrets": secrets}).to_string()
    };
    for (name, secrets) in [
        (
            "credentials only",
            json!([{"name": "key", "reference": "op://Vault/one/value", "units": ["app.service"]}]),
        ),
        (
            "files only",
            json!([{"name": "file", "reference": "op://Vault/two/value", "path": "file", "services": ["reader.service"]}]),
        ),
    ] {
        machine.write("/etc/opnix/secrets.json", config(secrets), "0644");
        if name == "files only" {
            machine
                .sh("systemctl stop app.service; rm /run/systemd/system/app.service; systemctl daemon-reload")
                .ok();
        }
        machine.systemctl(&["reload", "opnix.service", "opnix-mirror.service"]).ok();
        is_well(machine).expect(name);
        let text = machine.run(&["opnix", "doctor"]).ok();
        assert!(text.ends_with("0 faults, 0 warnings"), "{text}");
    }
    // Who is not root learns what was not looked at, and nothing that is not so.
    let diagnosis = |script: &str| {
        machine.run(&["setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups", "sh", "-c", script])
    };
    let said = diagnosis("opnix doctor");
    assert_eq!(said.code, Some(0), "{}", said.text());
    assert!(said.text().contains("this is not root"), "{}", said.text());
    assert!(Diagnosis::of(machine, &["--offline"]).wrong().is_empty());
}
