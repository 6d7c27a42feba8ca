//! `opnix status`: how the service is.

use std::fs;
use std::process::Command;

use serde_json::json;

use super::Host;
use crate::daemon::UNIT;
use crate::helpers::{status, wait};

#[test]
fn status_tells_how_the_service_is() {
    let host = Host::new(true);
    assert_eq!(host.daemon.ask("both").as_deref(), Some("canary-1canary-2"));
    assert_eq!(host.daemon.ask("gone"), None);
    let status = status(&host.daemon);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&status["provider"]["kind"], &status["provider"]["health"]), (&json!("local"), &json!("up")));
    assert_eq!((&status["cache"]["sealed"], &status["cache"]["in_memory"]), (&json!(true), &json!(2)));
    assert_eq!(status["budget"]["day"], json!({"used": 0, "left": 200, "limit": 200}));
    assert_eq!(status["budget"]["hour"], json!({"used": 0, "left": null, "limit": null}));
    let secret = |name: &str| {
        let secrets = status["secrets"].as_array().unwrap();
        secrets.iter().find(|secret| secret["name"] == name).unwrap().clone()
    };
    assert_eq!(secret("openai-api-key")["state"], "fresh");
    assert_eq!(secret("both")["state"], "fresh");
    assert_eq!((&secret("code")["state"], &secret("code")["age"]), (&json!("missing"), &json!(null)));
    assert!(secret("gone")["error"].as_str().unwrap().contains("there is no item \"Gone\""));

    // It is written a moment after the values were served.
    wait("the cache to be written", || host.daemon.command(&["status"]).0.contains(", written "));
    let (text, code) = host.daemon.command(&["status"]);
    assert_eq!(code, 0, "{text}");
    for line in [
        "provider   local, local file",
        "works, as far as the last requests tell",
        "cache      2 values, 2 of them sealed on disk, written ",
        "requests   0 in the last hour, 0 of 200 in the last day",
        "secrets    openai-api-key  fresh    ",
        "           gone            missing",
        "there is no item \"Gone\" in vault \"Vault\"",
    ] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
    assert!(!text.contains("canary") && !status.to_string().contains("canary"));
}

#[test]
fn status_says_when_nothing_is_sealed_when_the_provider_is_down_and_when_the_service_is_not_there() {
    let host = Host::new(false);
    let (text, _) = host.daemon.command(&["status"]);
    assert!(text.contains("0 values, in memory only: there is no key: run `opnix setup`"), "{text}");
    fs::write(host.vault(), "garbage").unwrap();
    assert_eq!(host.daemon.ask("openai-api-key"), None);
    let (text, code) = host.daemon.command(&["status"]);
    assert_eq!(code, 69, "{text}");
    assert!(text.contains("DOES NOT WORK since") && text.contains("it is not a vault file"), "{text}");
    let nowhere = Command::new(env!("CARGO_BIN_EXE_opnix"))
        .args(["status", "--control", "/nonexistent/control.sock"])
        .output()
        .unwrap();
    let said = String::from_utf8(nowhere.stderr).unwrap();
    assert_eq!(nowhere.status.code(), Some(69));
    assert!(said.contains("the service does not listen on /nonexistent/control.sock"), "{said}");
}

#[test]
fn a_call_that_takes_long_holds_up_no_other() {
    let host = Host::new(true);
    let config = json!({"provider": {"kind": "connect", "host": "http://192.0.2.1"}, "deadline": "10s",
        "secrets": [{"name": "key", "reference": "op://v/i/f", "units": [UNIT]}]});
    host.daemon.configure(&config);
    host.daemon.reload();
    std::thread::scope(|scope| {
        // Where nobody answers, or at once that there is no way.
        let slow = scope.spawn(|| host.daemon.command(&["refresh"]));
        assert_eq!(status(&host.daemon)["provider"]["kind"], "connect");
        assert_eq!(slow.join().unwrap().1, 69);
    });
}
