//! `opnix refresh`: ask now.

use serde_json::json;

use super::{Host, write_vault};
use crate::daemon::UNIT;

#[test]
fn refresh_asks_now_and_tells_what_became_of_each() {
    let host = Host::new(true);
    assert!(host.daemon.ask("openai-api-key").is_some());
    write_vault(&host.vault(), &[("OpenAI", "new"), ("Datadog", "canary-2")]);
    assert_eq!(host.daemon.ask("openai-api-key").as_deref(), Some("canary-1"), "it is fresh");
    let (text, code) = host.daemon.command(&["refresh"]);
    assert_eq!(code, 69);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "openai-api-key  changed");
    assert_eq!(lines[1], "code            is never kept: every start asks for it");
    assert_eq!(lines[2], "gone            FAILED");
    assert!(lines[3].starts_with("    there is no item \"Gone\""), "{text}");
    assert_eq!(lines.last(), Some(&"both            changed"));
    assert_eq!(host.daemon.ask("openai-api-key").as_deref(), Some("new"));
    let (text, code) = host.daemon.command(&["refresh", "openai-api-key"]);
    assert_eq!((text.as_str(), code), ("openai-api-key  unchanged\n", 0));
    let (text, code) = host.daemon.command(&["refresh", "openai"]);
    assert_eq!(code, 64);
    assert!(text.contains("the configuration has no secret \"openai\""), "{text}");
}

#[test]
fn a_dry_run_tells_what_would_change_and_changes_nothing() {
    let host = Host::new(true);
    let config = json!({"provider": {"kind": "local", "path": host.vault()}, "secrets": [
        {"name": "key", "reference": "op://Vault/OpenAI/value", "path": "key", "services": ["web", "idle"],
         "units": [{"unit": UNIT, "on_change": {"signal": "SIGHUP"}}]},
        {"name": "same", "reference": "op://Vault/Datadog/value", "path": "same", "services": ["other"]}]});
    host.daemon.configure(&config);
    host.daemon.reload();
    assert_eq!(host.daemon.ask("key").as_deref(), Some("canary-1"));
    assert_eq!(host.daemon.command(&["refresh"]).1, 0);
    write_vault(&host.vault(), &[("OpenAI", "new"), ("Datadog", "canary-2")]);
    let file = host.daemon.configuration();
    let (text, code) = host.daemon.command(&["refresh", "--dry-run", "--config", file.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(
        text,
        "key   changed\nsame  unchanged\n\n\
         write             /run/secrets/key\n\
         restart           idle.service\n\
         send SIGHUP       test.service\n\
         restart           web.service\n"
    );
    assert_eq!(host.daemon.ask("key").as_deref(), Some("canary-1"), "nothing was kept");
}
