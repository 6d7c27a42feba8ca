//! The service counts each request that it makes.

use super::{everything, with_deadline};
use crate::helpers::{status, wait};
use crate::simulators::http::Fault;

#[test]
fn every_request_to_the_server_is_counted_whatever_comes_of_it() {
    let simulator = everything();
    let secrets = [
        ("key", "op://Zoo/Sections/username"),
        ("another", "op://Zoo/Kinds/lines"),
        ("file-paper", "op://Zoo/Papers/paper.bin"),
        ("nowhere", "op://Zoo/Nope/x"),
        ("other", "op://One Vault/Item 7/value"),
    ];
    let daemon = with_deadline(&simulator, "1500ms", &secrets);
    let counted = || {
        let budget = &status(&daemon)["budget"];
        assert_eq!(budget["hour"]["used"], budget["day"]["used"]);
        usize::try_from(budget["day"]["used"].as_u64().unwrap()).unwrap()
    };
    let seen = || simulator.server.requests().len();
    assert_eq!(counted(), 0);
    for (name, _) in secrets {
        let before = seen();
        let answer = daemon.ask_bytes(name);
        assert_eq!(answer.is_none(), name == "nowhere", "{name}");
        assert_eq!(counted(), seen(), "{name}");
        assert!(seen() > before || name == "nowhere", "{name}");
    }
    // What fails cost a request too.
    for fault in [Fault::Status(500), Fault::Reset, Fault::Truncate, Fault::Garbage, Fault::Status(403)] {
        simulator.server.clear_faults();
        daemon.reload();
        // An outage outlives a reload; that it is over is found out at once.
        wait("the provider to be up", || status(&daemon)["provider"]["health"] == "up");
        let before = seen();
        simulator.server.fault("GET", usize::MAX, fault.clone());
        // A start may be served what that look has confirmed.
        let _ = daemon.command(&["refresh", "key"]);
        assert!(seen() > before, "{fault:?}");
        assert_eq!(counted(), seen(), "{fault:?}");
    }
}
