//! What 1Password says is gone is kept for a while.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::daemon::UNIT;
use crate::helpers::{merged, status, wait};
use crate::host::{Host, VAULT};
use crate::simulators::account::Account;
use crate::simulators::http::Fault;

#[test]
fn what_1password_says_is_gone_is_served_for_the_grace_only() {
    let host = Host::new(&["kept", "gone"]);
    let gone = |host: &Host| host.simulator.change(|account| account.vault(VAULT).shared = false);
    // Enough for asking over and over.
    let budget = json!({"hourly": 100_000, "daily": 100_000});
    let top = json!({"fresh_for": "0s", "grace": "3s", "budget": budget});
    let config = host.config(top, &[("gone", json!({}))]);
    let daemon = host.start(&config);
    assert_eq!(daemon.ask("gone").as_deref(), Some("canary-gone"));
    gone(&host);
    let denied = Instant::now();
    assert_eq!(daemon.ask("gone").as_deref(), Some("canary-gone"), "within the grace");
    daemon.says("there is no vault \"Vault\"");
    wait("the end of the grace", || daemon.ask("gone").is_none());
    assert!(denied.elapsed() >= Duration::from_secs(3));
    wait("it to leave the disk too", || host.cache().is_none());
    // The grace goes on while 1Password is down, and through restarts.
    host.simulator.change(|account| account.vault(VAULT).shared = true);
    assert_eq!(daemon.command(&["refresh"]).1, 0);
    assert!(daemon.ask("gone").is_some());
    gone(&host);
    let denied = || {
        assert!(daemon.ask("gone").is_some());
        status(&daemon)["secrets"][0]["denied_for"].is_u64()
    };
    // On a slow machine an answer may take longer than a start waits for it.
    wait("1Password to say so", denied);
    daemon.stop();
    assert!(host.cache().is_some());
    host.one_password_is_down(true);
    thread::sleep(Duration::from_secs(3));
    let daemon = host.start(&config);
    assert!(daemon.refusal("gone").contains("cannot be reached"));
}

#[test]
fn a_frozen_account_denies_no_value() {
    let host = Host::new(&["a"]);
    let top = json!({"fresh_for": "0s", "grace": "1s", "short_deadline": "3s", "deadline": "10s"});
    let daemon = host.start(&host.config(top, &[("a", json!({}))]));
    assert!(daemon.ask("a").is_some());
    host.simulator.server.fault("GET /api/v1/vaults", usize::MAX, Fault::Status(403));
    assert_eq!(daemon.command(&["refresh"]).1, 69);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"), "after the grace");
    let provider = &status(&daemon)["provider"];
    assert_eq!(provider["health"], "down");
    assert!(provider["error"].as_str().unwrap().contains("may not read the account's vaults"), "{provider}");
}

#[test]
fn an_outage_while_the_core_resolves_a_reference_denies_no_value() {
    let host = Host::with(Account::everything());
    let reference = "op://Zoo/Key/private key?ssh-format=openssh";
    let secrets = json!({"secrets": [{"name": "key", "reference": reference, "units": [UNIT]}]});
    let top = json!({"fresh_for": "0s", "grace": "1s", "short_deadline": "5s", "deadline": "10s"});
    let daemon = host.start(&merged(host.config(top, &[]), &secrets));
    assert!(daemon.ask("key").is_some());
    let mut item = String::new();
    host.simulator.change(|account| {
        let zoo = account.vault("Zoo");
        let key = zoo.items.iter().find(|item| item.title == "Key").unwrap();
        item = format!("GET /api/v1/vault/{}/item/{}", zoo.id, key.id);
    });
    for fault in [Fault::Limited(None), Fault::Status(500), Fault::Reset] {
        // So that the item is read at all.
        host.simulator.change(|account| account.change("Zoo", "Kinds", |item| item.notes.push('x')));
        // The item is read, and then the core reads it once more.
        host.simulator.server.fault(&item, 1, Fault::Delay(Duration::ZERO));
        host.simulator.server.fault(&item, 1, fault.clone());
        let (said, code) = daemon.command(&["refresh", "key"]);
        assert_eq!(code, 69, "{fault:?}: {said}");
        assert!(said.contains("cannot be had"), "{fault:?}: {said}");
        thread::sleep(Duration::from_secs(2));
        host.one_password_is_down(true);
        assert!(daemon.ask("key").is_some(), "{fault:?}: after the grace");
        host.one_password_is_down(false);
        assert_eq!(daemon.command(&["refresh", "key"]).1, 0);
    }
}
