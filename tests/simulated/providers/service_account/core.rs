//! The core: a file that may be missing, and a process that may die.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use super::{everything, one};
use crate::daemon::{Daemon, signal};
use crate::simulators::http::Fault;

#[test]
fn a_core_that_is_missing_or_something_else_is_said_to_be() {
    let simulator = everything();
    let with = |library: &str| {
        let provider = json!({"kind": "service_account", "library": library});
        Daemon::with("20s", &provider, &simulator.token(), &[("key", "op://Zoo/Sections/username")])
            .refusal("key")
    };
    assert!(
        with("/nowhere/core.so").contains("not at /nowhere/core.so; install it with `opnix core install`")
    );
    assert!(with("/etc/hostname").contains("/etc/hostname cannot be loaded"));
    let libc = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = libc
        .lines()
        .find_map(|line| line.split_whitespace().find(|word| word.ends_with("/libc.so.6")))
        .unwrap();
    let refusal = with(libc);
    assert!(refusal.contains("not the version") && refusal.contains("opnix core install"), "{refusal}");
}

#[test]
fn the_core_lives_in_a_process_that_holds_nothing_it_should_not() {
    let simulator = everything();
    let daemon = one(&simulator);
    assert!(daemon.ask("key").is_some());
    let [child] = daemon.children()[..] else { panic!("one child") };
    let read = |what: &str| fs::read_to_string(format!("/proc/{child}/{what}")).unwrap();
    assert_eq!(read("cmdline"), "/proc/self/exe\0fetch\0");
    assert!(!read("environ").contains("ops_"));
    assert!(read("status").contains("NoNewPrivs:\t1"));
    assert!(
        read("limits").lines().any(|line| line.starts_with("Max core file size") && line.contains(" 0 "))
    );
    assert!(read("maps").contains("libop_uniffi_core.so"));
    let maps = fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).unwrap();
    assert!(!maps.contains("libop_uniffi_core.so"), "the service itself never loads it");
    // Its socket to the service, nothing printed, and what it opened by itself: a connection and an event queue.
    // It may close one at any moment: the answer does not wait for that.
    let theirs =
        |fd: &str| fs::read_link(format!("/proc/{child}/fd/{fd}")).unwrap_or_default().display().to_string();
    let ours: BTreeSet<String> = fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
        .unwrap()
        .filter_map(|fd| Some(fs::read_link(fd.unwrap().path()).ok()?.display().to_string()))
        .filter(|target| target.starts_with("socket:") || target.starts_with("pipe:"))
        .collect();
    for fd in fs::read_dir(format!("/proc/{child}/fd")).unwrap() {
        let name = fd.unwrap().file_name().into_string().unwrap();
        assert!(!ours.contains(&theirs(&name)), "descriptor {name} is the service's");
    }
    assert_eq!((theirs("1").as_str(), theirs("2").as_str()), ("/dev/null", "/dev/null"));
}

#[test]
fn a_core_that_dies_is_an_error_of_one_fetch_at_the_most() {
    let simulator = everything();
    let daemon = Daemon::start(
        &simulator.token(),
        &[("a", "op://Zoo/Sections/username"), ("b", "op://Zoo/Kinds/lines")],
    );
    assert!(daemon.ask("a").is_some());
    let kill = |pid| signal(pid, Signal::SIGKILL);
    kill(daemon.children()[0]);
    assert!(daemon.ask("b").is_some(), "idle when it died: nobody notices");
    let other = one(&simulator);
    simulator.server.fault("GET /api/v1/vault/", usize::MAX, Fault::Hang);
    thread::scope(|scope| {
        let refusal = scope.spawn(|| other.refusal("key"));
        // A death is made up for; a core that dies every time is a failure.
        while !refusal.is_finished() {
            other.children().into_iter().for_each(kill);
            thread::sleep(Duration::from_millis(50));
        }
        let refusal = refusal.join().unwrap();
        assert!(refusal.contains("the process that asks 1Password was killed"), "{refusal}");
    });
    simulator.server.clear_faults();
    assert!(other.ask("key").is_some());
}
