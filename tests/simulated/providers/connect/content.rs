//! What a reference comes to.

use super::{daemon, everything};
use crate::simulators::account::Account;
use crate::simulators::connect::Connect;
use crate::simulators::http::Fault;

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
fn fields_in_no_section_or_without_a_label_are_had() {
    let simulator = everything();
    let account = simulator.account();
    let kinds = account.vaults.iter().flat_map(|vault| &vault.items).find(|item| item.title == "Kinds");
    let unlabelled = kinds.unwrap().fields.iter().find(|field| field.label.is_empty()).unwrap();
    let by_id = format!("op://Zoo/Kinds/{}", unlabelled.id);
    let secrets = [
        ("loose", "op://Zoo/Kinds/loose"),
        ("no-section", "op://Zoo/Kinds//loose"),
        ("section-id", "op://Zoo/Kinds/add more/loose"),
        ("by-id", &by_id),
    ];
    let daemon = daemon(&simulator, &secrets);
    for (name, reference) in &secrets[..3] {
        assert_eq!(daemon.answer(name).as_deref(), Ok("in no section"), "{reference}");
    }
    assert_eq!(daemon.answer("by-id").as_deref(), Ok("without a label"));
}

#[test]
fn answers_that_do_not_say_how_long_they_are_are_had_whole() {
    let simulator = everything();
    simulator.server.fault("GET", usize::MAX, Fault::Chunked);
    let secrets = [("lines", "op://Zoo/Kinds/lines"), ("file-paper", "op://Zoo/Papers/paper.bin")];
    let daemon = daemon(&simulator, &secrets);
    assert_eq!(daemon.ask("lines").as_deref(), Some("one\ntwo\r\n\tthree \"quoted\" \\ é😀"));
    assert_eq!(daemon.ask_bytes("file-paper"), Some((0..=255).collect()));
    assert_eq!(simulator.server.faults_met(), simulator.server.requests());
}
