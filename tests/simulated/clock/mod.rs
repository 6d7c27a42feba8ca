//! The wall clock is set while the service runs: back by a day, or right at last, and nothing may wait for it to catch up.
//! The service runs under libfaketime, which leaves its monotonic clocks alone, as a step of the real clock does.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, UNIT, library, new_directory};
use crate::simulators::account::{Account, FieldValue};
use crate::simulators::connect::{Connect, TOKEN};
use crate::simulators::http::Fault;
use crate::simulators::service_account::ServiceAccount;
use serde_json::{Value, json};

const VAULT: &str = "Vault";
/// Far longer than anything takes, and far shorter than what the clock is set by.
const LIMIT: Duration = Duration::from_secs(60);

/// A machine whose clock can be set.
struct Host {
    simulator: ServiceAccount,
    directory: PathBuf,
    state: PathBuf,
    clock: PathBuf,
}

impl Host {
    fn new(secrets: &[&str]) -> Self {
        let mut account = Account::empty();
        for name in secrets {
            account.add(VAULT, name, &[("value", FieldValue::Concealed("old".into()))]);
        }
        let directory = new_directory("clock");
        let (state, clock) = (directory.join("state"), directory.join("clock"));
        fs::create_dir(&state).unwrap();
        fs::write(directory.join("opnix.cache-key"), [7; 32]).unwrap();
        let host = Self { simulator: ServiceAccount::local(account), directory, state, clock };
        host.set_clock("+0");
        host
    }

    /// Relative to the real one, as in `-1d`.
    fn set_clock(&self, offset: &str) {
        let new = self.directory.join("clock.new");
        fs::write(&new, offset).unwrap();
        fs::rename(new, &self.clock).unwrap();
    }

