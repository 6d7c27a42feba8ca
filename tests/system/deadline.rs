//! A unit that waits is remembered with since when, whatever becomes of opnix meanwhile.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::opnix::*;

/// What `opnix status` says of the one request that waits.
fn request(machine: &Machine) -> Value {
    let status: Value =
        serde_json::from_slice(&machine.run(&["opnix", "status", "--json"]).stdout).expect("JSON");
    let requests = status["requests"].as_array().expect("a list").clone();
    assert_eq!(requests.len(), 1, "{requests:?}");
    requests[0].clone()
}

pub fn a_unit_with_its_own_deadline_waits_through_restarts_until_its_value_is_there(machine: &Machine) {
    let late = json!({"name": "late", "reference": "op://Vault/late/value",
        "units": [{"unit": "patient.service", "deadline": "infinity"}, "hasty.service"]});
    set_up(machine, &[late], &[("other", value("other"))], "2s");
    for unit in ["patient.service", "hasty.service"] {
        asks_once(machine, unit, "late");
    }
    machine.unit("patient.service.d/50-start.conf", "[Service]\nTimeoutStartSec=infinity\n");
    machine.systemctl(&["start", "--no-block", "patient.service"]).ok();
    machine.systemctl(&["start", "hasty.service"]).fails();
    stored(machine, 1);
    let first = request(machine);
    assert_eq!(
        (&first["unit"], &first["credential"], &first["until"]),
        (&json!("patient.service"), &json!("late"), &Value::Null)
    );
    sleep(Duration::from_secs(3));
    let starts = || machine.show("patient.service", "ActiveState");
    assert_eq!(starts(), "activating");

    machine.systemctl(&["restart", "opnix.service"]).ok();
    stored(machine, 1);
    let since = |request: &Value| request["since"].as_u64().expect("a time");
    machine.wait(
        "it to be taken on",
        || machine.journal(&[&kind("0e"), "OPNIX_UNIT=patient.service"]).len() == 2,
        LONG,
    );
    assert!(since(&request(machine)).abs_diff(since(&first)) <= 1, "{first} {}", request(machine));
    machine.sh("systemctl kill --signal=KILL opnix.service").ok();
    machine.wait("the next instance", || machine.show("opnix.service", "NRestarts") != "0", LONG);
    machine.wait(
        "it to be taken on",
        || machine.journal(&[&kind("0e"), "OPNIX_UNIT=patient.service"]).len() == 3,
        LONG,
    );
    assert!(since(&request(machine)).abs_diff(since(&first)) <= 1, "{first} {}", request(machine));
    assert_eq!(starts(), "activating");

    write_vault(machine, &[("late", value("late"))]);
    machine.wait("its start", || starts() == "active", LONG);
    assert_eq!(found(machine, "patient.service"), value("late").into_bytes());
    stored(machine, 0);
    machine.sh("systemctl stop patient.service; systemctl reset-failed; rm -rf /run/got-*").ok();
}

pub fn a_restart_does_not_prolong_a_deadline(machine: &Machine) {
    const DEADLINE: Duration = Duration::from_secs(20);
    set_up(machine, &[secret("slow", &["late.service"])], &[("slow", value("slow"))], "20s");
    asks_once(machine, "late.service", "slow");
    machine.unit("late.service.d/50-start.conf", "[Service]\nTimeoutStartSec=60\n");
    let vault = slow_vault(machine);
    let began = Instant::now();
    machine.systemctl(&["start", "--no-block", "late.service"]).ok();
    stored(machine, 1);
    sleep((DEADLINE * 3 / 5).saturating_sub(began.elapsed()));
    machine.systemctl(&["restart", "opnix.service"]).ok();
    let restarted = began.elapsed();
    machine.wait("its refusal", || machine.show("late.service", "ActiveState") == "failed", LONG);
    assert!(began.elapsed() >= DEADLINE && began.elapsed() < restarted + DEADLINE, "{:?}", began.elapsed());
    assert_refused(machine, "late.service", "slow", "deadline");
    drop(vault);
    machine.systemctl(&["reset-failed"]).ok();
}
