//! No crowd that does not read holds up a start.

use super::{AT_ONCE, CONFINED, Client, cached, starts_soon};
use crate::machine::Machine;
use crate::opnix::*;

/// More than the store has places, and none of them ever reads.
fn deaf_peers_hold_up_nobody(machine: &Machine, address: &str) {
    const TOO_MANY: usize = 4200;
    cached(machine);
    let deaf = Client::start(machine, "deaf", &CONFINED, (address, TOO_MANY, "/run/never"));
    deaf.is_connected();
    starts_soon(machine, "quick.service", &value("key"));
    // And one whose secret must be fetched, which needs a place to wait.
    starts_soon(machine, "new@1.service", &value("new"));
    drop(deaf);
    stored(machine, 0);
    starts_soon(machine, "quick.service", &value("key"));
    assert_eq!(machine.show("opnix.service", "NRestarts"), "0");
}

pub fn a_crowd_with_forged_names_that_does_not_read_holds_up_no_start(machine: &Machine) {
    deaf_peers_hold_up_nobody(machine, "/unit/victim.service/key");
}

pub fn a_crowd_from_other_addresses_that_does_not_read_holds_up_no_start(machine: &Machine) {
    deaf_peers_hold_up_nobody(machine, "");
}

/// At the bound a newcomer of that unit goes, on record, never one that is held.
pub fn of_one_unit_only_so_many_are_held_and_others_find_their_place(machine: &Machine) {
    const PLACES: usize = 16;
    const TOO_MANY: usize = 4;
    cached(machine);
    let greedy = Client::start(machine, "greedy", &CONFINED, ("", PLACES + TOO_MANY, AT_ONCE));
    machine.wait("what is too many to end", || greedy.ended().len() >= TOO_MANY, LONG);
    let modest = Client::start(machine, "modest", &[], ("", 1, AT_ONCE));
    machine.wait("the other one's record", || machine.journal(&[&kind("11")]).len() > 1, LONG);
    starts_soon(machine, "quick.service", &value("key"));
    modest.is_held("beside the greedy one");
    let ended = greedy.ended();
    assert_eq!(ended.iter().map(|(bytes, _)| *bytes).collect::<Vec<_>>(), [0; TOO_MANY]);
    let closed = machine.journal(&[&kind("12")]);
    assert!(!closed.is_empty(), "on record");
    assert!(closed.iter().all(|record| record["OPNIX_REASON"].is_string()), "{closed:?}");
}
