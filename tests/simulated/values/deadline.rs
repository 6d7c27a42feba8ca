//! A unit that has a deadline of its own waits for its value.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::{Daemon, UNIT};
use crate::helpers::{merged, status, wait};
use crate::host::{Host, VAULT};
use crate::simulators::account::FieldValue;
use crate::simulators::http::Fault;

/// A secret that its unit waits for.
fn patient(deadline: &str) -> Value {
    json!({"units": [{"unit": UNIT, "deadline": deadline}]})
}

fn add(host: &Host, name: &str, value: &str) {
    host.simulator.change(|account| {
        account.add(VAULT, name, &[("value", FieldValue::Concealed(value.into()))]);
    });
}

/// The requests that wait, as `opnix status` has them.
fn waiting(daemon: &Daemon) -> Vec<Value> {
    status(daemon)["requests"].as_array().unwrap().clone()
}

#[test]
fn an_outage_longer_than_the_deadline_of_others_is_waited_for() {
    let host = Host::new(&["a", "b", "c"]);
    let never = json!({"cache": "never"});
    let secrets = [("a", patient("infinity")), ("b", json!({})), ("c", merged(patient("10m"), &never))];
    let daemon = host.start(&host.config(json!({"deadline": "2s"}), &secrets));
    host.one_password_is_down(true);
    let asked = &daemon;
    thread::scope(|scope| {
        let a = scope.spawn(move || asked.ask("a"));
        let c = scope.spawn(move || asked.ask("c"));
        assert!(daemon.refusal("b").contains("cannot be reached"));
        daemon.says("credential \"a\" for unit test.service cannot be had for now, and the unit goes on waiting: 1Password cannot be reached");
        daemon.says("credential \"c\" for unit test.service cannot be had for now");
        let mut requests = waiting(&daemon);
        requests.sort_by_key(|request| request["credential"].to_string());
        assert_eq!(requests.len(), 2, "{requests:?}");
        assert_eq!((&requests[0]["unit"], &requests[0]["until"]), (&json!(UNIT), &Value::Null));
        let time = |request: &Value, key: &str| request[key].as_u64().unwrap();
        let all = time(&requests[1], "until") - time(&requests[1], "since");
        assert!((599..=601).contains(&all), "{all}");
        let (text, _) = daemon.command(&["status"]);
        assert!(text.contains("waiting    ") && text.contains("for \"a\": asked "), "{text}");
        assert!(text.contains(", waits for ever\n") && text.contains(", is refused in 9m "), "{text}");
        thread::sleep(Duration::from_secs(3));
        assert!(!a.is_finished() && !c.is_finished());
        host.one_password_is_down(false);
        assert_eq!(a.join().unwrap().as_deref(), Some("canary-a"));
        assert_eq!(c.join().unwrap().as_deref(), Some("canary-c"));
    });
    assert_eq!(waiting(&daemon), Vec::<Value>::new());
    assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"));
}

#[test]
fn units_that_wait_do_not_ask_while_1password_is_known_to_be_down() {
    let host = Host::new(&["a"]);
    let names: Vec<String> = (0..20).map(|number| format!("s{number}")).collect();
    let secrets: Vec<(&str, Value)> = names
        .iter()
        .map(|name| (name.as_str(), merged(patient("1m"), &json!({"cache": "never"}))))
        .chain([("a", json!({}))])
        .collect();
    let daemon = host.start(&host.config(json!({"deadline": "2s"}), &secrets));
    host.one_password_is_down(true);
    assert!(daemon.ask("a").is_none());
    // What connects and is cut off is counted, here if not by 1Password.
    host.simulator.server.forget_requests();
    let asked = &daemon;
    thread::scope(|scope| {
        let all: Vec<_> = names.iter().map(|name| scope.spawn(move || asked.ask(name))).collect();
        wait("all to wait", || waiting(&daemon).len() == names.len());
        daemon.says(
            "credential \"s0\" for unit test.service cannot be had for now, and the unit goes on waiting: 1Password cannot be reached",
        );
        names.iter().for_each(|name| add(&host, name, "here"));
        thread::sleep(Duration::from_secs(15));
        // The probes of the background, after 5 and 10 seconds, with what the core repeats.
        assert!(host.requests() <= 20, "{}: {:?}", host.requests(), host.simulator.server.requests());
        host.one_password_is_down(false);
        all.into_iter().for_each(|one| assert_eq!(one.join().unwrap().as_deref(), Some("here")));
    });
}

#[test]
fn what_is_not_there_yet_is_waited_for_and_seldom_asked_for() {
    let host = Host::new(&["there"]);
    let secrets = [("late", patient("infinity")), ("later", patient("infinity")), ("there", json!({}))];
    let daemon = host.start(&host.config(json!({"deadline": "2s"}), &secrets));
    assert!(daemon.ask("there").is_some());
    let asked = &daemon;
    thread::scope(|scope| {
        let late = scope.spawn(move || asked.ask("late"));
        daemon.says("the unit goes on waiting: there is no item \"late\"");
        host.simulator.server.forget_requests();
        thread::sleep(Duration::from_secs(12));
        assert!(host.requests() <= 10, "{:?}", host.simulator.server.requests());
        add(&host, "late", "here now");
        // Without help: the pause is a few seconds by now.
        assert_eq!(late.join().unwrap().as_deref(), Some("here now"));
        // With help.
        let later = scope.spawn(move || asked.ask("later"));
        daemon.says("the unit goes on waiting: there is no item \"later\"");
        thread::sleep(Duration::from_secs(12));
        add(&host, "later", "at once");
        let began = Instant::now();
        assert_eq!(daemon.command(&["refresh", "later"]).1, 0);
        assert_eq!(later.join().unwrap().as_deref(), Some("at once"));
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    });
}

