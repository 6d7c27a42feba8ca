//! What is kept is renewed before anybody asks.

use serde_json::json;

use crate::helpers::wait;
use crate::host::{Host, VAULT};

#[test]
fn values_are_renewed_in_the_background_and_requests_are_counted_as_they_are_made() {
    let host = Host::new(&["a", "b", "unasked"]);
    let secrets = [("a", json!({})), ("b", json!({})), ("unasked", json!({}))];
    let top = json!({"refresh": "1s", "fresh_for": "1h", "budget": {"hourly": 100_000, "daily": 100_000}});
    let config = host.config(top, &secrets);
    let daemon = host.start(&config);
    assert!(daemon.ask("a").is_some());
    wait("a round", || daemon.log().contains("renewed 3 of 3 values in the background"));
    host.simulator.change(|account| account.set(VAULT, "a", "value", "changed"));
    wait("the change", || daemon.ask("a").as_deref() == Some("changed"));
    daemon.stop();
    assert_eq!(host.counted(), host.requests() as u64, "{:?}", host.simulator.server.requests());
    assert_eq!(host.simulator.violations(), [""; 0]);
    // What was never asked for is there too when 1Password is not.
    host.one_password_is_down(true);
    let daemon = host.start(&config);
    assert_eq!(daemon.ask("unasked").as_deref(), Some("canary-unasked"));
}
