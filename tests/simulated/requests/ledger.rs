//! Whatever stands in the file of what was counted.

use std::fs;

use serde_json::json;

use crate::host::Host;
use crate::simulators::http::Fault;

#[test]
fn no_number_in_its_files_makes_the_service_end() {
    let host = Host::new(&["a"]);
    let long = json!({"secs": u64::MAX, "nanos": 999_999_999});
    for until in [0, u64::MAX] {
        let ledger = json!({
            "account": null, "steps": {u64::MAX.to_string(): u32::MAX, "9": u32::MAX, "18446744073709551614": 1},
            "limited": {"until": until, "told": true, "next_rest": long},
        });
        fs::write(host.state.join("requests.json"), ledger.to_string()).unwrap();
        let top = json!({"refresh": "18446744073709551615s", "fresh_for": "18446744073709551615s",
            "stale_for": "18446744073709551615s", "grace": "18446744073709551615s"});
        let config = host.config(top, &[("a", json!({"always_fetch": true}))]);
        let daemon = host.start(&config);
        assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"));
        host.simulator.server.fault("", usize::MAX, Fault::Limited(None));
        assert!(daemon.refusal("a").contains("limit on requests is reached"));
        host.simulator.server.clear_faults();
        let (said, code) = daemon.command(&["status"]);
        assert!(said.contains("refresh "), "{code}: {said}");
        assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"));
    }
}
