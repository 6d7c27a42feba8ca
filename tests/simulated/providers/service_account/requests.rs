//! What it costs in requests.

use std::thread;

use super::{SIGN_IN, everything, one};
use crate::daemon::Daemon;
use crate::helpers::cost;
use crate::simulators::account::Seal;
use crate::simulators::http::Fault;

#[test]
fn requests_are_as_few_as_documented() {
    let simulator = everything();
    let account = simulator.account();
    let vault = account.vaults.iter().find(|vault| vault.name == "Zoo").unwrap();
    let item = &vault.items[0];
    let by_id = format!("op://{}/{}/username", vault.id, item.id);
    let otp = "op://Zoo/Kinds/code?attribute=otp";
    let daemon = Daemon::start(
        &simulator.token(),
        &[
            ("name", "op://Zoo/Sections/username"),
            ("same", "op://Zoo/Sections/only"),
            ("another", "op://Zoo/Kinds/lines"),
            ("id", &by_id),
            ("otp", otp),
        ],
    );
    assert_eq!(
        cost(&simulator.server, || drop(daemon.ask("name"))),
        SIGN_IN + 3,
        "first fetch: vaults, overviews, item"
    );
    assert_eq!(cost(&simulator.server, || drop(daemon.ask("name"))), 0, "from memory");
    assert_eq!(cost(&simulator.server, || drop(daemon.ask("same"))), 0, "it came with its item");
    assert_eq!(cost(&simulator.server, || drop(daemon.ask("another"))), 2, "warm, by name: vaults, item");
    assert_eq!(cost(&simulator.server, || drop(daemon.ask("id"))), 1, "warm, by id");
    let fresh = Daemon::start(&simulator.token(), &[("id", &by_id)]);
    assert_eq!(
        cost(&simulator.server, || drop(fresh.ask("id"))),
        SIGN_IN + 2,
        "first fetch by id: vault, item"
    );
}

#[test]
fn fifty_units_at_once_cost_one_sign_in_and_one_batch_for_each_vault() {
    for (vaults, reference) in [(1, "op://One Vault/Item {}/value"), (5, "op://Vault {v}/Item {}/value")] {
        let simulator = everything();
        let secrets: Vec<(String, String)> = (0..50)
            .map(|n| {
                (
                    format!("s{n}"),
                    reference.replace("{}", &n.to_string()).replace("{v}", &(n % 5).to_string()),
                )
            })
            .collect();
        let secrets: Vec<(&str, &str)> =
            secrets.iter().map(|(name, of)| (name.as_str(), of.as_str())).collect();
        let daemon = Daemon::start(&simulator.token(), &secrets);
        let prefix = if vaults == 1 { "value" } else { "spread" };
        let requests = cost(&simulator.server, || {
            thread::scope(|scope| {
                for n in 0..50 {
                    let daemon = &daemon;
                    scope.spawn(move || {
                        assert_eq!(daemon.ask(&format!("s{n}")), Some(format!("{prefix}-{n}")))
                    });
                }
            });
        });
        assert_eq!(requests, SIGN_IN + 1 + 2 * vaults, "{:?}", simulator.server.requests());
    }
}

#[test]
fn a_limit_is_not_run_into_twice() {
    let simulator = everything();
    simulator.server.fault("GET /api/v1/vaults", usize::MAX, Fault::Limited(Some(60)));
    let daemon = one(&simulator);
    assert_eq!(cost(&simulator.server, || drop(daemon.refusal("key"))), SIGN_IN);
}

#[test]
fn after_a_reload_one_request_tells_whether_values_still_hold() {
    let simulator = everything();
    let secrets = [
        ("a", "op://Zoo/Sections/username"),
        ("b", "op://Zoo/Kinds/lines"),
        ("c", "op://One Vault/Item 7/value"),
    ];
    let daemon = Daemon::start(&simulator.token(), &secrets);
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
fn one_item_of_a_batch_that_cannot_be_had_costs_a_search_once() {
    let simulator = everything();
    simulator.change(|account| account.change("One Vault", "Item 7", |item| item.seal = Seal::BadDetails));
    let secrets: Vec<(String, String)> =
        (0..50).map(|n| (format!("s{n}"), format!("op://One Vault/Item {n}/value"))).collect();
    let secrets: Vec<(&str, &str)> = secrets.iter().map(|(name, of)| (&**name, &**of)).collect();
    let daemon = Daemon::start(&simulator.token(), &secrets);
    let search = cost(&simulator.server, || assert_eq!(daemon.command(&["refresh"]).1, 69));
    assert!(search <= SIGN_IN + 3 + 13, "{search}: {:?}", simulator.server.requests());
    for (name, _) in &secrets {
        assert_eq!(daemon.ask(name).is_some(), *name != "s7", "{name}");
    }
    assert!(daemon.refusal("s7").contains("item \"Item 7\" of vault \"One Vault\" cannot be had"));
    // Something changed, so that all are read anew: the batch, and the one.
    simulator.change(|account| account.set("One Vault", "Item 8", "value", "new"));
    let again = cost(&simulator.server, || assert_eq!(daemon.command(&["refresh"]).1, 69));
    assert!(again <= 5, "{again}: {:?}", simulator.server.requests());
    assert_eq!(daemon.ask("s8").as_deref(), Some("new"));
    // It is mended.
    simulator.change(|account| account.change("One Vault", "Item 7", |item| item.seal = Seal::Good));
    assert_eq!(daemon.command(&["refresh"]).1, 0);
    assert_eq!(daemon.ask("s7").as_deref(), Some("value-7"));
}
