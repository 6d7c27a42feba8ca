//! 1Password's own limit.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::helpers::wait;
use crate::host::Host;
use crate::simulators::http::Fault;

#[test]
fn a_limit_stops_the_background_and_starts_go_on_from_the_cache() {
    let host = Host::new(&["a", "b"]);
    let top = json!({"refresh": "1s", "fresh_for": "0s", "budget": {"hourly": 100_000, "daily": 100_000}});
    let config = host.config(top, &[("a", json!({})), ("b", json!({"cache": "never"}))]);
    let daemon = host.start(&config);
    assert!(daemon.ask("a").is_some());
    host.simulator.server.fault("", usize::MAX, Fault::Limited(None));
    wait("a limit", || {
        daemon.log().contains("1Password's limit on requests is reached") || daemon.ask("a").is_none()
    });
    let told = host.requests();
    thread::sleep(Duration::from_secs(3));
    assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"));
    assert_eq!(host.requests(), told, "nothing more was asked");
    daemon.stop();
    let daemon = host.start(&config);
    assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"));
    thread::sleep(Duration::from_secs(2));
    assert_eq!(host.requests(), told, "after a restart");
    // Nobody knows until when: a unit that has nothing else may try.
    host.simulator.server.clear_faults();
    assert_eq!(daemon.ask("b").as_deref(), Some("canary-b"));
}
