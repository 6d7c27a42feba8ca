//! What 1Password's core costs: time and memory of a first fetch and of a warm one, against the simulator on this
//! machine's loopback. `cargo bench --locked --bench fetch`; `tests/run` must have put the core in place.

// A benchmark that panics has failed.
#![allow(clippy::unwrap_used)]

#[path = "../tests/daemon/mod.rs"]
mod daemon;
#[path = "../tests/simulators/mod.rs"]
mod simulators;

use std::fs;
use std::time::Instant;

use daemon::Daemon;
use serde_json::json;
use simulators::account::Account;
use simulators::connect::{self, Connect};
use simulators::service_account::ServiceAccount;

const ROUNDS: usize = 20;
const WARM: usize = 50;
/// Never kept in memory, so that each start fetches it; from an item that the first fetch did not read.
const OTP: &str = "op://Zoo/Kinds/code?attribute=otp";
const FIRST: &str = "op://Zoo/Sections/username";

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let account = ServiceAccount::local(Account::everything());
    let connect = Connect::local(Account::everything());
    let connect_provider = json!({"kind": "connect", "host": connect.url()});
    let account_provider = json!({"kind": "service_account", "library": daemon::library()});
    println!("{ROUNDS} services each; {WARM} warm fetches of each service\n");
    println!("{:<34}{:>16}{:>12}", "", "service_account", "connect");
    let of_account =
        measure(|| Daemon::with("20s", &account_provider, &account.token(), &[("a", FIRST), ("b", OTP)]));
    let of_connect =
        measure(|| Daemon::with("20s", &connect_provider, connect::TOKEN, &[("a", FIRST), ("b", OTP)]));
    for (row, (left, right)) in of_account.iter().zip(of_connect).enumerate() {
        let what = [
            "first fetch, median, ms",
            "warm fetch, median, ms",
            "service, resident, MiB",
            "child, resident, MiB",
        ][row];
        println!("{what:<34}{left:>16.1}{right:>12.1}");
    }
}

/// In milliseconds and MiB, in the order of the rows.
fn measure(start: impl Fn() -> Daemon) -> [f64; 4] {
    let (mut first, mut warm, mut service, mut child) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let daemon = start();
        first.push(milliseconds(|| assert!(daemon.ask("a").is_some())));
        warm.extend((0..WARM).map(|_| milliseconds(|| assert!(daemon.ask("b").is_some()))));
        service.push(resident(daemon.pid()));
        child.push(resident(daemon.children()[0]));
    }
    [first, warm, service, child].map(median)
}

fn milliseconds(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64() * 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
