//! The provider `connect`, against the simulator of a Connect server.

// A test that panics has failed, which is what it should do then.
#![allow(clippy::unwrap_used)]

mod daemon;
mod simulators;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::thread;

use daemon::Daemon;
use serde_json::{Value, json};
use simulators::account::{Account, FieldValue};
use simulators::connect::{Connect, TOKEN};
use simulators::http::{Fault, Tls};

fn provider(simulator: &Connect) -> Value {
    json!({"kind": "connect", "host": simulator.url()})
}

fn daemon(simulator: &Connect, secrets: &[(&str, &str)]) -> Daemon {
    Daemon::with("20s", &provider(simulator), TOKEN, secrets)
}

fn everything() -> Connect {
    Connect::local(Account::everything())
}

/// How many requests `ask` takes.
fn cost(simulator: &Connect, ask: impl FnOnce()) -> usize {
    simulator.server.forget_requests();
    ask();
    simulator.server.requests().len()
}

#[test]
fn every_field_of_the_account_is_had_by_its_names() {
    let account = Account::everything();
    let expected = account.expected();
    let expected = expected.as_object().unwrap();
    let names: Vec<String> = (0..expected.len()).map(|number| format!("s{number}")).collect();
    let secrets: Vec<(&str, &str)> =
        names.iter().map(String::as_str).zip(expected.keys().map(String::as_str)).collect();
    let simulator = Connect::local(account);
    let daemon = daemon(&simulator, &secrets);
    for ((name, reference), value) in secrets.iter().zip(expected.values()) {
        assert_eq!(daemon.ask(name).as_deref(), value.as_str(), "{reference}");
    }
    assert!(expected.len() > 100);
}

#[test]
fn sections_notes_codes_and_files_are_had_too() {
    let simulator = everything();
    let paper: Vec<u8> = (0..=255).collect();
    let daemon = daemon(
        &simulator,
        &[
            ("section", "op://zoo/SECTIONS/Section_prod/Password"),
            ("notes", "op://Zoo/Kinds/notes"),
            ("otp", "op://Zoo/Kinds/code?attribute=otp"),
            ("key", "op://Zoo/Key/private key"),
            ("ssh", "op://Zoo/Key/private key?ssh-format=openssh"),
            ("file-paper", "op://Zoo/Papers/paper.bin"),
            ("file-cert", "op://Zoo/Sections/prod/cert.pem"),
        ],
    );
    assert_eq!(daemon.ask("section").as_deref(), Some("prod-password"));
    assert_eq!(daemon.ask("notes").as_deref(), Some("a note\nof two lines"));
    assert_eq!(daemon.ask("otp").as_deref(), Some("123456"));
    assert!(daemon.ask("key").unwrap().starts_with("-----BEGIN PRIVATE KEY-----"));
    assert!(daemon.refusal("ssh").contains("a Connect server converts no SSH keys"));
    assert_eq!(daemon.ask_bytes("file-paper"), Some(paper));
    assert_eq!(daemon.ask("file-cert").as_deref(), Some("-----BEGIN MADE UP-----\n"));
}

