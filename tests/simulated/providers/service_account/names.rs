//! Names that mean nothing, or several things, or something else than before.

use super::everything;
use crate::daemon::Daemon;
use crate::simulators::account::{FieldValue, id};

#[test]
fn what_is_not_there_or_ambiguous_is_named() {
    let simulator = everything();
    simulator.change(|account| account.vault("Secret Vault").shared = false);
    let daemon = Daemon::start(
        &simulator.token(),
        &[
            ("vault", "op://Secret Vault/x/y"),
            ("item", "op://Zoo/Nope/y"),
            ("section", "op://Zoo/Sections/nope/y"),
            ("field", "op://Zoo/Sections/nope"),
            ("file-f", "op://Zoo/Sections/nope.pem"),
            ("twin", "op://Zoo/Twin/value"),
            ("two", "op://Zoo/Sections/password"),
            ("id", "op://Zoo/aaaaaaaaaaaaaaaaaaaaaaaaaa/y"),
        ],
    );
    for (name, says) in [
        ("vault", "there is no vault \"Secret Vault\""),
        ("item", "there is no item \"Nope\" in vault \"Zoo\""),
        ("section", "item \"Sections\" has no section \"nope\""),
        ("field", "item \"Sections\" has no field \"nope\""),
        ("file-f", "item \"Sections\" has no file \"nope.pem\""),
        ("twin", "item \"Twin\" is ambiguous; use one of the ids "),
        (
            "two",
            "is ambiguous; say which: op://Zoo/Sections/prod/password or op://Zoo/Sections/test/password",
        ),
        ("id", "there is no item \"aaaaaaaaaaaaaaaaaaaaaaaaaa\""),
    ] {
        let refusal = daemon.refusal(name);
        assert!(refusal.contains(says), "{name}: {refusal}");
    }
    let account = simulator.account();
    let twins = account
        .vaults
        .iter()
        .flat_map(|vault| &vault.items)
        .filter(|item| item.title.eq_ignore_ascii_case("twin"));
    let refusal = daemon.refusal("twin");
    assert!(twins.map(|item| &item.id).all(|id| refusal.contains(id.as_str())), "{refusal}");
}

#[test]
fn a_renamed_moved_or_replaced_item_is_looked_for_anew() {
    let simulator = everything();
    simulator.change(|account| {
        account.add("Zoo", "Warm", &[("up", FieldValue::Text("warm".into()))]);
    });
    let daemon = Daemon::start(
        &simulator.token(),
        &[
            ("warm-up", "op://Zoo/Warm/up"),
            ("renamed", "op://Zoo/Sections/only"),
            ("again", "op://Zoo/Kinds/lines"),
            ("gone", "op://Zoo/Key/private key"),
        ],
    );
    assert!(daemon.ask("warm-up").is_some());
    // The name now belongs to another item: its value counts, not that of the item that once bore the name.
    simulator.change(|account| {
        account.change("Zoo", "Sections", |item| item.title = "Old sections".into());
        account.add("Zoo", "Sections", &[("only", FieldValue::Text("the new one".into()))]);
        let kinds = account.vault("Zoo").items.iter().position(|item| item.title == "Kinds").unwrap();
        account.vault("Zoo").items[kinds].id = id(77);
        account.vault("Zoo").items.retain(|item| item.title != "Key");
    });
    assert_eq!(daemon.ask("renamed").as_deref(), Some("the new one"));
    assert!(daemon.ask("again").is_some());
    assert!(daemon.refusal("gone").contains("there is no item \"Key\""));
}
