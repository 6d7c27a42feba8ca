//! The process that asks 1Password, from outside: how long it lives, and what it gets from the service. The provider is
//! `connect`, which needs nothing but the simulator; with a service account the process is the same.

mod batch;
mod deadline;
mod inheritance;
mod lifetime;

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::daemon::Daemon;
use crate::helpers::wait;
use crate::simulators::account::Account;
use crate::simulators::connect::Connect;

const USERNAME: (&str, &str) = ("key", "op://Zoo/Sections/username");
const OTHER: (&str, &str) = ("other", "op://Zoo/Kinds/extra/lines");

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// A zombie is one whose parent has not asked for its end yet: it does and holds nothing any more.
fn lives(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

/// The child at work on a request that is not answered, and so stuck that it hears of nothing: only to be killed.
fn stuck(daemon: &Daemon, simulator: &Connect, on: &str) -> u32 {
    wait("the request", || simulator.server.requests().iter().any(|request| request.starts_with(on)));
    let [child] = daemon.children()[..] else { panic!("one child") };
    send(child, Signal::SIGSTOP);
    child
}

fn value_of((_, reference): &(&str, &str)) -> String {
    Account::everything().expected()[reference].as_str().unwrap().to_owned()
}
