//! A value is renewed in its time although the clock was set.

use serde_json::json;

use super::Host;
use crate::helpers::{status, wait};

#[test]
fn what_is_always_fetched_is_fetched_after_the_clock_was_set_back() {
    let host = Host::new(&["a"]);
    let daemon = host.start(&host.config(&json!({}), "a", &json!({"always_fetch": true})));
    assert_eq!(daemon.ask("a").as_deref(), Some("old"));
    host.set_clock("-1d");
    host.rotate("a", "new");
    assert_eq!(daemon.ask("a").as_deref(), Some("new"));
    host.rotate("a", "newer");
    assert_eq!(daemon.ask("a").as_deref(), Some("newer"), "once more");
}

#[test]
fn a_refresh_brings_the_new_value_after_the_clock_was_set_back() {
    let host = Host::new(&["a"]);
    let daemon = host.start(&host.config(&json!({}), "a", &json!({})));
    assert_eq!(daemon.ask("a").as_deref(), Some("old"));
    host.set_clock("-1d");
    host.rotate("a", "new");
    let (said, code) = daemon.command(&["refresh"]);
    assert!(said.contains("  changed") && code == 0, "{said}");
    assert_eq!(daemon.ask("a").as_deref(), Some("new"));
}

#[test]
fn a_reload_brings_the_new_value_after_the_clock_was_set_back() {
    let host = Host::new(&["a"]);
    let daemon = host.start(&host.config(&json!({}), "a", &json!({})));
    assert_eq!(daemon.ask("a").as_deref(), Some("old"));
    host.set_clock("-1d");
    host.rotate("a", "new");
    daemon.reload();
    assert_eq!(daemon.ask("a").as_deref(), Some("new"));
}

#[test]
fn a_value_sealed_by_a_clock_far_ahead_is_renewed_when_the_clock_is_right() {
    for kept in [json!({}), json!({"always_fetch": true})] {
        let host = Host::new(&["a"]);
        let config = host.config(&json!({}), "a", &kept);
        host.set_clock("+365d");
        let daemon = host.start(&config);
        assert_eq!(daemon.ask("a").as_deref(), Some("old"));
        // The first answer of a time server comes after a reboot.
        daemon.stop();
        host.reboot();
        host.set_clock("+0");
        host.rotate("a", "new");
        let daemon = host.start(&config);
        assert_eq!(daemon.ask("a").as_deref(), Some("new"), "{kept}");
        assert!(status(&daemon)["secrets"][0]["age"].as_u64().unwrap() < 60, "its age is right again");
    }
}

#[test]
fn the_background_goes_on_after_the_clock_was_set_back() {
    let host = Host::new(&["a"]);
    let top = json!({"fresh_for": "7d", "stale_for": "30d", "refresh": "2s"});
    let daemon = host.start(&host.config(&top, "a", &json!({})));
    let rounds = || daemon.log().matches("renewed 1 of 1 value in the background").count();
    wait("a round", || rounds() > 0);
    host.set_clock("-1d");
    host.rotate("a", "new");
    let before = rounds();
    wait("two more rounds", || rounds() >= before + 2);
    assert_eq!(daemon.ask("a").as_deref(), Some("new"));
}
