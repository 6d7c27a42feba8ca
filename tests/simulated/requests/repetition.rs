//! Asking again and again is no request each time.

use serde_json::json;

use crate::daemon::Daemon;
use crate::helpers::cost;
use crate::host::{Host, VAULT};
use crate::providers::connect;
use crate::simulators::account::{Account, FieldValue};
use crate::simulators::connect::Connect;
use crate::simulators::http::Fault;
use crate::simulators::service_account::ServiceAccount;

/// How often a unit starts in vain.
const STARTS: usize = 30;

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

#[test]
fn what_asking_again_cannot_mend_is_not_asked_for_by_each_start() {
    let references = [("key", "op://Zoo/Sections/username"), ("other", "op://Zoo/Kinds/lines")];
    for (on, fault, says, most) in [
        // Sign-in is four requests that the core repeats once when it is told that it is not signed in.
        ("POST /api/v3/auth/start", Fault::Status(401), "rejects the token", 9),
        ("GET /api/v1/vaults", Fault::Status(401), "rejects the token", 60),
        ("GET /api/v1/vaults", Fault::Status(403), "may not read the account's vaults", 20),
        ("GET /api/v1/vaults", Fault::Garbage, "broke its contract", 20),
        ("GET /api/v1/vault/", Fault::Garbage, "vault \"Zoo\" cannot be had", 25),
    ] {
        let simulator = ServiceAccount::local(Account::everything());
        simulator.server.fault(on, usize::MAX, fault.clone());
        let daemon = Daemon::start(&simulator.token(), &references);
        let requests = cost(&simulator.server, || {
            (0..STARTS).for_each(|_| assert!(daemon.refusal("key").contains(says), "{on} {fault:?}"));
        });
        assert!(requests <= most, "{on} {fault:?}: {requests}: {:?}", simulator.server.requests());
        // Whoever mends it says so.
        simulator.server.clear_faults();
        assert_eq!(daemon.command(&["refresh"]).1, 0);
        assert_eq!(daemon.ask("other").as_deref().map(|value| &value[..3]), Some("one"));
    }
}

#[test]
fn a_connect_server_is_not_asked_by_each_start_either_and_a_new_token_is_tried_at_once() {
    let references = [("key", "op://Zoo/Sections/username")];
    for (fault, says) in [
        (Fault::Status(401), "rejects the token"),
        (Fault::Status(404), "no Connect server"),
        (Fault::Garbage, "no Connect server"),
        (Fault::Limited(None), "limit on requests"),
    ] {
        let simulator = Connect::local(Account::everything());
        let daemon = connect::with_deadline(&simulator, "20s", &references);
        simulator.server.fault("GET /v1/vaults", usize::MAX, fault.clone());
        let requests = cost(&simulator.server, || {
            (0..STARTS).for_each(|_| assert!(daemon.refusal("key").contains(says), "{fault:?}"));
        });
        assert!(requests <= 4, "{fault:?}: {requests}");
        simulator.server.clear_faults();
        if let Fault::Status(401) = fault {
            // Another token, which happens to be wrong: it is asked with.
            daemon.replace_token("made.up.token");
            assert_eq!(cost(&simulator.server, || drop(daemon.refusal("key"))), 1);
            daemon.replace_token(crate::simulators::connect::TOKEN);
        } else {
            daemon.reload();
        }
        assert_eq!(daemon.ask("key").as_deref(), Some("keeper"), "{fault:?}");
    }
}
