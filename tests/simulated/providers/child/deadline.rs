//! A child that is stuck is killed at the deadline, and never answers another question.

use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{OTHER, USERNAME, lives, send, stuck, value_of};
use crate::helpers::{wait, wait_for};
use crate::providers::connect::{everything, with_deadline};
use crate::simulators::http::Fault;

#[test]
fn a_child_that_is_stuck_in_a_fetch_is_killed_at_the_deadline() {
    let simulator = everything();
    let daemon = with_deadline(&simulator, "2s", &[USERNAME, OTHER]);
    assert!(daemon.ask("other").is_some(), "it is signed in");
    simulator.server.forget_requests();
    simulator.server.fault("GET", usize::MAX, Fault::Hang);
    thread::scope(|scope| {
        let refusal = scope.spawn(|| daemon.refusal("key"));
        let child = stuck(&daemon, &simulator, "GET");
        assert!(refusal.join().unwrap().contains("did not answer within 2s"));
        wait_for("the end of the child", Duration::from_secs(2), || !lives(child));
    });
    simulator.server.clear_faults();
    assert_eq!(daemon.ask("key").as_deref(), Some("keeper"));
}

#[test]
fn a_child_that_is_stuck_before_it_says_that_it_is_ready_is_killed_at_the_deadline() {
    let simulator = everything();
    let daemon = with_deadline(&simulator, "2s", &[USERNAME]);
    thread::scope(|scope| {
        let refusal = scope.spawn(|| daemon.refusal("key"));
        wait("the child", || !daemon.children().is_empty());
        let [child] = daemon.children()[..] else { panic!("one child") };
        send(child, Signal::SIGSTOP);
        let refusal = refusal.join().unwrap();
        if simulator.server.requests().is_empty() {
            assert!(refusal.contains("did not answer within 2s"), "{refusal}");
        }
        wait_for("the end of the child", Duration::from_secs(2), || !lives(child));
    });
    assert_eq!(daemon.ask("key").as_deref(), Some("keeper"));
}

#[test]
fn an_answer_that_comes_after_the_deadline_is_never_taken_for_that_of_the_next_question() {
    let simulator = everything();
    let secrets = [USERNAME, OTHER, ("first", "op://Zoo/Sections/only")];
    let daemon = with_deadline(&simulator, "2s", &secrets);
    assert!(daemon.ask("first").is_some(), "it is signed in");
    simulator.server.forget_requests();
    simulator.server.fault("GET", 1, Fault::Hold);
    thread::scope(|scope| {
        let refusal = scope.spawn(|| daemon.refusal("key"));
        let child = stuck(&daemon, &simulator, "GET");
        assert!(refusal.join().unwrap().contains("did not answer within 2s"));
        // Now it has its answer; if it lived, it would pass it on.
        simulator.server.clear_faults();
        thread::sleep(Duration::from_millis(200));
        let _ = kill(Pid::from_raw(i32::try_from(child).unwrap()), Signal::SIGCONT);
    });
    let lines = value_of(&OTHER);
    assert_eq!(daemon.ask("other"), Some(lines));
    assert_eq!(daemon.ask("key").as_deref(), Some("keeper"));
}
