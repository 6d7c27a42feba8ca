//! What never connected costs nothing.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::daemon::{Daemon, UNIT};
use crate::helpers::{merged, status, wait};
use crate::host::Host;
use crate::simulators::connect::TOKEN;

/// An address at which nobody listens, while the listener is kept from listening by being gone.
fn nobody() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn used(daemon: &Daemon) -> u64 {
    status(daemon)["budget"]["day"]["used"].as_u64().unwrap()
}

#[test]
fn an_outage_of_the_network_leaves_the_budget_alone() {
    let host = Host::new(&["a"]);
    let secrets: Vec<_> = (0..5)
        .map(|number| json!({"name": format!("s{number}"), "reference": "op://Vault/a/value", "units": [UNIT], "cache": "never"}))
        .collect();
    let one_password = merged(host.config(json!({"deadline": "2s"}), &[]), &json!({"secrets": secrets}));
    let connect = merged(one_password.clone(), &json!({"provider": {"kind": "connect", "host": nobody()}}));
    let away = [(&one_password, host.simulator.token_for(&nobody())), (&connect, TOKEN.to_owned())];
    for (config, token) in away {
        let daemon = Daemon::configured(&[], config, &token);
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            (0..5).for_each(|number| {
                assert!(daemon.refusal(&format!("s{number}")).contains("cannot be reached"));
            });
        }
        assert_eq!(used(&daemon), 0, "{}", daemon.log());
        let provider = &status(&daemon)["provider"];
        assert_eq!(provider["health"], "down");
        assert!(provider["error"].as_str().unwrap().contains("refused"), "{provider}");
    }
}

#[test]
fn the_end_of_an_outage_is_noticed_within_a_minute_however_many_units_tried_meanwhile() {
    let host = Host::new(&["a", "b"]);
    // What is asked for in vain is to stay within it.
    let budget = json!({"hourly": 1000, "daily": 1000});
    let top = json!({"deadline": "2s", "short_deadline": "1s", "fresh_for": "0s", "budget": budget});
    let daemon = host.start(&host.config(top, &[("a", json!({})), ("b", json!({"cache": "never"}))]));
    wait("a value", || daemon.ask("a").is_some());
    host.one_password_is_down(true);
    let end = Instant::now() + Duration::from_secs(25);
    while Instant::now() < end {
        assert!(daemon.ask("b").is_none());
    }
    host.one_password_is_down(false);
    host.simulator.change(|account| account.set(crate::host::VAULT, "a", "value", "new"));
    // Nobody asks for what cannot be served otherwise: only the background can find out.
    wait("the end of the outage", || daemon.ask("a").as_deref() == Some("new"));
}
