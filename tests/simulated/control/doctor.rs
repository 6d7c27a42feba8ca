//! `opnix doctor` at a service that is not the system's, as that of a user.

use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use super::Host;
use crate::daemon::UNIT;

fn config(host: &Host, item: &str) -> Value {
    json!({"provider": {"kind": "local", "path": host.vault()},
           "secrets": [{"name": "key", "reference": format!("op://Vault/{item}/value"), "units": [UNIT]}]})
}

#[test]
fn doctor_finds_nothing_at_a_users_service_that_is_well_and_tells_what_it_did_not_look_at() {
    let host = Host::new(true);
    host.daemon.configure(&config(&host, "OpenAI"));
    host.daemon.reload();
    let path = host.daemon.configuration();
    let named = || host.daemon.command(&["doctor", "--config", path.to_str().unwrap()]);
    let (text, code) = named();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("0 faults, 0 warnings; ") && text.contains("not seen units: "), "{text}");
    assert!(text.contains("fine     1password: 1 secret can be had"), "{text}");
    assert!(!text.contains("canary"), "{text}");
    // Which configuration it has, nobody can guess.
    let (text, code) = host.daemon.command(&["doctor"]);
    assert!(code == 0 && text.contains("not seen configuration: ") && text.contains("--config"), "{text}");
    // What is in the file now is not what the service has; the names are the same.
    sleep(Duration::from_secs(2));
    host.daemon.configure(&config(&host, "Datadog"));
    let (text, code) = named();
    assert!(code == 0 && text.contains("the service has not read it since"), "{text}");
    // And what 1Password does not have is a fault, with its place.
    host.daemon.configure(&config(&host, "Gone"));
    host.daemon.reload();
    let (text, code) = named();
    assert!(code == 69 && text.contains("\"key\": there is no item \"Gone\""), "{text}");
    assert!(text.contains(&format!("where  {}:1:", path.display())), "{text}");
}
