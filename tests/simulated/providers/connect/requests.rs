//! What it costs in requests.

use std::thread;

use super::{daemon, everything};
use crate::helpers::cost;
use crate::simulators::http::Fault;

#[test]
fn requests_are_as_few_as_documented() {
    let simulator = everything();
    let mut by_id = String::new();
    simulator.change(|account| {
        let zoo = account.vault("Zoo");
        by_id = format!("op://{}/{}/username", zoo.id, zoo.items[0].id);
    });
    let fresh = daemon(&simulator, &[("id", &by_id)]);
    assert_eq!(cost(&simulator.server, || assert!(fresh.ask("id").is_some())), 1, "first fetch, by ids");
    let daemon = daemon(
        &simulator,
        &[
            ("first", "op://Zoo/Sections/username"),
            ("same", "op://Zoo/Sections/only"),
            ("other", "op://Zoo/Kinds/lines"),
        ],
    );
    assert_eq!(cost(&simulator.server, || drop(daemon.ask("first"))), 3, "vaults, items, item");
    assert_eq!(cost(&simulator.server, || drop(daemon.ask("other"))), 2, "warm: vaults, item");
    assert_eq!(cost(&simulator.server, || drop(daemon.ask("other"))), 0, "from memory");
}

#[test]
fn an_item_that_several_ask_for_at_once_is_read_once() {
    let simulator = everything();
    let fields = ["username", "prod/password", "test/password", "only", "one"];
    let references: Vec<String> = fields.iter().map(|field| format!("op://Zoo/Sections/{field}")).collect();
    let names: Vec<String> = (0..fields.len()).map(|number| format!("s{number}")).collect();
    let secrets: Vec<(&str, &str)> =
        names.iter().map(String::as_str).zip(references.iter().map(String::as_str)).collect();
    let daemon = daemon(&simulator, &secrets);
    let requests = cost(&simulator.server, || {
        thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| assert!(daemon.ask(name).is_some()));
            }
        });
    });
    // What comes while the first read is under way goes together in a second one.
    assert!(requests <= 4, "{:?}", simulator.server.requests());
}

#[test]
fn after_a_reload_one_request_tells_whether_values_still_hold() {
    let simulator = everything();
    let secrets = [
        ("a", "op://Zoo/Sections/username"),
        ("b", "op://Zoo/Kinds/lines"),
        ("c", "op://One Vault/Item 7/value"),
    ];
    let daemon = daemon(&simulator, &secrets);
    let ask_all = || secrets.map(|(name, _)| daemon.ask(name).unwrap());
    let before = ask_all();
    daemon.reload();
    assert_eq!(
        cost(&simulator.server, || assert_eq!(ask_all(), before)),
        1,
        "nothing changed: {:?}",
        simulator.server.requests()
    );
    simulator.change(|account| account.set("Zoo", "Sections", "username", "somebody else"));
    daemon.reload();
    // The versions; then the items of the changed vault, and of these the two that are asked for, one after the other: for
    // the second the vaults are listed again.
    assert_eq!(
        cost(&simulator.server, || assert_eq!(ask_all()[0], "somebody else")),
        5,
        "{:?}",
        simulator.server.requests()
    );
}

#[test]
fn a_field_and_a_file_at_once_cost_both_and_a_limit_is_not_run_into_twice() {
    let simulator = everything();
    let secrets = [("key", "op://Zoo/Sections/username"), ("file-paper", "op://Zoo/Papers/paper.bin")];
    let refreshed = daemon(&simulator, &secrets);
    let requests = cost(&simulator.server, || assert_eq!(refreshed.command(&["refresh"]).1, 0));
    // Vaults, items, item; then vaults, item, content.
    assert_eq!(requests, 6, "{:?}", simulator.server.requests());
    let limited = daemon(&simulator, &secrets);
    simulator.server.fault("GET /v1/vaults", usize::MAX, Fault::Limited(None));
    let requests = cost(&simulator.server, || assert_eq!(limited.command(&["refresh"]).1, 69));
    assert_eq!(requests, 1, "{:?}", simulator.server.requests());
}
