//! Long work shows itself: on a terminal, in the log, and to who asks for it. `tests/system/told.rs` has what systemd shows.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::pty::{Winsize, openpty};
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::host::Host;
use crate::simulators::http::Fault;

const SECRETS: usize = 480;

/// A machine with so many secrets, and 1Password at its other end, which takes its time for each answer.
fn slow() -> (Host, Daemon) {
    let names: Vec<String> = (0..SECRETS).map(|number| format!("secret{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let host = Host::new(&names);
    let secrets: Vec<(&str, Value)> = names.iter().map(|name| (*name, json!({}))).collect();
    let config = host.config(json!({"deadline": "60s"}), &secrets);
    host.simulator.server.fault("", usize::MAX, Fault::Delay(Duration::from_millis(900)));
    let daemon = host.start(&config);
    (host, daemon)
}

/// What a command says on a terminal of this kind, and its exit code.
fn on_a_terminal(daemon: &Daemon, kind: &str, arguments: &[&str]) -> (String, i32) {
    let size = Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = openpty(&size, None).unwrap();
    let end = |descriptor: &OwnedFd| Stdio::from(descriptor.try_clone().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_opnix"));
    command.args(arguments).arg("--control").arg(daemon.control()).env("TERM", kind);
    let child = command.stdin(end(&pair.slave)).stdout(end(&pair.slave)).stderr(end(&pair.slave));
    let mut child = child.spawn().unwrap();
    drop((command, pair.slave));
    let mut said = Vec::new();
    // It fails when the last one that had the terminal is gone.
    let _ = File::from(pair.master).read_to_end(&mut said);
    (String::from_utf8(said).unwrap(), child.wait().unwrap().code().unwrap())
}

#[test]
fn a_long_refresh_shows_itself_on_a_terminal_and_only_there() {
    let (host, daemon) = slow();
    let (piped, seen) = thread::scope(|scope| {
        let seen = scope.spawn(|| on_a_terminal(&daemon, "xterm", &["refresh"]));
        (daemon.command(&["refresh"]), seen.join().unwrap())
    });
    let (text, code) = piped;
    assert_eq!((code, text.lines().count()), (0, SECRETS), "{text}");
    assert!(!text.contains(['\u{1b}', '\r']) && text.lines().all(|line| line.ends_with("fetched")), "{text}");
    let (text, code) = seen;
    assert_eq!(code, 0, "{text}");
    let steps = text.matches(&format!(" of {SECRETS} (")).count();
    assert!(steps > 3 && text.contains("asking 1Password"), "{text}");
    // What was shown is taken back, and then the answer comes.
    let answer = text.rsplit_once("\u{1b}[2K").unwrap().1;
    assert_eq!(answer.lines().count(), SECRETS + 1, "{answer}");
    let last = answer.lines().last().unwrap();
    assert!(last.starts_with("refreshed 480 secrets in ") && last.ends_with("s, 480 fetched"), "{last}");
    daemon.says("fetching 480 values: ");
    daemon.says("fetched 480 values in ");
    // Nothing but the end on a terminal that cannot take anything back.
    host.simulator.server.clear_faults();
    host.simulator.server.fault("", usize::MAX, Fault::Delay(Duration::from_millis(300)));
    let (text, _) = on_a_terminal(&daemon, "dumb", &["refresh", "secret1", "secret2"]);
    assert!(!text.contains(['\u{1b}']) && text.contains("refreshed 2 secrets in "), "{text}");
    assert_eq!(daemon.log().matches("fetched ").count(), 1, "a fetch of a few is not told");
}

#[test]
fn status_says_how_far_a_fetch_is() {
    let (_host, daemon) = slow();
    let told = |status: &str| {
        let line = status.lines().find(|line| line.starts_with("fetching "))?;
        let (done, rest) = line.trim_start_matches("fetching").trim().split_once(" of 480 values, begun ")?;
        assert!(rest.ends_with("s ago"), "{line}");
        Some(done.parse::<usize>().unwrap())
    };
    let mut seen = BTreeSet::new();
    thread::scope(|scope| {
        let refresh = scope.spawn(|| daemon.command(&["refresh"]));
        while !refresh.is_finished() {
            seen.extend(told(&daemon.command(&["status"]).0));
        }
    });
    assert!(seen.len() > 3 && seen.iter().all(|done| *done < SECRETS), "{seen:?}");
    assert_eq!(told(&daemon.command(&["status"]).0), None, "nothing is fetched any more");
}
