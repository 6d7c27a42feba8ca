//! The control socket: the commands that use it, and what others say over it.

mod connections;
mod doctor;
mod explain;
mod metrics;
mod missed;
mod progress;
mod refresh;
mod report;
mod status;
mod unserved;
mod varlink;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::daemon::{Daemon, UNIT, new_directory};

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
        let daemon = Self::daemon(&directory);
        Self { daemon, directory }
    }

    fn daemon(directory: &Path) -> Daemon {
        let environment = ["STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY"];
        let environment = environment.map(|name| (name, directory));
        Daemon::configured(&environment, &config(&directory.join("vault.json")), "none")
    }

    fn vault(&self) -> PathBuf {
        self.directory.join("vault.json")
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
