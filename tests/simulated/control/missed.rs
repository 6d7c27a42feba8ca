//! What units were refused for want of a value: it is remembered, looked for, and told.

use opnix::internals::asker;
use serde_json::{Value, json};

use super::{Host, write_vault};
use crate::daemon::UNIT;
use crate::helpers::{status, wait};

fn missed(host: &Host) -> Vec<Value> {
    status(&host.daemon)["missed"].as_array().unwrap().clone()
}

#[test]
fn a_refusal_for_want_of_a_value_is_remembered_through_a_restart_until_the_unit_has_it() {
    let mut host = Host::new(true);
    assert_eq!(host.daemon.ask("gone"), None);
    // One for want of a right is not.
    let socket = host.daemon.control().with_file_name("socket");
    assert_eq!(asker::ask(&socket, "other.service", "gone").unwrap(), None);
    let before = missed(&host);
    assert_eq!(before.len(), 1, "{before:?}");
    assert_eq!((&before[0]["unit"], &before[0]["credential"]), (&json!(UNIT), &json!("gone")));
    assert_eq!((&before[0]["secret"], &before[0]["ready"]), (&json!("gone"), &json!(false)));
    assert!(before[0]["reason"].as_str().unwrap().contains("there is no item \"Gone\""), "{before:?}");
    let saved = || std::fs::read_to_string(host.directory.join("missed.json")).unwrap_or_default();
    wait("it to be saved", || saved().contains("gone"));
    host.daemon = Host::daemon(&host.directory);
    let after = missed(&host);
    assert_eq!((&after[0]["since"], &after[0]["ready"]), (&before[0]["since"], &json!(false)));

    // It is looked for by itself, and only told to be there: the unit asks as any other.
    write_vault(&host.vault(), &[("OpenAI", "canary-1"), ("Datadog", "canary-2"), ("Gone", "canary-3")]);
    wait("the value", || missed(&host)[0]["ready"] == json!(true));
    let (text, _) = host.daemon.command(&["status"]);
    assert!(text.contains(&format!("left out   {UNIT} was refused \"gone\" ")), "{text}");
    assert!(text.contains(", which it would get now\n"), "{text}");
    assert_eq!(host.daemon.ask("gone").as_deref(), Some("canary-3"));
    assert_eq!(missed(&host), [Value::Null; 0]);
}

#[test]
fn what_leaves_the_configuration_is_missed_by_nobody() {
    let host = Host::new(false);
    assert_eq!(host.daemon.ask("gone"), None);
    assert_eq!(missed(&host).len(), 1);
    let mut less = super::config(&host.vault());
    less["secrets"].as_array_mut().unwrap().retain(|secret| secret["name"] != "gone");
    host.daemon.configure(&less);
    host.daemon.reload();
    wait("nobody to miss it", || missed(&host).is_empty());
}
