//! Names that mean nothing, or several things, or something else than before.

use super::{daemon, everything};
use crate::simulators::account::FieldValue;

#[test]
fn what_is_not_there_or_ambiguous_or_not_shared_is_named() {
    let simulator = everything();
    simulator.change(|account| account.vault("Vault 1").shared = false);
    let hidden = {
        let mut id = String::new();
        simulator.change(|account| id = account.vault("Vault 1").id.clone());
        id
    };
    let by_id = format!("op://{hidden}/Item 1/value");
    let daemon = daemon(
        &simulator,
        &[
            ("vault", "op://Vault 1/Item 1/value"),
            ("hidden", &by_id),
            ("item", "op://Zoo/Nope/y"),
            ("section", "op://Zoo/Sections/nope/y"),
            ("field", "op://Zoo/Sections/nope"),
            ("file-f", "op://Zoo/Sections/nope.pem"),
            ("twin", "op://Zoo/Twin/value"),
            ("two", "op://Zoo/Sections/password"),
            ("empty", "op://Zoo/Kinds/empty"),
            ("archived", "op://Zoo/Gone/value"),
            ("document", "op://Zoo/Papers/paper.bin"),
            ("file-field", "op://Zoo/Sections/username"),
        ],
    );
    for (name, says) in [
        ("vault", "there is no vault \"Vault 1\""),
        ("hidden", "may not read vault"),
        ("item", "there is no item \"Nope\" in vault \"Zoo\""),
        ("section", "item \"Sections\" has no section \"nope\""),
        ("field", "item \"Sections\" has no field \"nope\""),
        ("file-f", "item \"Sections\" has no file \"nope.pem\""),
        ("twin", "item \"Twin\" is ambiguous; use one of the ids "),
        (
            "two",
            "is ambiguous; say which: op://Zoo/Sections/prod/password or op://Zoo/Sections/test/password",
        ),
        ("empty", "op://Zoo/Kinds/empty is empty"),
        ("archived", "there is no item \"Gone\""),
        ("document", "it has a file of this name: say \"kind\": \"file\""),
        ("file-field", "it has a field of this name: leave out \"kind\": \"file\""),
    ] {
        let refusal = daemon.refusal(name);
        assert!(refusal.contains(says), "{name}: {refusal}");
    }
}

#[test]
fn a_renamed_item_is_looked_for_anew() {
    let simulator = everything();
    let daemon = daemon(&simulator, &[("a", "op://Zoo/Kinds/lines"), ("b", "op://Zoo/Sections/only")]);
    assert!(daemon.ask("a").is_some());
    simulator.change(|account| {
        account.change("Zoo", "Sections", |item| item.title = "Old sections".into());
        account.add("Zoo", "Sections", &[("only", FieldValue::Text("the new one".into()))]);
    });
    assert_eq!(daemon.ask("b").as_deref(), Some("the new one"));
}
