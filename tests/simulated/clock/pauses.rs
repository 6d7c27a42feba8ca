//! What is to end, ends when it was said to although the clock was set: pauses, graces, limits, outages.

use serde_json::json;

use super::{Host, VAULT};
use crate::daemon::{Daemon, UNIT};
use crate::helpers::{status, wait};
use crate::simulators::account::{Account, FieldValue};
use crate::simulators::connect::{Connect, TOKEN};
use crate::simulators::http::Fault;

#[test]
fn a_denied_reference_is_asked_for_again_after_its_pause_whatever_the_clock() {
    for step in ["-1d", "+1d"] {
        let host = Host::new(&[]);
        let daemon = host.start(&host.config(&json!({}), "a", &json!({})));
        (0..3).for_each(|_| assert!(daemon.refusal("a").contains("there is no")));
        host.set_clock(step);
        let before = host.simulator.server.requests().len();
        (0..10).for_each(|_| assert!(daemon.refusal("a").contains("there is no")));
        // The pause of five seconds goes on; on a slow machine it may be over once.
        assert!(host.simulator.server.requests().len() - before <= 3, "{step}");
        host.simulator.change(|account| {
            account.add(VAULT, "a", &[("value", FieldValue::Concealed("new".into()))]);
        });
        wait("the end of the pause", || daemon.ask("a").as_deref() == Some("new"));
    }
}

#[test]
fn the_grace_of_a_denied_value_ends_although_the_clock_was_set_back() {
    let host = Host::new(&["a"]);
    let top = json!({"fresh_for": "0s", "grace": "3s"});
    let daemon = host.start(&host.config(&top, "a", &json!({})));
    assert_eq!(daemon.ask("a").as_deref(), Some("old"));
    host.simulator.change(|account| account.vault(VAULT).shared = false);
    wait("1Password to say so", || {
        daemon.ask("a");
        status(&daemon)["secrets"][0]["denied_for"].is_u64()
    });
    host.set_clock("-1d");
    wait("the end of the grace", || daemon.ask("a").is_none());
}

#[test]
fn a_provider_that_was_down_is_probed_soon_whatever_the_clock() {
    for step in ["-1d", "+1d"] {
        let host = Host::new(&["a"]);
        let top = json!({"fresh_for": "7d", "stale_for": "30d", "refresh": "2h"});
        let daemon = host.start(&host.config(&top, "a", &json!({})));
        assert_eq!(daemon.ask("a").as_deref(), Some("old"));
        host.simulator.server.fault("", usize::MAX, Fault::Reset);
        daemon.command(&["refresh"]);
        wait("the outage to be seen", || status(&daemon)["provider"]["health"] == "down");
        host.set_clock(step);
        host.simulator.server.clear_faults();
        // No unit asks.
        wait("a probe", || daemon.log().contains("values come from the provider again"));
    }
}

#[test]
fn a_limit_ends_when_it_was_said_to_whatever_the_clock() {
    let simulator = Connect::local(Account::everything());
    let host = Host::new(&[]);
    let secret = json!({"name": "key", "reference": "op://Zoo/Sections/username", "units": [UNIT]});
    let provider = json!({"kind": "connect", "host": simulator.url()});
    let config = json!({"provider": provider, "deadline": "1s", "secrets": [secret]});
    let daemon = Daemon::configured(&host.environment(), &config, TOKEN);
    simulator.server.fault("", 1, Fault::Limited(Some(5)));
    assert!(daemon.refusal("key").contains("limit on requests is reached until"));
    host.set_clock("-1h");
    wait("the end of the limit", || daemon.ask("key").as_deref() == Some("keeper"));
}