#[test]
fn requests_are_as_few_as_documented() {
    let simulator = everything();
    let mut by_id = String::new();
    simulator.change(|account| {
        let zoo = account.vault("Zoo");
        by_id = format!("op://{}/{}/username", zoo.id, zoo.items[0].id);
    });
    let fresh = daemon(&simulator, &[("id", &by_id)]);
    assert_eq!(cost(&simulator, || assert!(fresh.ask("id").is_some())), 1, "first fetch, by ids");
    let daemon = daemon(
        &simulator,
        &[
            ("first", "op://Zoo/Sections/username"),
            ("same", "op://Zoo/Sections/only"),
            ("other", "op://Zoo/Kinds/lines"),
        ],
    );
    assert_eq!(cost(&simulator, || drop(daemon.ask("first"))), 3, "vaults, items, item");
    assert_eq!(cost(&simulator, || drop(daemon.ask("other"))), 1, "warm");
    assert_eq!(cost(&simulator, || drop(daemon.ask("other"))), 0, "from memory");
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
    let requests = cost(&simulator, || {
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
fn each_fault_ends_in_the_refusal_that_says_what_it_is() {
    let simulator = everything();
    for (on, fault, says) in [
        ("GET /v1/vaults", Fault::Status(401), "rejects the token"),
        ("GET /v1/vaults", Fault::Status(403), "may not read the account's vaults"),
        ("GET /v1/vaults", Fault::Limited(None), "limit on requests"),
        ("GET /v1/vaults", Fault::Limited(Some(3600)), "limit on requests is reached until 20"),
        // A day at most, whatever it says.
        ("GET /v1/vaults", Fault::Limited(Some(300_000_000_000)), "limit on requests is reached until 20"),
        ("GET /v1/vaults", Fault::Limited(Some(u64::MAX)), "limit on requests is reached until 20"),
        ("GET /v1/vaults", Fault::Status(500), "out of order: the Connect server answers with 500"),
        ("GET /v1/vaults", Fault::Status(302), "out of order"),
        ("GET /v1/vaults", Fault::Reset, "cannot be reached"),
        ("GET /v1/vaults", Fault::Truncate, "the connection broke off"),
        ("GET /v1/vaults", Fault::Garbage, "broke its contract"),
        ("GET /v1/vaults/", Fault::Status(404), "there is no vault \"Zoo\""),
        ("GET /v1/vaults/", Fault::Status(503), "out of order"),
    ] {
        simulator.server.clear_faults();
        simulator.server.fault(on, usize::MAX, fault.clone());
        let secrets = [("key", "op://Zoo/Sections/username")];
        // What may pass is tried again until the deadline.
        let daemon = Daemon::with("1500ms", &provider(&simulator), TOKEN, &secrets);
        let refusal = daemon.refusal("key");
        assert!(refusal.contains(says), "{on} {fault:?}: {refusal}");
        assert!(!daemon.log().contains(TOKEN));
        // And it passes when the fault does, without anybody's help; but who says when to come back is not asked before.
        simulator.server.clear_faults();
        if matches!(fault, Fault::Limited(Some(_))) {
            assert_eq!(cost(&simulator, || assert!(daemon.refusal("key").contains(says))), 0);
            continue;
        }
        assert_eq!(daemon.ask("key").as_deref(), Some("keeper"), "after {on} {fault:?}");
    }
}

#[test]
fn a_server_that_says_when_to_come_back_is_asked_again_then() {
    let simulator = everything();
    simulator.server.fault("GET /v1/vaults", 1, Fault::Limited(Some(1)));
    let daemon = daemon(&simulator, &[("key", "op://Zoo/Sections/username")]);
    assert_eq!(daemon.ask("key").as_deref(), Some("keeper"));
    assert_eq!(simulator.server.requests().len(), 4);
}

#[test]
fn a_server_that_does_not_answer_costs_the_deadline_and_no_more() {
    let simulator = everything();
    simulator.server.fault("GET /v1/vaults", 1, Fault::Hang);
    let daemon = Daemon::with("2s", &provider(&simulator), TOKEN, &[("key", "op://Zoo/Sections/username")]);
    let refusal = daemon.refusal("key");
    assert!(refusal.contains("did not answer"), "{refusal}");
    assert_eq!(daemon.ask("key").as_deref(), Some("keeper"));
}

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
        ("two", "field \"password\" is ambiguous; use one of the ids "),
        ("empty", "op://Zoo/Kinds/empty is empty"),
        ("archived", "there is no item \"Gone\""),
    ] {
        let refusal = daemon.refusal(name);
        assert!(refusal.contains(says), "{name}: {refusal}");
    }
}

#[test]
fn a_private_authority_is_trusted_when_it_is_given_and_only_then() {
    let tls = Tls::new();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let _simulator = Connect::start(listener, Some(&tls), Account::everything());
    let authority = Path::new(env!("CARGO_TARGET_TMPDIR")).join("connect-authority.pem");
    fs::write(&authority, &tls.pem).unwrap();
    let secrets = [("key", "op://Zoo/Sections/username")];
    let trusting = json!({"kind": "connect", "host": url, "authority": authority});
    assert_eq!(Daemon::with("20s", &trusting, TOKEN, &secrets).ask("key").as_deref(), Some("keeper"));
    let strict = json!({"kind": "connect", "host": url});
    let refusal = Daemon::with("1s", &strict, TOKEN, &secrets).refusal("key");
    assert!(refusal.contains("cannot be reached") && refusal.contains("certificate"), "{refusal}");
    fs::write(&authority, "no certificate").unwrap();
    let refusal = Daemon::with("1s", &trusting, TOKEN, &secrets).refusal("key");
    assert!(refusal.contains("connect-authority.pem cannot be used"), "{refusal}");
}

#[test]
fn a_token_that_no_header_can_hold_is_never_repeated() {
    let simulator = everything();
    let daemon = Daemon::with(
        "20s",
        &provider(&simulator),
        "hunter2\u{1}hunter2",
        &[("key", "op://Zoo/Sections/username")],
    );
    assert!(daemon.refusal("key").contains("not a Connect token"));
    assert!(!daemon.log().contains("hunter2"));
}

#[test]
fn a_renamed_item_is_looked_for_anew() {
    let simulator = everything();
    let daemon = daemon(&simulator, &[("a", "op://Zoo/Sections/username"), ("b", "op://Zoo/Sections/only")]);
    assert!(daemon.ask("a").is_some());
    simulator.change(|account| {
        account.change("Zoo", "Sections", |item| item.title = "Old sections".into());
        account.add("Zoo", "Sections", &[("only", FieldValue::Text("the new one".into()))]);
    });
    assert_eq!(daemon.ask("b").as_deref(), Some("the new one"));
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
        cost(&simulator, || assert_eq!(ask_all(), before)),
        1,
        "nothing changed: {:?}",
        simulator.server.requests()
    );
    simulator.change(|account| account.set("Zoo", "Sections", "username", "somebody else"));
    daemon.reload();
    // The versions; then the items of the changed vault, and of these the two that are asked for.
    assert_eq!(
        cost(&simulator, || assert_eq!(ask_all()[0], "somebody else")),
        4,
        "{:?}",
        simulator.server.requests()
    );
}
