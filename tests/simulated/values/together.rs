//! What is in one item is of one version: in a text of several fields, whatever becomes of one of them.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::{Daemon, UNIT};
use crate::helpers::cost;
use crate::providers::connect::{everything, provider};
use crate::simulators::account::FieldValue;
use crate::simulators::connect::{Connect, TOKEN};
use crate::simulators::http::Fault;

/// An item with a certificate and its key, and a text with both.
fn pair(more: &Value) -> (Connect, Daemon) {
    let simulator = everything();
    simulator.change(|account| {
        let fields = ["cert", "key"].map(|label| (label, FieldValue::Text(format!("{label} 1"))));
        account.add("Zoo", "Pair", &fields);
    });
    let secret = |name: &str, more: &Value| {
        let mut secret = json!({"name": name, "reference": format!("op://Zoo/Pair/{name}"), "units": [UNIT]});
        secret.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        secret
    };
    let text = "{{ op://Zoo/Pair/cert }}|{{ op://Zoo/Pair/key }}";
    let config = json!({"provider": provider(&simulator), "deadline": "10s",
        "secrets": [secret("cert", &json!({})), secret("key", more)],
        "templates": [{"name": "both", "template": text, "units": [UNIT]}]});
    let daemon = Daemon::configured(&[], &config, TOKEN);
    (simulator, daemon)
}

fn edit(simulator: &Connect, version: u32) {
    simulator.change(|account| {
        for label in ["cert", "key"] {
            account.set("Zoo", "Pair", label, &format!("{label} {version}"));
        }
    });
}

#[test]
fn a_text_of_a_field_that_is_kept_and_one_that_is_not_has_both_of_one_version() {
    let (simulator, daemon) = pair(&json!({"cache": "never"}));
    assert_eq!(daemon.ask("cert").as_deref(), Some("cert 1"));
    for version in 2..5 {
        edit(&simulator, version);
        assert_eq!(daemon.ask("both"), Some(format!("cert {version}|key {version}")));
    }
}

#[test]
fn a_field_that_is_gone_while_another_one_changed_stands_in_beside_it_no_more() {
    let (simulator, daemon) = pair(&json!({}));
    assert_eq!(daemon.ask("both").as_deref(), Some("cert 1|key 1"));
    // The other one is as it was: the one that is gone still stands in.
    simulator.change(|account| {
        account.change("Zoo", "Pair", |item| item.fields.retain(|field| field.label != "key"));
    });
    daemon.reload();
    assert_eq!(daemon.ask("both").as_deref(), Some("cert 1|key 1"));
    simulator.change(|account| account.set("Zoo", "Pair", "cert", "cert 2"));
    daemon.reload();
    let refusal = daemon.refusal("both");
    assert!(refusal.contains("has no field \"key\""), "{refusal}");
    // A unit that is started again and again does not use the budget up.
    for _ in 0..3 {
        daemon.refusal("both");
    }
    assert_eq!(cost(&simulator.server, || drop(daemon.refusal("both"))), 0);
    // By itself each is served.
    assert_eq!(daemon.ask("cert").as_deref(), Some("cert 2"));
    assert_eq!(daemon.ask("key").as_deref(), Some("key 1"));
    simulator.change(|account| {
        account.change("Zoo", "Pair", |item| {
            let mut key = item.fields[0].clone();
            (key.label, key.value) = ("key".into(), FieldValue::Text("key 2".into()));
            key.id.push('x');
            item.fields.push(key);
        });
    });
    daemon.reload();
    assert_eq!(daemon.ask("both").as_deref(), Some("cert 2|key 2"));
}

#[test]
fn who_waits_through_an_outage_waits_on_when_another_asks_for_the_same_item() {
    let (simulator, daemon) = pair(&json!({"cache": "never"}));
    simulator.server.fault("GET", usize::MAX, Fault::Reset);
    thread::scope(|scope| {
        let began = Instant::now();
        let first = scope.spawn(|| (daemon.answer("cert"), Instant::now()));
        thread::sleep(Duration::from_millis(300));
        let second = scope.spawn(|| daemon.answer("key"));
        let third = scope.spawn(|| daemon.answer("both"));
        thread::sleep(Duration::from_secs(2));
        simulator.server.clear_faults();
        let (answer, ended) = first.join().unwrap();
        assert_eq!(answer.as_deref(), Ok("cert 1"), "after {:?}", ended - began);
        assert_eq!(second.join().unwrap().as_deref(), Ok("key 1"));
        assert_eq!(third.join().unwrap().as_deref(), Ok("cert 1|key 1"));
    });
}
