//! While 1Password does not answer, what is kept is served.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::{Daemon, UNIT};
use crate::helpers::{status, wait};
use crate::host::{Host, VAULT};
use crate::providers::connect::{everything, provider};
use crate::simulators::account::FieldValue;
use crate::simulators::connect::TOKEN;
use crate::simulators::http::Fault;

#[test]
fn values_outlive_the_service_and_1password() {
    let host = Host::new(&["a", "b"]);
    let config = host.config(json!({}), &[("a", json!({})), ("b", json!({}))]);
    let daemon = host.start(&config);
    assert_eq!(
        (daemon.ask("a").as_deref(), daemon.ask("b").as_deref()),
        (Some("canary-a"), Some("canary-b"))
    );
    daemon.stop();
    let cache = host.cache().unwrap();
    assert!(!cache.windows(6).any(|window| window == b"canary"), "in clear");

    host.one_password_is_down(true);
    host.simulator.server.forget_requests();
    let daemon = host.start(&config);
    assert_eq!(
        (daemon.ask("a").as_deref(), daemon.ask("b").as_deref()),
        (Some("canary-a"), Some("canary-b"))
    );
    assert_eq!(host.requests(), 0, "they are fresh");
    assert!(!daemon.stop().contains("from the cache"), "nothing to warn of");
}

#[test]
fn a_stale_value_is_asked_for_and_served_with_a_warning_when_1password_does_not_answer() {
    let host = Host::new(&["a"]);
    let config = host.config(json!({"fresh_for": "0s", "short_deadline": "1s"}), &[("a", json!({}))]);
    let daemon = host.start(&config);
    assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"));
    host.simulator.change(|account| account.set(VAULT, "a", "value", "changed"));
    assert_eq!(daemon.ask("a").as_deref(), Some("changed"), "asked for each time");
    daemon.stop();

    host.one_password_is_down(true);
    let daemon = host.start(&config);
    assert_eq!(daemon.ask("a").as_deref(), Some("changed"));
    daemon.says("served credential \"a\" for unit test.service from the cache");
    daemon.says("values come from the cache where they can: 1Password cannot be reached");
    // It is back: the next start finds out, or the background does.
    host.one_password_is_down(false);
    host.simulator.change(|account| account.set(VAULT, "a", "value", "new"));
    wait("the new value", || daemon.ask("a").as_deref() == Some("new"));
    assert!(daemon.stop().contains("values come from the provider again"));
}

#[test]
fn a_reload_in_the_middle_of_an_outage_does_not_say_that_the_provider_works() {
    let host = Host::new(&["a"]);
    let config = host.config(json!({"fresh_for": "0s", "short_deadline": "1s"}), &[("a", json!({}))]);
    let daemon = host.start(&config);
    assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"));
    host.one_password_is_down(true);
    assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"));
    let provider = || status(&daemon)["provider"].clone();
    let before = provider();
    assert_eq!(before["health"], "down");
    for _ in 0..3 {
        daemon.reload();
        let after = provider();
        assert_eq!(
            (&after["health"], &after["down_since"]),
            (&before["health"], &before["down_since"]),
            "{after}"
        );
    }
    assert!(!daemon.log().contains("values come from the provider again"));
    // Who mended it by hand and reloads does not wait for the next pause to be over.
    host.one_password_is_down(false);
    daemon.reload();
    wait("the provider to be up", || provider()["health"] == "up");
    daemon.says("values come from the provider again");
}

#[test]
fn an_outage_costs_many_starts_one_short_deadline() {
    let names: Vec<String> = (0..30).map(|number| format!("s{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let host = Host::new(&names);
    let secrets: Vec<(&str, Value)> = names.iter().map(|name| (*name, json!({}))).collect();
    let config = host.config(json!({"fresh_for": "0s", "short_deadline": "2s", "deadline": "50s"}), &secrets);
    let daemon = host.start(&config);
    names.iter().for_each(|name| assert!(daemon.ask(name).is_some()));
    daemon.stop();
    host.simulator.server.fault("", usize::MAX, Fault::Hang);
    let daemon = host.start(&config);
    let began = Instant::now();
    let asked = &daemon;
    thread::scope(|scope| {
        for name in &names {
            scope.spawn(move || assert_eq!(asked.ask(name), Some(format!("canary-{name}"))));
        }
    });
    // One after the other, and after the first wait: none for them.
    names.iter().for_each(|name| assert_eq!(daemon.ask(name), Some(format!("canary-{name}"))));
    // Sixty short deadlines would be two minutes.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    daemon.says("1Password did not answer within 2s");
}

/// Whoever waited got what was there then, from the store of the configuration before.
#[test]
fn nobody_gets_an_older_value_than_who_waited_through_a_reload() {
    let simulator = everything();
    simulator.change(|account| {
        account.add("Zoo", "Twice", &[("value", FieldValue::Text("none".into()))]);
    });
    let version = |version: &str| simulator.change(|account| account.set("Zoo", "Twice", "value", version));
    let config = |deadline: &str| {
        json!({"provider": provider(&simulator), "deadline": deadline, "short_deadline": "20s", "fresh_for": "0s",
            "secrets": [{"name": "key", "reference": "op://Zoo/Twice/value", "units": [UNIT]}]})
    };
    version("first");
    let daemon = Daemon::configured(&[], &config("30s"), TOKEN);
    assert_eq!(daemon.ask("key").as_deref(), Some("first"));
    let item = simulator.server.requests().pop().unwrap();
    version("second");
    simulator.server.forget_requests();
    simulator.server.fault(&item, 1, Fault::Hold);
    thread::scope(|scope| {
        let waits = scope.spawn(|| daemon.ask("key"));
        wait("the request", || simulator.server.requests().contains(&item));
        daemon.configure(&config("31s"));
        daemon.reload();
        simulator.server.clear_faults();
        assert_eq!(waits.join().unwrap().as_deref(), Some("second"));
    });
    simulator.server.fault("", usize::MAX, Fault::Reset);
    assert_eq!(daemon.ask("key").as_deref(), Some("second"));
}
