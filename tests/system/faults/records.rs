//! What is on record of each request.

use serde_json::json;

use super::ask;
use crate::machine::Machine;
use crate::opnix::*;

const GRANTED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c01";
const ABANDONED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c03";

pub fn each_value_that_is_served_is_on_record_once_with_who_got_what(machine: &Machine) {
    let mut secret = secret("inner-name", &[]);
    secret["units"] = json!([{"unit": "recorded.service", "credential": "outer-name"}]);
    set_up(machine, &[secret], &[("inner-name", value("inner-name"))], "30s");
    let granted = || machine.journal(&[&format!("MESSAGE_ID={GRANTED}")]);
    // The first time it is fetched, the second time it comes from memory.
    for count in 1..=2 {
        let (pid, answer) = ask(machine, "recorded.service", "outer-name", &[]);
        assert_eq!(answer, value("inner-name"));
        machine.wait("the record", || granted().len() >= count, LONG);
        let records = granted();
        assert_eq!(records.len(), count, "{records:?}");
        let record = &records[count - 1];
        assert_eq!(record["OPNIX_UNIT"], "recorded.service");
        assert_eq!(record["OPNIX_CREDENTIAL"], "outer-name");
        assert_eq!(record["OPNIX_SECRET"], "inner-name");
        assert_eq!(record["OPNIX_PEER_PID"], pid);
    }
    // And of a refusal it is not said that it was granted.
    assert_eq!(ask(machine, "unrecorded.service", "outer-name", &[]).1, "refused");
    let refused = || machine.journal(&[&format!("MESSAGE_ID={REFUSED}"), "OPNIX_UNIT=unrecorded.service"]);
    machine.wait("its record", || !refused().is_empty(), LONG);
    assert_eq!(granted().len(), 2);
}

pub fn a_request_that_nobody_waits_for_any_more_gives_up_its_place_at_once_on_record(machine: &Machine) {
    set_up(machine, &[secret("slow", &["leaver.service"])], &[("slow", value("slow"))], "60s");
    let vault = slow_vault(machine);
    consumer(machine, "leaver.service", "slow", "");
    machine.systemctl(&["start", "--no-block", "leaver.service"]).ok();
    stored(machine, 1);
    machine.systemctl(&["stop", "leaver.service"]).ok();
    stored(machine, 0);
    let records = || machine.journal(&[&format!("MESSAGE_ID={ABANDONED}"), "OPNIX_UNIT=leaver.service"]);
    machine.wait("the record", || !records().is_empty(), LONG);
    assert_eq!(records().len(), 1, "{:?}", records());
    drop(vault);
}
