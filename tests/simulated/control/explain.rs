//! `opnix explain`, answered by the service.

use serde_json::json;

use super::Host;
use crate::daemon::UNIT;

#[test]
fn explain_tells_what_the_configuration_in_force_says() {
    let host = Host::new(true);
    assert!(host.daemon.ask("openai-api-key").is_some());
    let (text, code) = host.daemon.command(&["explain", UNIT, "openai-api-key"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("granted: test.service gets \"openai-api-key\""), "{text}");
    assert!(text.contains("would be served at once"), "{text}");
    let (text, code) = host.daemon.command(&["explain", "other.service", "openai-api-key"]);
    assert_eq!(code, 77, "{text}");
    assert!(text.contains("but       test.service gets \"openai-api-key\", by"), "{text}");
    // Not what the file says since, until it is reloaded.
    host.daemon.configure(&json!({"provider": {"kind": "local", "path": host.vault()}}));
    assert_eq!(host.daemon.command(&["explain", UNIT, "openai-api-key"]).1, 0);
    host.daemon.reload();
    assert_eq!(host.daemon.command(&["explain", UNIT, "openai-api-key"]).1, 77);
}

#[test]
fn what_is_allowed_and_cannot_be_had_is_another_answer_than_what_is_refused() {
    let host = Host::new(true);
    assert_eq!(host.daemon.ask("gone"), None);
    let (text, code) = host.daemon.command(&["explain", UNIT, "gone"]);
    assert_eq!(code, 69, "{text}");
    assert!(text.starts_with("allowed, but cannot be had now: test.service may have \"gone\"\n"), "{text}");
    assert!(text.contains("there is no item \"Gone\"") && text.contains("check its title"), "{text}");
    let (text, code) = host.daemon.command(&["explain", UNIT, "openai-apikey"]);
    assert_eq!(code, 77, "{text}");
    let remedy = "  remedy    did you mean \"openai-api-key\"? in test.service write\n            \
                  LoadCredential=openai-api-key:/run/opnix/creds.sock\n";
    assert!(text.contains(remedy), "{text}");
}
