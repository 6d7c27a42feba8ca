//! What each fault of the server comes to.

use std::time::{Duration, Instant};

use super::{daemon, everything, with_deadline};
use crate::helpers::{cost, on_time, wait, with_time};
use crate::simulators::connect::TOKEN;
use crate::simulators::http::Fault;

#[test]
fn each_fault_ends_in_the_refusal_that_says_what_it_is() {
    let simulator = everything();
    for (on, fault, says) in [
        ("GET /v1/vaults", Fault::Status(401), "rejects the token"),
        ("GET /v1/vaults", Fault::Status(403), "may not read the account's vaults"),
        ("GET /v1/vaults", Fault::Limited(None), "limit on requests"),
        ("GET /v1/vaults", Fault::Limited(Some(3600)), "limit on requests is reached until 20"),
        // A day at most, whatever it says.
        ("GET /v1/vaults", Fault::Limited(Some(300_000_000_000)), "limit on requests is reached until 20"),
        ("GET /v1/vaults", Fault::Limited(Some(u64::MAX)), "limit on requests is reached until 20"),
        ("GET /v1/vaults", Fault::Status(500), "out of order: the Connect server answers with 500"),
        ("GET /v1/vaults", Fault::Status(302), "out of order"),
        ("GET /v1/vaults", Fault::Reset, "cannot be reached"),
        ("GET /v1/vaults", Fault::Truncate, "the connection broke off"),
        ("GET /v1/vaults", Fault::Garbage, "no Connect server at http://127.0.0.1:"),
        ("GET /v1/vaults", Fault::Status(404), "no Connect server at http://127.0.0.1:"),
        (
            "GET /v1/vaults",
            Fault::Status(400),
            "does not take the request: the Connect server answers with 400",
        ),
        ("GET /v1/vaults/", Fault::Status(404), "there is no vault \"Zoo\""),
        ("GET /v1/vaults/", Fault::Status(503), "out of order"),
    ] {
        with_time(|deadline| {
            simulator.server.clear_faults();
            simulator.server.fault(on, usize::MAX, fault.clone());
            let secrets = [("key", "op://Zoo/Sections/username")];
            // What may pass is tried again until the deadline.
            let daemon = with_deadline(&simulator, deadline, &secrets);
            let refusal = on_time(daemon.answer("key"), says)?.expect_err("a refusal");
            assert!(refusal.contains(says), "{on} {fault:?}: {refusal}");
            assert!(!daemon.log().contains(TOKEN));
            // And it passes when the fault does, without anybody's help; but who says when to come back is not asked before.
            simulator.server.clear_faults();
            if matches!(fault, Fault::Limited(Some(_))) {
                assert_eq!(cost(&simulator.server, || assert!(daemon.refusal("key").contains(says))), 0);
                let (text, code) = daemon.command(&["status"]);
                assert!(
                    code == 69 && text.contains("it said that it is not to be asked before 20"),
                    "{text}"
                );
                return Some(());
            }
            let answer = on_time(daemon.answer("key"), "keeper")?;
            assert_eq!(answer.as_deref(), Ok("keeper"), "after {on} {fault:?}");
            Some(())
        });
    }
}

#[test]
fn a_server_that_says_when_to_come_back_is_asked_again_then() {
    let simulator = everything();
    simulator.server.fault("GET /v1/vaults", 1, Fault::Limited(Some(1)));
    let daemon = daemon(&simulator, &[("key", "op://Zoo/Sections/username")]);
    assert_eq!(daemon.ask("key").as_deref(), Some("keeper"));
    assert_eq!(simulator.server.requests().len(), 4);
}

#[test]
fn a_server_that_does_not_answer_costs_a_unit_its_deadline_and_the_next_ones_some_seconds() {
    let simulator = everything();
    simulator.server.fault("GET /v1/vaults", 1, Fault::Hang);
    let daemon = with_deadline(&simulator, "2s", &[("key", "op://Zoo/Sections/username")]);
    let refusal = daemon.refusal("key");
    assert!(refusal.contains("did not answer"), "{refusal}");
    wait("the request to be given up", || daemon.ask("key").as_deref() == Some("keeper"));
}

#[test]
fn what_may_pass_is_tried_until_the_deadline_and_not_given_up_before() {
    let simulator = everything();
    simulator.server.fault("GET /v1/vaults", usize::MAX, Fault::Status(500));
    let secrets = [("key", "op://Zoo/Sections/username"), ("other", "op://Zoo/Sections/username")];
    let daemon = with_deadline(&simulator, "5s", &secrets);
    let ask = |name: &str, after: Duration| {
        std::thread::sleep(after);
        let begun = Instant::now();
        let refusal = daemon.answer(name).expect_err("a refusal");
        assert!(begun.elapsed() > Duration::from_millis(4400), "{name} given up after {:?}", begun.elapsed());
        // The last error says more than that the time is over.
        assert!(refusal.contains("out of order: the Connect server answers with 500"), "{refusal}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| ask("key", Duration::ZERO));
        // Who comes while others wait already waits for as long.
        scope.spawn(|| ask("other", Duration::from_millis(2500)));
    });
}

#[test]
fn a_refresh_under_a_limit_says_until_when() {
    let simulator = everything();
    let daemon = with_deadline(&simulator, "3s", &[("key", "op://Zoo/Sections/username")]);
    simulator.server.fault("GET /v1/vaults", 1, Fault::Limited(Some(3600)));
    let refusal = daemon.refusal("key");
    assert!(refusal.contains("limit on requests is reached until 20"), "{refusal}");
    let (said, code) = daemon.command(&["refresh"]);
    assert!(said.contains("limit on requests is reached until 20"), "{code}: {said}");
}
