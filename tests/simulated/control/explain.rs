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
