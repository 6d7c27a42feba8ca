//! Vaults that are renamed, made anew or listed with an error: never another vault's secret, whichever the provider.

use std::thread;

use super::connect;
use crate::daemon::Daemon;
use crate::helpers::cost;
use crate::simulators::account::{Account, FieldValue};
use crate::simulators::connect::Connect;
use crate::simulators::http::{Fault, Server};
use crate::simulators::service_account::ServiceAccount;

const SECRETS: [(&str, &str); 3] =
    [("a", "op://Prod/Key a/value"), ("b", "op://Prod/Key b/value"), ("c", "op://Prod/Key c/value")];

fn with_vault(account: &mut Account, name: &str, value: &str) {
    for label in ["a", "b", "c"] {
        let value = FieldValue::Concealed(format!("{value} {label}"));
        account.add(name, &format!("Key {label}"), &[("value", value)]);
    }
}

fn two_vaults() -> Account {
    let mut account = Account::everything();
    with_vault(&mut account, "Prod", "first");
    with_vault(&mut account, "Test", "second");
    account
}

/// Through each provider: a daemon, and how to change the account that it asks.
fn with_each(secrets: &[(&str, &str)], check: impl Fn(&Daemon, &dyn Fn(&dyn Fn(&mut Account)), &Server)) {
    let simulator = ServiceAccount::local(two_vaults());
    let daemon = Daemon::start(&simulator.token(), secrets);
    check(&daemon, &|change| simulator.change(|account| change(account)), &simulator.server);
    let simulator = Connect::local(two_vaults());
    let daemon = connect::with_deadline(&simulator, "20s", secrets);
    check(&daemon, &|change| simulator.change(|account| change(account)), &simulator.server);
}

#[test]
fn a_vault_that_took_anothers_name_is_the_one_that_is_meant() {
    with_each(&SECRETS, |daemon, change, _| {
        assert_eq!(daemon.ask("a").as_deref(), Some("first a"));
        change(&|account| {
            account.vault("Prod").name = "Old".into();
            account.vault("Test").name = "Prod".into();
        });
        assert_eq!(daemon.ask("b").as_deref(), Some("second b"), "asked for the first time");
        daemon.reload();
        assert_eq!(daemon.ask("a").as_deref(), Some("second a"), "doubtful since the reload");
    });
}

#[test]
fn a_vault_that_was_made_anew_is_found() {
    with_each(&SECRETS, |daemon, change, _| {
        assert_eq!(daemon.ask("a").as_deref(), Some("first a"));
        change(&|account| {
            account.vaults.retain(|vault| vault.name != "Prod");
            with_vault(account, "Prod", "third");
        });
        assert_eq!(daemon.ask("b").as_deref(), Some("third b"));
        change(&|account| {
            account.vault("Prod").shared = false;
            account.vault("Test").name = "Prod".into();
        });
        assert_eq!(daemon.ask("c").as_deref(), Some("second c"), "of two, the one that is shared");
    });
}

#[test]
fn a_vault_that_was_made_anew_confirms_no_value_of_the_one_before() {
    with_each(&SECRETS, |daemon, change, _| {
        assert_eq!(daemon.ask("a").as_deref(), Some("first a"));
        change(&|account| {
            account.vaults.retain(|vault| vault.name != "Prod");
            with_vault(account, "Prod", "third");
        });
        // From here on the new vault is known as well.
        assert_eq!(daemon.ask("b").as_deref(), Some("third b"));
        daemon.reload();
        assert_eq!(daemon.ask("a").as_deref(), Some("third a"));
    });
}