#[test]
fn a_template_is_waited_for_until_all_of_its_values_are_of_use() {
    let host = Host::new(&["there"]);
    add(&host, "blob", "a\0b");
    let text = "x={{ op://Vault/blob/value | env }} {{ op://Vault/there/value }}";
    let template = merged(json!({"name": "text", "template": text}), &patient("1m"));
    let config = merged(
        host.config(json!({"deadline": "2s", "fresh_for": "1h"}), &[]),
        &json!({"templates": [template]}),
    );
    let daemon = host.start(&config);
    let asked = &daemon;
    thread::scope(|scope| {
        let waits = scope.spawn(move || asked.ask("text"));
        daemon.says(
            "the unit goes on waiting: text: the value cannot be written in the form env: it has a NUL in it",
        );
        host.simulator.server.forget_requests();
        thread::sleep(Duration::from_secs(6));
        assert_eq!(host.requests(), 0, "the values are fresh");
        host.simulator.change(|account| account.set(VAULT, "blob", "value", "ab"));
        assert_eq!(daemon.command(&["refresh", "text"]).1, 0);
        assert_eq!(waits.join().unwrap().as_deref(), Some("x=\"ab\" canary-there"));
    });
}

#[test]
fn its_own_deadline_ends_it_with_the_last_reason() {
    let host = Host::new(&["there"]);
    // Longer than the one of all, and shorter.
    for (all, own) in [("1s", "4s"), ("30s", "3s")] {
        let daemon = host.start(&host.config(json!({"deadline": all}), &[("gone", patient(own))]));
        let began = Instant::now();
        assert!(daemon.refusal("gone").contains("there is no item \"gone\""));
        let own = humantime::parse_duration(own).unwrap();
        assert!(
            began.elapsed() >= own && began.elapsed() < own + Duration::from_secs(8),
            "{:?}",
            began.elapsed()
        );
    }
}

#[test]
fn a_value_that_is_kept_is_not_waited_for() {
    let host = Host::new(&["a"]);
    let config =
        host.config(json!({"fresh_for": "0s", "short_deadline": "1s"}), &[("a", patient("infinity"))]);
    let daemon = host.start(&config);
    assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"));
    daemon.stop();
    host.simulator.server.fault("", usize::MAX, Fault::Hang);
    let daemon = host.start(&config);
    let began = Instant::now();
    assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[test]
fn a_reload_decides_anew_for_a_unit_that_waits() {
    let host = Host::new(&["there"]);
    let waiting_for = |deadline: Option<&str>, name: &str| {
        let units = deadline.map_or(json!([]), |deadline| json!([{"unit": UNIT, "deadline": deadline}]));
        let secret = json!({"name": "key", "reference": format!("op://{VAULT}/{name}/value"), "units": units, "path": "x"});
        merged(host.config(json!({"deadline": "1s"}), &[]), &json!({"secrets": [secret]}))
    };
    let daemon = host.start(&waiting_for(Some("infinity"), "gone"));
    let asked = &daemon;
    thread::scope(|scope| {
        let waits = scope.spawn(move || asked.ask("key"));
        daemon.says("the unit goes on waiting");
        daemon.configure(&waiting_for(Some("10m"), "gone"));
        daemon.reload();
        wait("its new deadline", || waiting(&daemon).iter().any(|request| request["until"].is_u64()));
        daemon.configure(&waiting_for(Some("10m"), "there"));
        daemon.reload();
        assert_eq!(waits.join().unwrap().as_deref(), Some("canary-there"));

        daemon.configure(&waiting_for(Some("infinity"), "gone"));
        daemon.reload();
        let waits = scope.spawn(move || asked.answer("key"));
        wait("it to wait", || !waiting(&daemon).is_empty());
        daemon.configure(&waiting_for(None, "gone"));
        daemon.reload();
        assert_eq!(
            waits.join().unwrap(),
            Err("no secret is configured under this credential name".to_owned())
        );
    });
}

#[test]
fn a_new_token_is_noticed_while_a_unit_waits() {
    let host = Host::new(&["a"]);
    let daemon = host.start(&host.config(json!({"deadline": "2s"}), &[("a", patient("infinity"))]));
    daemon.replace_token("made-up");
    let asked = &daemon;
    thread::scope(|scope| {
        let waits = scope.spawn(move || asked.ask("a"));
        daemon.says("the unit goes on waiting: ");
        thread::sleep(Duration::from_secs(12));
        assert_eq!(host.requests(), 0);
        let began = Instant::now();
        daemon.replace_token(&host.simulator.token());
        assert_eq!(waits.join().unwrap().as_deref(), Some("canary-a"));
        assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    });
}

#[test]
fn a_limit_is_waited_for_and_a_value_that_is_too_large_is_not() {
    let host = Host::new(&["a"]);
    add(&host, "large", &"x".repeat(2 << 20));
    let secrets = [("a", patient("infinity")), ("large", patient("infinity"))];
    let daemon = host.start(&host.config(json!({"deadline": "2s"}), &secrets));
    assert!(daemon.refusal("large").contains("bytes"));
    host.simulator.server.fault("", usize::MAX, Fault::Limited(Some(20)));
    let asked = &daemon;
    thread::scope(|scope| {
        let waits = scope.spawn(move || asked.ask("a"));
        daemon.says("the unit goes on waiting: 1Password's limit on requests is reached");
        host.simulator.server.clear_faults();
        host.simulator.server.forget_requests();
        thread::sleep(Duration::from_secs(3));
        assert_eq!(host.requests(), 0);
        assert_eq!(waits.join().unwrap().as_deref(), Some("canary-a"));
    });
}
