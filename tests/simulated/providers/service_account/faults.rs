//! What each fault of 1Password comes to.

use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};

use super::{everything, one, provider};
use crate::daemon::Daemon;
use crate::helpers::{on_time, wait, with_time};
use crate::simulators::http::Fault;

#[test]
fn each_fault_ends_in_the_refusal_that_says_what_it_is() {
    let simulator = everything();
    for (on, fault, says) in [
        ("POST /api/v3/auth/start", Fault::Status(401), "rejects the token"),
        ("POST /api/v3/auth/start", Fault::Status(403), "rejects the token"),
        ("POST /api/v3/auth/start", Fault::Limited(Some(60)), "limit on requests"),
        ("POST /api/v3/auth/start", Fault::Status(500), "out of order"),
        ("POST /api/v3/auth/start", Fault::Status(503), "out of order"),
        ("POST /api/v3/auth/start", Fault::Reset, "cannot be reached"),
        ("POST /api/v3/auth/start", Fault::Truncate, "cannot be reached"),
        ("POST /api/v3/auth/start", Fault::Garbage, "broke its contract"),
        ("POST /api/v2/auth/confirm-key", Fault::Status(401), "rejects the token"),
        ("GET /api/v2/account/keysets", Fault::Status(500), "out of order"),
        ("GET /api/v1/vaults", Fault::Limited(None), "limit on requests"),
        ("GET /api/v1/vaults", Fault::Status(401), "rejects the token"),
        ("GET /api/v1/vaults", Fault::Status(403), "may not read the account's vaults"),
        ("GET /api/v1/vaults", Fault::Reset, "cannot be reached"),
        ("GET /api/v1/vault/", Fault::Limited(None), "limit on requests"),
        ("POST /api/v3/auth/start", Fault::Status(404), "does not take the request"),
        ("POST /api/v3/auth/start", Fault::Status(409), "does not take the request"),
        ("GET /api/v1/vault/", Fault::Status(400), "does not take the request"),
        ("GET /api/v1/vault/", Fault::Status(403), "may not read vault \"Zoo\""),
        ("GET /api/v1/vault/", Fault::Status(404), "there is no vault \"Zoo\""),
        ("GET /api/v1/vault/", Fault::Status(408), "cannot be reached"),
        ("GET /api/v1/vault/", Fault::Status(409), "does not take the request"),
        ("GET /api/v1/vault/", Fault::Status(500), "out of order"),
        ("GET /api/v1/vault/", Fault::Status(502), "out of order"),
        ("GET /api/v1/vault/", Fault::Reset, "cannot be reached"),
        ("GET /api/v1/vault/", Fault::Truncate, "cannot be reached"),
        ("GET /api/v1/vault/", Fault::Garbage, "broke its contract"),
    ] {
        with_time(|deadline| {
            simulator.server.clear_faults();
            simulator.server.fault(on, usize::MAX, fault.clone());
            // What may pass is tried again until the deadline.
            let secrets = [("key", "op://Zoo/Sections/username")];
            let daemon = Daemon::with(deadline, &provider(), &simulator.token(), &secrets);
            let refusal = on_time(daemon.answer("key"), says)?.expect_err("a refusal");
            assert!(refusal.contains(says), "{on} {fault:?}: {refusal}");
            // And it passes when the fault does, without anybody's help.
            simulator.server.clear_faults();
            let answer = on_time(daemon.answer("key"), "keeper")?;
            assert_eq!(answer.as_deref(), Ok("keeper"), "after {on} {fault:?}");
            Some(())
        });
    }
}

#[test]
fn an_outage_that_passes_is_waited_for() {
    let simulator = everything();
    simulator.server.fault("POST /api/v3/auth/start", 2, Fault::Reset);
    simulator.server.fault("GET /api/v1/vaults", 1, Fault::Status(502));
    assert_eq!(one(&simulator).ask("key").as_deref(), Some("keeper"));
}

#[test]
fn a_server_that_does_not_answer_costs_a_unit_its_deadline_and_the_next_ones_some_seconds() {
    let simulator = everything();
    simulator.server.fault("GET /api/v1/vault/", 1, Fault::Hang);
    let provider = provider();
    let daemon = Daemon::with("4s", &provider, &simulator.token(), &[("key", "op://Zoo/Sections/username")]);
    let refusal = daemon.refusal("key");
    assert!(refusal.contains("did not answer within 4s") || refusal.contains("in time"), "{refusal}");
    wait("the request to be given up", || daemon.ask("key").as_deref() == Some("keeper"));
}

#[test]
fn nobody_there_is_said_to_be_unreachable() {
    let simulator = everything();
    // A port that belongs to somebody, so that no other test gets it, and on which nobody listens.
    let mute = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(mute.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let address: SockaddrIn = getsockname(mute.as_raw_fd()).unwrap();
    let token = simulator.token_for(&format!("http://{address}"));
    let refusal = with_time(|deadline| {
        let daemon = Daemon::with(deadline, &provider(), &token, &[("key", "op://Zoo/Sections/username")]);
        on_time(daemon.answer("key"), "cannot be reached")
    });
    assert!(refusal.expect_err("a refusal").contains("cannot be reached"));
}