#[test]
fn a_list_that_fails_is_asked_for_once_for_all() {
    let names: Vec<String> = (0..40).map(|number| format!("s{number}")).collect();
    let references: Vec<String> =
        (0..40).map(|number| format!("op://One Vault/Item {number}/value")).collect();
    let secrets: Vec<(&str, &str)> =
        names.iter().map(String::as_str).zip(references.iter().map(String::as_str)).collect();
    let simulator = Connect::local(two_vaults());
    for on in ["GET /v1/vaults", "GET /v1/vaults/"] {
        let daemon = connect::with_deadline(&simulator, "20s", &secrets);
        simulator.server.fault(on, usize::MAX, Fault::Status(403));
        let requests = cost(&simulator.server, || {
            thread::scope(|scope| {
                for name in &names {
                    scope.spawn(|| assert!(daemon.refusal(name).contains("may not read")));
                }
            });
        });
        // Not all of them come before the first fetch begins.
        assert!(requests <= 6, "{on}: {:?}", simulator.server.requests());
        simulator.server.clear_faults();
    }
}

#[test]
fn a_value_that_was_read_before_a_vault_was_listed_is_not_confirmed_by_that() {
    let mut account = two_vaults();
    let prod = account.vault("Prod");
    let by_ids = format!("op://{}/{}/value", prod.id, prod.items[0].id);
    for reload_with in ["20s", "25s"] {
        for first in [by_ids.as_str(), "op://Prod/Key a/value"] {
            let simulator = Connect::local(account.clone());
            let secrets = [("a", first), ("b", "op://Prod/Key b/value")];
            let daemon = connect::with_deadline(&simulator, "20s", &secrets);
            assert_eq!(daemon.ask("a").as_deref(), Some("first a"));
            simulator.change(|account| account.set("Prod", "Key a", "value", "changed"));
            if reload_with == "20s" {
                assert_eq!(daemon.ask("b").as_deref(), Some("first b"));
            }
            // A reload asks what is true now, whatever else it changes.
            let text = std::fs::read_to_string(daemon.configuration()).unwrap();
            std::fs::write(daemon.configuration(), text.replace("20s", reload_with)).unwrap();
            daemon.reload();
            assert_eq!(daemon.ask("b").as_deref(), Some("first b"));
            assert_eq!(daemon.ask("a").as_deref(), Some("changed"), "{reload_with} {first}");
        }
    }
}

/// Names that 1Password allows and its references do not, percent-encoded.
#[test]
fn names_with_any_characters_are_found_by_percent_encoding() {
    let mut account = two_vaults();
    with_vault(&mut account, "Schl\u{fc}ssel/1", "odd");
    let item = account.add(
        "Schl\u{fc}ssel/1",
        "A & \"b\"? 100%",
        &[("plain", FieldValue::Text("one".into())), ("S/caf\u{e9} $1", FieldValue::Text("two".into()))],
    );
    let id = item.id.clone();
    let exact = "op://Schl%C3%BCssel%2F1/A %26 %22b%22%3F 100%25";
    let secrets = [
        ("plain", format!("{exact}/plain")),
        ("section", format!("{exact}/S/caf%c3%a9 %241")),
        ("any case", String::from("op://SCHL%C3%9CSSEL%2F1/a%20%26 %22B%22%3F 100%25/s/CAF%C3%89 %241")),
        ("by id", format!("op://Schl%C3%BCssel%2F1/{id}/plain")),
        ("other", format!("{exact}x/plain")),
    ];
    let secrets: Vec<(&str, &str)> = secrets.iter().map(|(name, of)| (*name, of.as_str())).collect();
    let check = |daemon: &Daemon| {
        for (name, value) in [("plain", "one"), ("section", "two"), ("any case", "two"), ("by id", "one")] {
            assert_eq!(daemon.ask(name).as_deref(), Some(value), "{name}");
        }
        let refusal = daemon.refusal("other");
        assert!(refusal.contains("there is no item \"A & \"b\"? 100%x\" in vault"), "{refusal}");
    };
    let simulator = ServiceAccount::local(account.clone());
    check(&Daemon::start(&simulator.token(), &secrets));
    let simulator = Connect::local(account);
    check(&connect::with_deadline(&simulator, "20s", &secrets));
}
