//! What is on disk opens on this machine and for this account, and is not there without a key.

use std::fs;

use serde_json::json;

use crate::host::{Host, VAULT};
use crate::simulators::service_account::ServiceAccount;

#[test]
fn without_a_key_nothing_is_on_disk() {
    let no_key = "there is no key, or it does not open";
    for (key, why) in [(None, "there is no key"), (Some(&[7; 31][..]), "is not a key"), (Some(b"\n"), no_key)]
    {
        let host = Host::new(&["a"]);
        let path = host.credentials.join("opnix.cache-key");
        match key {
            Some(key) => fs::write(path, key).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        let daemon = host.start(&host.config(json!({}), &[("a", json!({}))]));
        assert!(daemon.ask("a").is_some());
        let log = daemon.stop();
        assert!(log.contains("values are kept in memory only") && log.contains(why), "{log}");
        assert_eq!(host.cache(), None);
    }
    let host = Host::new(&["a"]);
    let daemon = host.start(&host.config(json!({"cache": "memory"}), &[("a", json!({}))]));
    assert!(daemon.ask("a").is_some());
    daemon.stop();
    assert_eq!(host.cache(), None);
}

#[test]
fn a_cache_that_is_damaged_or_of_another_machine_or_account_is_a_warning_and_an_empty_one() {
    let host = Host::new(&["a"]);
    let config = host.config(json!({}), &[("a", json!({}))]);
    let daemon = host.start(&config);
    assert!(daemon.ask("a").is_some());
    daemon.stop();
    let cache = host.cache().unwrap();
    let (mut flipped, last) = (cache.clone(), cache.len() - 1);
    flipped[last] ^= 1;
    for (content, why) in [
        (flipped, "it is damaged, or was sealed with another key"),
        (cache[..last].to_vec(), "it is cut off"),
        (b"something else".to_vec(), "it is not a sealed cache"),
        (b"opnix sealed cache 9\n...".to_vec(), "it was written by another version of opnix"),
    ] {
        fs::write(host.state.join("cache"), content).unwrap();
        host.simulator.server.forget_requests();
        let daemon = host.start(&config);
        assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"), "{why}");
        assert!(host.requests() > 0, "{why}");
        assert!(daemon.stop().contains(why), "{why}");
    }
    // Copied to a machine with another key.
    fs::write(host.credentials.join("opnix.cache-key"), [8; 32]).unwrap();
    let daemon = host.start(&config);
    assert!(daemon.ask("a").is_some());
    assert!(daemon.stop().contains("sealed with another key"));
    // The token of another account, which has other values under the same names.
    let mut account = host.simulator.account();
    account.set(VAULT, "a", "value", "theirs");
    let (state, credentials) = (host.state.clone(), host.credentials.clone());
    let other = Host { simulator: ServiceAccount::local(account), state, credentials };
    let daemon = other.start(&config);
    assert_eq!(daemon.ask("a").as_deref(), Some("theirs"));
    assert!(daemon.stop().contains("it belongs to another account"));
}

/// A TPM that is busy at one boot: what it opens at the next is still there, and is known to be older than what was given.
#[test]
fn a_cache_whose_key_does_not_open_for_a_while_is_there_when_it_opens_again() {
    let host = Host::new(&["a"]);
    let config = host.config(json!({}), &[("a", json!({}))]);
    let daemon = host.start(&config);
    assert!(daemon.ask("a").is_some());
    daemon.stop();
    let before = host.cache().unwrap();
    let (key, away) = (host.credentials.join("opnix.cache-key"), host.credentials.join("away"));
    fs::rename(&key, &away).unwrap();
    let daemon = host.start(&config);
    daemon.reload();
    assert!(daemon.ask("a").is_some());
    daemon.configure(&host.config(json!({"cache": "memory"}), &[("a", json!({}))]));
    daemon.reload();
    daemon.command(&["refresh"]);
    daemon.stop();
    assert_eq!(host.cache().as_ref(), Some(&before));
    fs::rename(&away, &key).unwrap();
    host.one_password_is_down(true);
    let daemon = host.start(&config);
    assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"));
    let log = daemon.stop();
    assert!(log.contains("may not have the newest values") && log.contains("from the cache"), "{log}");
}
