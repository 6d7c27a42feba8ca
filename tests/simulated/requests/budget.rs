//! The budget of a machine: what is for the background, and what is for starts.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::helpers::wait;
use crate::host::Host;

#[test]
fn the_background_leaves_half_of_the_budget_to_starts_and_starts_go_on_from_the_cache() {
    let host = Host::new(&["a", "b"]);
    let secrets = [("a", json!({})), ("b", json!({}))];
    let top = json!({"refresh": "1s", "fresh_for": "0s", "budget": {"hourly": 40, "daily": 40}});
    let config = host.config(top, &secrets);
    let daemon = host.start(&config);
    thread::sleep(Duration::from_secs(4));
    assert!(host.requests() <= 20, "{}", host.requests());
    // Starts may use up all of it.
    wait("the budget to be spent", || {
        assert!(daemon.ask("a").is_some());
        host.requests() >= 40
    });
    let spent = host.requests();
    assert!(spent < 40 + 10, "{spent}");
    assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"));
    assert_eq!(host.requests(), spent, "from the cache");
    daemon.says("this machine's budget of requests is used up");
    // A restart does not forget.
    daemon.stop();
    let daemon = host.start(&config);
    assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"));
    assert_eq!(host.requests(), spent, "after a restart");
    // What is not in the cache is asked for all the same: the budget is only ours.
    daemon.configure(&host.config(json!({}), &[("b", json!({"cache": "never"}))]));
    daemon.reload();
    assert_eq!(daemon.ask("b").as_deref(), Some("canary-b"));
}
