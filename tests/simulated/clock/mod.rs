//! The wall clock is set while the service runs: back by a day, or right at last, and nothing may wait for it to catch up.
//! The service runs under libfaketime, which leaves its monotonic clocks alone, as a step of the real clock does.

mod boots;
mod pauses;
mod renewal;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::daemon::{Daemon, UNIT, library, new_directory};
use crate::helpers::{merged, status};
use crate::simulators::account::{Account, FieldValue};
use crate::simulators::service_account::ServiceAccount;

const VAULT: &str = "Vault";

/// A machine whose clock can be set.
struct Host {
    simulator: ServiceAccount,
    directory: PathBuf,
    state: PathBuf,
    /// What a reboot leaves nothing of.
    runtime: PathBuf,
    /// How often it was booted.
    boots: Cell<usize>,
    clock: PathBuf,
}

impl Host {
    fn new(secrets: &[&str]) -> Self {
        let mut account = Account::empty();
        for name in secrets {
            account.add(VAULT, name, &[("value", FieldValue::Concealed("old".into()))]);
        }
        let directory = new_directory("clock");
        let [state, runtime, clock] = ["state", "runtime", "clock"].map(|name| directory.join(name));
        fs::create_dir(&state).unwrap();
        fs::create_dir(&runtime).unwrap();
        fs::write(directory.join("opnix.cache-key"), [7; 32]).unwrap();
        let host = Self {
            simulator: ServiceAccount::local(account),
            directory,
            state,
            runtime,
            boots: Cell::new(0),
            clock,
        };
        host.set_clock("+0");
        host
    }

    /// Relative to the real one, as in `-1d`.
    fn set_clock(&self, offset: &str) {
        let new = self.directory.join("clock.new");
        fs::write(&new, offset).unwrap();
        fs::rename(new, &self.clock).unwrap();
    }

    /// To be called while no service runs.
    fn reboot(&self) {
        fs::remove_dir_all(&self.runtime).unwrap();
        fs::create_dir(&self.runtime).unwrap();
        self.boots.set(self.boots.get() + 1);
    }

    fn environment(&self) -> [(&'static str, &Path); 9] {
        let one = Path::new("1");
        [
            ("OPNIX_BOOT", Path::new(["first", "second", "third", "fourth"][self.boots.get()])),
            ("STATE_DIRECTORY", &self.state),
            ("RUNTIME_DIRECTORY", &self.runtime),
            ("CREDENTIALS_DIRECTORY", &self.directory),
            ("LD_PRELOAD", faketime()),
            ("FAKETIME_TIMESTAMP_FILE", &self.clock),
            ("FAKETIME_NO_CACHE", one),
            ("FAKETIME_DONT_FAKE_MONOTONIC", one),
            ("NO_FAKE_STAT", one),
        ]
    }

    fn start(&self, config: &Value) -> Daemon {
        let daemon = Daemon::configured(&self.environment(), config, &self.simulator.token());
        assert!(!daemon.log().contains("LD_PRELOAD"), "{}", daemon.log());
        daemon
    }

    /// One secret, with these keys.
    fn config(&self, top: &Value, name: &str, keys: &Value) -> Value {
        let secret =
            json!({"name": name, "reference": format!("op://{VAULT}/{name}/value"), "units": [UNIT]});
        let provider = json!({"kind": "service_account", "library": library()});
        let budget = json!({"hourly": 100_000, "daily": 100_000});
        let config = json!({
            "provider": provider, "deadline": "10s", "short_deadline": "9s", "refresh": "never", "budget": budget,
            "secrets": [merged(secret, keys)],
        });
        merged(config, top)
    }

    fn rotate(&self, name: &str, value: &str) {
        self.simulator.change(|account| account.set(VAULT, name, "value", value));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Debian's libfaketime, which `tests/run` installs.
fn faketime() -> &'static Path {
    let candidates = [
        concat!("/usr/lib/", "x86_64-linux-gnu", "/faketime/libfaketimeMT.so.1"),
        concat!("/usr/lib/", "aarch64-linux-gnu", "/faketime/libfaketimeMT.so.1"),
    ];
    let found = candidates.into_iter().map(Path::new).find(|path| path.exists());
    found.expect("libfaketime is missing: tests/run installs it")
}

#[test]
fn the_clock_of_the_service_can_be_set_here() {
    let host = Host::new(&["a"]);
    let daemon = host.start(&host.config(&json!({}), "a", &json!({})));
    assert_eq!(daemon.ask("a").as_deref(), Some("old"));
    daemon.stop();
    host.reboot();
    let daemon = host.start(&host.config(&json!({}), "a", &json!({})));
    assert!(status(&daemon)["secrets"][0]["age"].as_u64().unwrap() < 60);
    host.set_clock("+1d");
    assert!(status(&daemon)["secrets"][0]["age"].as_u64().unwrap() >= 24 * 60 * 60);
    host.set_clock("-1d");
    assert!(status(&daemon)["secrets"][0]["age"].is_null(), "from the future");
}
