//! The control socket: the commands that use it, and varlink's own Python client as its judge.

// A test that panics has failed, which is what it should do then.
#![allow(clippy::unwrap_used)]

mod daemon;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use daemon::{Daemon, UNIT, new_directory};
use serde_json::{Value, json};

/// The service with a local vault, and what it keeps.
struct Host {
    daemon: Daemon,
    directory: PathBuf,
}

impl Host {
    fn new(key: bool) -> Self {
        let directory = new_directory("control");
        if key {
            fs::write(directory.join("opnix.cache-key"), [7; 32]).unwrap();
        }
        let vault = directory.join("vault.json");
        write_vault(&vault, &[("OpenAI", "canary-1"), ("Datadog", "canary-2")]);
        let environment =
            [("STATE_DIRECTORY", directory.as_path()), ("CREDENTIALS_DIRECTORY", directory.as_path())];
        let daemon = Daemon::configured(&environment, &config(&vault), "none");
        Self { daemon, directory }
    }

    fn vault(&self) -> PathBuf {
        self.directory.join("vault.json")
    }

    fn json(&self) -> Value {
        let (text, _) = self.daemon.command(&["status", "--json"]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn config(vault: &Path) -> Value {
    json!({"provider": {"kind": "local", "path": vault}, "deadline": "2s", "budget": {"daily": 200}, "secrets": [
        {"name": "openai-api-key", "reference": "op://Vault/OpenAI/value", "units": [UNIT]},
        {"name": "code", "reference": "op://Vault/OpenAI/code?attribute=otp", "units": [UNIT]},
        {"name": "gone", "reference": "op://Vault/Gone/value", "units": [UNIT]}],
      "templates": [{"name": "both", "units": [UNIT],
        "template": "{{ op://Vault/OpenAI/value }}{{ op://Vault/Datadog/value }}"}]})
}

fn write_vault(path: &Path, items: &[(&str, &str)]) {
    let item = |(title, value): &(&str, &str)| json!({"title": title, "fields": [{"label": "value", "value": value}]});
    let items: Vec<Value> = items.iter().map(item).collect();
    fs::write(path, json!({"vaults": [{"name": "Vault", "items": items}]}).to_string()).unwrap();
    let mut mode = fs::metadata(path).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o600);
    fs::set_permissions(path, mode).unwrap();
}

#[test]
fn status_tells_how_the_service_is() {
    let host = Host::new(true);
    assert_eq!(host.daemon.ask("both").as_deref(), Some("canary-1canary-2"));
    assert_eq!(host.daemon.ask("gone"), None);
    let status = host.json();
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
fn a_call_that_takes_long_holds_up_no_other() {
    let host = Host::new(true);
    let config = json!({"provider": {"kind": "connect", "host": "http://192.0.2.1"}, "deadline": "10s",
        "secrets": [{"name": "key", "reference": "op://v/i/f", "units": [UNIT]}]});
    host.daemon.configure(&config);
    host.daemon.reload();
    std::thread::scope(|scope| {
        // Where nobody answers, or at once that there is no way.
        let slow = scope.spawn(|| host.daemon.command(&["refresh"]));
        assert_eq!(host.json()["provider"]["kind"], "connect");
        assert_eq!(slow.join().unwrap().1, 69);
    });
}

/// Varlink's Python client, as `tests/run` installs it.
fn judge(script: &str, socket: &Path) -> String {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients/python");
    assert!(clients.join("varlink").exists(), "varlink's Python client is missing: tests/run puts it there");
    let judge = Command::new("python3")
        .arg("-c")
        .arg(script)
        .arg(format!("unix:{}", socket.display()))
        .env("PYTHONPATH", clients)
        .output()
        .unwrap();
    assert!(judge.status.success(), "{}", String::from_utf8_lossy(&judge.stderr));
    String::from_utf8(judge.stdout).unwrap()
}

#[test]
fn the_interface_is_the_documented_one() {
    let host = Host::new(true);
    let text = judge(
        "
import sys, varlink
with varlink.Client(address=sys.argv[1]) as client:
    with client.open('org.varlink.service') as service:
        print(service.GetInterfaceDescription('io.opnix')['description'], end='')
",
        &host.daemon.control(),
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/io.opnix.varlink");
    // They may differ in white space only.
    let words = |text: &str| -> Vec<String> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ").replace(',', " , ");
        spaced.split_whitespace().map(str::to_owned).collect()
    };
    let documented = fs::read_to_string(path).unwrap();
    assert!(words(&documented) == words(&text), "the implementation's is:\n{text}");
}

#[test]
fn varlinks_own_client_is_answered() {
    let host = Host::new(true);
    assert!(host.daemon.ask("openai-api-key").is_some());
    let text = judge(
        "
import json, sys, varlink
with varlink.Client(address=sys.argv[1]) as client, client.open('io.opnix') as opnix:
    print(json.dumps(opnix.Status()))
    print(json.dumps(opnix.Explain(unit='test.service', credential='openai-api-key')))
    print(json.dumps(opnix.Refresh(names=['openai-api-key'])))
    try:
        opnix.Refresh(names=['nope'])
    except varlink.VarlinkError as error:
        print(json.dumps([error.error(), error.parameters()]))
    try:
        opnix.Explain(unit='no unit', credential='x')
    except varlink.VarlinkError as error:
        print(json.dumps([error.error(), error.parameters()]))
",
        &host.daemon.control(),
    );
    let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [status, explanation, refreshed, unknown, invalid] = &answers[..] else { panic!("{text}") };
    assert_eq!(status["secrets"][0]["state"], "fresh");
    assert_eq!((&explanation["granted"], &explanation["name"]), (&json!(true), &json!("openai-api-key")));
    assert_eq!(refreshed["secrets"][0]["outcome"], "unchanged");
    assert_eq!(*unknown, json!(["io.opnix.UnknownSecret", {"name": "nope"}]));
    assert_eq!((&invalid[0], &invalid[1]["name"]), (&json!("io.opnix.InvalidName"), &json!("no unit")));
}
