//! How long a child lives.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{OTHER, USERNAME, lives, send, stuck, value_of};
use crate::daemon::{Daemon, UNIT};
use crate::helpers::{wait, wait_for};
use crate::providers::connect::{everything, with_deadline};
use crate::simulators::http::Fault;

#[test]
fn a_child_that_is_stuck_ends_with_the_service() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let simulator = everything();
        let daemon = with_deadline(&simulator, "30s", &[USERNAME]);
        simulator.server.fault("GET", usize::MAX, Fault::Hang);
        let child = thread::scope(|scope| {
            // Its connection ends with the service, in one way or another.
            let asker = scope.spawn(|| drop(opnix::internals::asker::ask(&socket(&daemon), UNIT, "key")));
            let child = stuck(&daemon, &simulator, "GET");
            let worker = daemon.pid();
            send(if signal == Signal::SIGKILL { worker } else { daemon.keeper() }, signal);
            wait("the end of the service", || !lives(worker));
            asker.join().unwrap();
            child
        });
        wait_for(&format!("the end of the child after {signal}"), Duration::from_secs(2), || !lives(child));
    }
}

#[test]
fn a_signal_that_is_meant_for_the_service_does_not_end_a_fetch() {
    let simulator = everything();
    let daemon = with_deadline(&simulator, "20s", &[USERNAME]);
    simulator.server.fault("GET", 1, Fault::Hold);
    thread::scope(|scope| {
        let value = scope.spawn(|| daemon.ask("key"));
        wait("the request", || !simulator.server.requests().is_empty());
        let [child] = daemon.children()[..] else { panic!("one child") };
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            send(child, signal);
        }
        thread::sleep(Duration::from_millis(100));
        assert!(lives(child));
        simulator.server.clear_faults();
        assert_eq!(value.join().unwrap().as_deref(), Some("keeper"));
        assert_eq!(daemon.children(), [child]);
    });
}

fn socket(daemon: &Daemon) -> std::path::PathBuf {
    daemon.control().with_file_name("socket")
}

#[test]
fn a_child_that_has_nothing_to_do_is_kept_for_some_seconds_and_no_longer() {
    let simulator = everything();
    let daemon = with_deadline(&simulator, "20s", &[USERNAME, OTHER]);
    assert!(daemon.ask("key").is_some());
    let [child] = daemon.children()[..] else { panic!("one child") };
    thread::sleep(Duration::from_secs(3));
    assert!(daemon.ask("other").is_some());
    assert_eq!(daemon.children(), [child], "what is asked soon after goes to the same one");
    // Nor does it stay in the list of processes.
    let is_listed = || Path::new(&format!("/proc/{child}")).exists();
    wait_for("its end", Duration::from_secs(20), || !is_listed());
}

/// The system may have killed it for want of memory.
#[test]
fn a_child_that_is_killed_while_it_fetches_is_made_up_for() {
    let simulator = everything();
    let daemon = with_deadline(&simulator, "30s", &[USERNAME]);
    simulator.server.fault("GET", usize::MAX, Fault::Hang);
    thread::scope(|scope| {
        let value = scope.spawn(|| daemon.answer("key"));
        for _ in 0..3 {
            simulator.server.forget_requests();
            let child = stuck(&daemon, &simulator, "GET");
            send(child, Signal::SIGKILL);
        }
        simulator.server.clear_faults();
        assert_eq!(value.join().unwrap(), Ok(value_of(&USERNAME)));
    });
}

#[test]
fn no_reload_leaves_a_child_behind() {
    let simulator = everything();
    let daemon = with_deadline(&simulator, "30s", &[USERNAME]);
    let mut config: Value =
        serde_json::from_str(&fs::read_to_string(daemon.configuration()).unwrap()).unwrap();
    for seconds in 31..51 {
        config["deadline"] = json!(format!("{seconds}s"));
        daemon.configure(&config);
        daemon.reload();
        assert!(daemon.ask("key").is_some());
        assert!(daemon.children().len() <= 2, "{:?}", daemon.children());
    }
    // Another provider has children of its own.
    let host = simulator.url();
    for host in [&host.replace("127.0.0.1", "localhost"), &host].repeat(3) {
        config["provider"]["host"] = json!(host);
        daemon.configure(&config);
        daemon.reload();
        assert!(daemon.ask("key").is_some());
        wait("the end of the children before", || daemon.children().len() <= 2);
    }
}
