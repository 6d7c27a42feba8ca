//! The service knows how many requests it makes.

use serde_json::{Value, json};

use crate::daemon::UNIT;
use crate::helpers::merged;
use crate::host::Host;
use crate::simulators::account::Account;

#[test]
fn requests_of_every_kind_are_counted() {
    let mut account = Account::everything();
    let vault = account.vault("Zoo").id.clone();
    let item = account.vault("Zoo").items.iter().find(|item| item.title == "Sections").unwrap().id.clone();
    let by_id = format!("op://{vault}/{item}/username");
    for references in [
        vec![by_id.as_str(), by_id.as_str()],
        vec!["op://Zoo/Sections/username", "op://Vault 1/Item 1/value", "op://Zoo/Kinds/notes"],
        vec!["op://Zoo/Nope/nothing"],
        vec!["op://Nope/Nope/nothing"],
        vec!["op://Zoo/Sections/prod/cert.pem", "op://Zoo/Papers/paper.bin"],
        vec!["op://Zoo/Key/private key?ssh-format=openssh"],
    ] {
        let host = Host::with(account.clone());
        let secret = |(number, reference): (usize, &&str)| {
            let kind =
                if reference.contains(".pem") || reference.contains(".bin") { "file" } else { "field" };
            json!({"name": format!("s{number}"), "reference": reference, "kind": kind, "units": [UNIT], "cache": "never"})
        };
        let secrets: Vec<Value> = references.iter().enumerate().map(secret).collect();
        let config = merged(host.config(json!({}), &[]), &json!({"secrets": secrets}));
        let daemon = host.start(&config);
        for _ in 0..2 {
            (0..references.len()).for_each(|number| drop(daemon.ask_bytes(&format!("s{number}"))));
        }
        daemon.stop();
        let requests = host.simulator.server.requests();
        assert_eq!(host.counted(), requests.len() as u64, "{references:?}: {requests:?}");
    }
}
