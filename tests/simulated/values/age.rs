//! What is too old, or must be current, is not served from what is kept.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::host::Host;

#[test]
fn what_is_too_old_is_refused() {
    let host = Host::new(&["a"]);
    let config =
        host.config(json!({"fresh_for": "1s", "stale_for": "1s", "deadline": "6s"}), &[("a", json!({}))]);
    let daemon = host.start(&config);
    assert!(daemon.ask("a").is_some());
    host.one_password_is_down(true);
    thread::sleep(Duration::from_secs(1));
    assert!(daemon.refusal("a").contains("cannot be reached"));
}

#[test]
fn what_must_be_current_is_never_served_from_the_cache() {
    let host = Host::new(&["always", "never", "memory"]);
    let secrets = [
        ("always", json!({"always_fetch": true})),
        ("never", json!({"cache": "never"})),
        ("memory", json!({"cache": "memory"})),
    ];
    let config = host.config(json!({"deadline": "6s"}), &secrets);
    let daemon = host.start(&config);
    for name in ["always", "never", "memory"] {
        assert!(daemon.ask(name).is_some());
    }
    let before = host.requests();
    assert!(daemon.ask("always").is_some() && daemon.ask("never").is_some());
    assert!(host.requests() > before);
    host.one_password_is_down(true);
    assert!(daemon.refusal("always").contains("cannot be reached"));
    assert!(daemon.refusal("never").contains("cannot be reached"));
    assert!(daemon.ask("memory").is_some());
    daemon.stop();
    let daemon = host.start(&config);
    assert!(daemon.refusal("memory").contains("cannot be reached"), "not on disk");
}