    fn environment(&self) -> [(&'static str, &Path); 7] {
        let one = Path::new("1");
        [
            ("STATE_DIRECTORY", &self.state),
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

fn merged(mut object: Value, more: &Value) -> Value {
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
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

fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !until() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn status(daemon: &Daemon) -> Value {
    serde_json::from_str(&daemon.command(&["status", "--json"]).0).unwrap()
}

#[test]
fn the_clock_of_the_service_can_be_set_here() {
    let host = Host::new(&["a"]);
    let daemon = host.start(&host.config(&json!({}), "a", &json!({})));
    assert_eq!(daemon.ask("a").as_deref(), Some("old"));
    assert!(status(&daemon)["secrets"][0]["age"].as_u64().unwrap() < 60);
    host.set_clock("+1d");
    assert!(status(&daemon)["secrets"][0]["age"].as_u64().unwrap() >= 24 * 60 * 60);
    host.set_clock("-1d");
    assert!(status(&daemon)["secrets"][0]["age"].is_null(), "from the future");
}

#[test]
fn what_is_always_fetched_is_fetched_after_the_clock_was_set_back() {
    let host = Host::new(&["a"]);
    let daemon = host.start(&host.config(&json!({}), "a", &json!({"always_fetch": true})));
    assert_eq!(daemon.ask("a").as_deref(), Some("old"));
    host.set_clock("-1d");
    host.rotate("a", "new");
    assert_eq!(daemon.ask("a").as_deref(), Some("new"));
    host.rotate("a", "newer");
    assert_eq!(daemon.ask("a").as_deref(), Some("newer"), "once more");
}

#[test]
fn a_refresh_brings_the_new_value_after_the_clock_was_set_back() {
    let host = Host::new(&["a"]);
    let daemon = host.start(&host.config(&json!({}), "a", &json!({})));
    assert_eq!(daemon.ask("a").as_deref(), Some("old"));
    host.set_clock("-1d");
    host.rotate("a", "new");
    let (said, code) = daemon.command(&["refresh"]);
    assert!(said.contains("  changed") && code == 0, "{said}");
    assert_eq!(daemon.ask("a").as_deref(), Some("new"));
}

#[test]
fn a_reload_brings_the_new_value_after_the_clock_was_set_back() {
    let host = Host::new(&["a"]);
    let daemon = host.start(&host.config(&json!({}), "a", &json!({})));
    assert_eq!(daemon.ask("a").as_deref(), Some("old"));
    host.set_clock("-1d");
    host.rotate("a", "new");
    daemon.reload();
    assert_eq!(daemon.ask("a").as_deref(), Some("new"));
}

#[test]
fn a_value_sealed_by_a_clock_far_ahead_is_renewed_when_the_clock_is_right() {
    for kept in [json!({}), json!({"always_fetch": true})] {
        let host = Host::new(&["a"]);
        let config = host.config(&json!({}), "a", &kept);
        host.set_clock("+365d");
        let daemon = host.start(&config);
        assert_eq!(daemon.ask("a").as_deref(), Some("old"));
        // As after the first answer of a time server, and then through a reboot.
        host.set_clock("+0");
        host.rotate("a", "new");
        assert_eq!(daemon.ask("a").as_deref(), Some("new"), "{kept}");
        host.set_clock("+365d");
        host.rotate("a", "newer");
        daemon.command(&["refresh"]);
        daemon.stop();
        host.set_clock("+0");
        host.rotate("a", "newest");
        let daemon = host.start(&config);
        assert_eq!(daemon.ask("a").as_deref(), Some("newest"), "{kept}");
        assert!(status(&daemon)["secrets"][0]["age"].as_u64().unwrap() < 60, "its age is right again");
    }
}

#[test]
fn a_denied_reference_is_asked_for_again_after_its_pause_whatever_the_clock() {
    for step in ["-1d", "+1d"] {
        let host = Host::new(&[]);
        let daemon = host.start(&host.config(&json!({}), "a", &json!({})));
        (0..3).for_each(|_| assert!(daemon.refusal("a").contains("there is no")));
        host.set_clock(step);
        let before = host.simulator.server.requests().len();
        (0..10).for_each(|_| assert!(daemon.refusal("a").contains("there is no")));
        // The pause of five seconds goes on; on a slow machine it may be over once.
        assert!(host.simulator.server.requests().len() - before <= 3, "{step}");
        host.simulator.change(|account| {
            account.add(VAULT, "a", &[("value", FieldValue::Concealed("new".into()))]);
        });
        wait("the end of the pause", || daemon.ask("a").as_deref() == Some("new"));
    }
}

#[test]
fn the_grace_of_a_denied_value_ends_although_the_clock_was_set_back() {
    let host = Host::new(&["a"]);
    let top = json!({"fresh_for": "0s", "grace": "3s"});
    let daemon = host.start(&host.config(&top, "a", &json!({})));
    assert_eq!(daemon.ask("a").as_deref(), Some("old"));
    host.simulator.change(|account| account.vault(VAULT).shared = false);
    wait("1Password to say so", || {
        daemon.ask("a");
        status(&daemon)["secrets"][0]["denied_for"].is_u64()
    });
    host.set_clock("-1d");
    wait("the end of the grace", || daemon.ask("a").is_none());
}

#[test]
fn a_provider_that_was_down_is_probed_soon_whatever_the_clock() {
    for step in ["-1d", "+1d"] {
        let host = Host::new(&["a"]);
        let top = json!({"fresh_for": "7d", "stale_for": "30d", "refresh": "2h"});
        let daemon = host.start(&host.config(&top, "a", &json!({})));
        assert_eq!(daemon.ask("a").as_deref(), Some("old"));
        host.simulator.server.fault("", usize::MAX, Fault::Reset);
        daemon.command(&["refresh"]);
        wait("the outage to be seen", || status(&daemon)["provider"]["health"] == "down");
        host.set_clock(step);
        host.simulator.server.clear_faults();
        // No unit asks.
        wait("a probe", || daemon.log().contains("values come from the provider again"));
    }
}

#[test]
fn a_limit_ends_when_it_was_said_to_whatever_the_clock() {
    let simulator = Connect::local(Account::everything());
    let host = Host::new(&[]);
    let secret = json!({"name": "key", "reference": "op://Zoo/Sections/username", "units": [UNIT]});
    let provider = json!({"kind": "connect", "host": simulator.url()});
    let config = json!({"provider": provider, "deadline": "1s", "secrets": [secret]});
    let daemon = Daemon::configured(&host.environment(), &config, TOKEN);
    simulator.server.fault("", 1, Fault::Limited(Some(5)));
    assert!(daemon.refusal("key").contains("limit on requests is reached until"));
    host.set_clock("-1h");
    wait("the end of the limit", || daemon.ask("key").as_deref() == Some("keeper"));
}

#[test]
fn the_background_goes_on_after_the_clock_was_set_back() {
    let host = Host::new(&["a"]);
    let top = json!({"fresh_for": "7d", "stale_for": "30d", "refresh": "2s"});
    let daemon = host.start(&host.config(&top, "a", &json!({})));
    let rounds = || daemon.log().matches("renewed 1 of 1 values in the background").count();
    wait("a round", || rounds() > 0);
    host.set_clock("-1d");
    host.rotate("a", "new");
    let before = rounds();
    wait("two more rounds", || rounds() >= before + 2);
    assert_eq!(daemon.ask("a").as_deref(), Some("new"));
}
