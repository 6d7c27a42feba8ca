//! Asking again and again is no request each time.

use serde_json::json;

use crate::host::{Host, VAULT};
use crate::simulators::account::FieldValue;

#[test]
fn a_unit_that_starts_again_and_again_for_what_is_not_there_does_not_use_up_the_limits() {
    let host = Host::new(&["there"]);
    let daemon = host.start(&host.config(json!({}), &[("there", json!({})), ("gone", json!({}))]));
    assert!(daemon.ask("there").is_some());
    host.simulator.server.forget_requests();
    for _ in 0..50 {
        assert!(daemon.refusal("gone").contains("there is no item \"gone\""));
    }
    // Twice at once, and then not before five seconds are over.
    assert!(host.requests() <= 6, "{:?}", host.simulator.server.requests());
    // Whoever puts it there says so, or waits.
    host.simulator.change(|account| {
        account.add(VAULT, "gone", &[("value", FieldValue::Concealed("here now".into()))]);
    });
    assert_eq!(daemon.command(&["refresh", "gone"]).1, 0);
    assert_eq!(daemon.ask("gone").as_deref(), Some("here now"));
}
