//! What must not grow: the memory that a configuration takes, and what a peak leaves behind.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use opnix::internals::asker::connect_as;
use serde_json::{Value, json};

use crate::daemon::{Daemon, UNIT};
use crate::helpers::{LIMIT, status, wait_for};
use crate::host::{Host, VAULT};
use crate::simulators::http::Fault;

const KIB: u64 = 1024;

/// Of its own: pages of the program itself are not counted.
fn resident(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * KIB
}

/// When what it took to load the configuration is given back.
fn at_rest(daemon: &Daemon) -> u64 {
    thread::sleep(Duration::from_secs(12));
    resident(daemon)
}

/// One field of each of so many items.
fn many(count: usize, more: &Value) -> Value {
    let secret = |number: usize| {
        let reference = format!("op://{VAULT}/item-{number}/value");
        json!({"name": format!("secret-{number}"), "reference": reference, "units": [UNIT]})
    };
    let secrets: Vec<Value> = (0..count).map(secret).collect();
    crate::helpers::merged(json!({"secrets": secrets}), more)
}

#[test]
fn ten_thousand_secrets_take_no_more_than_two_kibibytes_each_and_are_all_in_the_status() {
    const MANY: u64 = 10_000;
    let local = json!({"provider": {"kind": "local", "path": "vault.json"}});
    let at_rest = |count: u64| {
        let daemon = Daemon::configured(&[], &many(count as usize, &local), "");
        let at_rest = at_rest(&daemon);
        (daemon, at_rest)
    };
    let (_, few) = at_rest(1);
    let (daemon, all) = at_rest(MANY);
    assert!(all < few + MANY * 2 * KIB, "{few} and {all} bytes");
    let secrets = status(&daemon)["secrets"].as_array().unwrap().clone();
    let names: Vec<&str> = secrets.iter().map(|secret| secret["name"].as_str().unwrap()).collect();
    let expected: Vec<String> = (0..MANY).map(|number| format!("secret-{number}")).collect();
    assert_eq!(names, expected);
}

/// A unit that waits, and a reload, again and again.
#[test]
fn requests_that_wait_through_reloads_keep_no_old_configuration() {
    let host = Host::new(&["item-0"]);
    let config = |deadline: u64| {
        let mut config = host.config(json!({"deadline": format!("{deadline}s")}), &[]);
        config["secrets"] = many(500, &json!({}))["secrets"].take();
        config
    };
    let daemon = host.start(&config(100));
    assert_eq!(daemon.ask("secret-0").as_deref(), Some("canary-item-0"));
    let before = at_rest(&daemon);
    host.simulator.server.fault("", usize::MAX, Fault::Hang);
    thread::scope(|scope| {
        for number in 1..=40 {
            let daemon = &daemon;
            scope.spawn(move || daemon.ask(&format!("secret-{number}")));
            daemon.configure(&config(100 + number));
            daemon.reload();
        }
        host.one_password_is_down(false);
    });
    let over = || resident(&daemon).saturating_sub(before);
    // What is left are gaps: the new configuration lies between what the old ones and their requests have left.
    wait_for("the memory", Duration::from_secs(60), || over() < 6 * 1024 * KIB);
}

/// Units that ask and do not read, clients that stall, half a message to the control socket, answers, refreshes, reloads. With
/// `OPNIX_LOAD` many times as much: `tests/long/load`.
#[test]
fn a_load_leaves_nothing_behind_and_holds_up_nobody() {
    let times: usize = std::env::var("OPNIX_LOAD").map_or(1, |times| times.parse().unwrap());
    let host = Host::new(&["item-0", "item-1"]);
    let config = |deadline: usize| {
        let mut config = host.config(json!({"deadline": format!("{deadline}s")}), &[]);
        config["secrets"] = many(2, &json!({}))["secrets"].take();
        config
    };
    let daemon = host.start(&config(10));
    let ask = |number: usize| {
        let name = number % 2;
        let value = daemon.ask(&format!("secret-{name}"));
        assert_eq!(value, Some(format!("canary-item-{name}")), "{}", daemon.log());
    };
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let files = || fs::read_dir(&host.state).unwrap().count();
    (0..2).for_each(ask);
    let before = (at_rest(&daemon), descriptors(), files());

    let silent: Vec<UnixStream> =
        (0..200).map(|_| connect_as(&daemon.socket(), "silent.service", "key").unwrap()).collect();
    let unnamed: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(daemon.socket()).unwrap()).collect();
    let halves: Vec<UnixStream> = (0..100)
        .map(|_| {
            let mut half = UnixStream::connect(daemon.control()).unwrap();
            half.write_all(b"{\"method\": \"io.opnix.Sta").unwrap();
            half
        })
        .collect();
    let began = Instant::now();
    (0..10_000 * times).for_each(ask);
    let took = began.elapsed();
    for number in 0..20 * times {
        assert_eq!(daemon.command(&["refresh"]).1, 0);
        daemon.configure(&config(11 + number % 2));
        daemon.reload();
        ask(number);
    }
    println!("{} answers, one after the other, in {took:?}", 10_000 * times);
    println!("{} MiB, {} descriptors at the peak", resident(&daemon) >> 20, descriptors());
    drop((silent, unnamed, halves));
    wait_for("the descriptors", LIMIT, || descriptors() <= before.1);
    assert_eq!(files(), before.2);
    let over = || resident(&daemon).saturating_sub(before.0);
    wait_for("the memory", LIMIT, || over() < 2048 * KIB);
    println!("{} KiB more than before", over() / KIB);
}
