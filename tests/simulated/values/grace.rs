//! What 1Password says is gone is kept for a while.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::helpers::{status, wait};
use crate::host::{Host, VAULT};

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
