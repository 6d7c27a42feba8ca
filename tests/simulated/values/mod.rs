//! What is kept, for how long, and what it costs: the real program, the official core, and the simulator of 1Password.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, UNIT, library, new_directory};
use crate::simulators::account::{Account, FieldValue};
use crate::simulators::http::Fault;
use crate::simulators::service_account::ServiceAccount;
use serde_json::{Value, json};

const VAULT: &str = "Vault";
/// Far longer than anything takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A machine: what outlives the service, and the account at the other end.
struct Host {
    simulator: ServiceAccount,
    state: PathBuf,
    credentials: PathBuf,
}

impl Host {
    fn new(secrets: &[&str]) -> Self {
        let mut account = Account::empty();
        for name in secrets {
            account.add(VAULT, name, &[("value", FieldValue::Concealed(format!("canary-{name}")))]);
        }
        Self::with(account)
    }

    fn with(account: Account) -> Self {
        let (state, credentials) = (new_directory("state"), new_directory("credentials"));
        fs::write(credentials.join("opnix.cache-key"), [7; 32]).unwrap();
        Self { simulator: ServiceAccount::local(account), state, credentials }
    }

    /// The secrets of a configuration, each with these keys.
    fn config(&self, top: Value, secrets: &[(&str, Value)]) -> Value {
        let secret = |(name, keys): &(&str, Value)| {
            let reference = format!("op://{VAULT}/{name}/value");
            merged(json!({"name": name, "reference": reference, "units": [UNIT]}), keys)
        };
        let secrets: Vec<Value> = secrets.iter().map(secret).collect();
        let provider = json!({"kind": "service_account", "library": library()});
        merged(json!({"provider": provider, "deadline": "4s", "secrets": secrets}), &top)
    }

    fn start(&self, config: &Value) -> Daemon {
        let environment = [
            ("STATE_DIRECTORY", self.state.as_path()),
            ("CREDENTIALS_DIRECTORY", self.credentials.as_path()),
        ];
        Daemon::configured(&environment, config, &self.simulator.token())
    }

    fn one_password_is_down(&self, down: bool) {
        self.simulator.server.clear_faults();
        if down {
            self.simulator.server.fault("", usize::MAX, Fault::Reset);
        }
    }

    fn cache(&self) -> Option<Vec<u8>> {
        fs::read(self.state.join("cache")).ok()
    }

    fn requests(&self) -> usize {
        self.simulator.server.requests().len()
    }

    /// How many requests the service believes it made.
    fn counted(&self) -> u64 {
        let ledger: Value =
            serde_json::from_slice(&fs::read(self.state.join("requests.json")).unwrap()).unwrap();
        ledger["steps"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.state);
        let _ = fs::remove_dir_all(&self.credentials);
    }
}

fn merged(mut object: Value, more: &Value) -> Value {
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !until() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn values_outlive_the_service_and_1password() {
    let host = Host::new(&["a", "b"]);
    let config = host.config(json!({}), &[("a", json!({})), ("b", json!({}))]);
    let daemon = host.start(&config);
    assert_eq!(
        (daemon.ask("a").as_deref(), daemon.ask("b").as_deref()),
        (Some("canary-a"), Some("canary-b"))
    );
    daemon.stop();
    let cache = host.cache().unwrap();
    assert!(!cache.windows(6).any(|window| window == b"canary"), "in clear");

    host.one_password_is_down(true);
    host.simulator.server.forget_requests();
    let daemon = host.start(&config);
    assert_eq!(
        (daemon.ask("a").as_deref(), daemon.ask("b").as_deref()),
        (Some("canary-a"), Some("canary-b"))
    );
    assert_eq!(host.requests(), 0, "they are fresh");
    assert!(!daemon.stop().contains("from the cache"), "nothing to warn of");
}

#[test]
fn a_stale_value_is_asked_for_and_served_with_a_warning_when_1password_does_not_answer() {
    let host = Host::new(&["a"]);
    let config = host.config(json!({"fresh_for": "0s", "short_deadline": "1s"}), &[("a", json!({}))]);
    let daemon = host.start(&config);
    assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"));
    host.simulator.change(|account| account.set(VAULT, "a", "value", "changed"));
    assert_eq!(daemon.ask("a").as_deref(), Some("changed"), "asked for each time");
    daemon.stop();

    host.one_password_is_down(true);
    let daemon = host.start(&config);
    assert_eq!(daemon.ask("a").as_deref(), Some("changed"));
    daemon.says("served credential \"a\" for unit test.service from the cache");
    daemon.says("values come from the cache where they can: 1Password cannot be reached");
    // It is back: the next start finds out, or the background does.
    host.one_password_is_down(false);
    host.simulator.change(|account| account.set(VAULT, "a", "value", "new"));
    wait("the new value", || daemon.ask("a").as_deref() == Some("new"));
    assert!(daemon.stop().contains("values come from the provider again"));
}

#[test]
fn an_outage_costs_many_starts_one_short_deadline() {
    let names: Vec<String> = (0..30).map(|number| format!("s{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let host = Host::new(&names);
    let secrets: Vec<(&str, Value)> = names.iter().map(|name| (*name, json!({}))).collect();
    let config = host.config(json!({"fresh_for": "0s", "short_deadline": "2s", "deadline": "50s"}), &secrets);
    let daemon = host.start(&config);
    names.iter().for_each(|name| assert!(daemon.ask(name).is_some()));
    daemon.stop();
    host.simulator.server.fault("", usize::MAX, Fault::Hang);
    let daemon = host.start(&config);
    let began = Instant::now();
    let asked = &daemon;
    thread::scope(|scope| {
        for name in &names {
            scope.spawn(move || assert_eq!(asked.ask(name), Some(format!("canary-{name}"))));
        }
    });
    // One after the other, and after the first wait: none for them.
    names.iter().for_each(|name| assert_eq!(daemon.ask(name), Some(format!("canary-{name}"))));
    // Sixty short deadlines would be two minutes.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    daemon.says("1Password did not answer within 2s");
}

#[test]
fn what_is_too_old_is_refused() {
    let host = Host::new(&["a"]);
    let config =
        host.config(json!({"fresh_for": "1s", "stale_for": "1s", "deadline": "2s"}), &[("a", json!({}))]);
    let daemon = host.start(&config);
    assert!(daemon.ask("a").is_some());
    host.one_password_is_down(true);
    thread::sleep(Duration::from_secs(1));
    assert!(daemon.refusal("a").contains("cannot be reached"));
}

#[test]
fn what_must_be_current_is_never_served_from_the_cache() {
    let host = Host::new(&["always", "never", "memory"]);
    let secrets = [
        ("always", json!({"always_fetch": true})),
        ("never", json!({"cache": "never"})),
        ("memory", json!({"cache": "memory"})),
    ];
    let config = host.config(json!({"deadline": "2s"}), &secrets);
    let daemon = host.start(&config);
    for name in ["always", "never", "memory"] {
        assert!(daemon.ask(name).is_some());
    }
    let before = host.requests();
    assert!(daemon.ask("always").is_some() && daemon.ask("never").is_some());
    assert!(host.requests() > before);
    host.one_password_is_down(true);
    assert!(daemon.refusal("always").contains("cannot be reached"));
    assert!(daemon.refusal("never").contains("cannot be reached"));
    assert!(daemon.ask("memory").is_some());
    daemon.stop();
    let daemon = host.start(&config);
    assert!(daemon.refusal("memory").contains("cannot be reached"), "not on disk");
}

#[test]
fn without_a_key_nothing_is_on_disk() {
    for key in [None, Some(&[7; 31][..])] {
        let host = Host::new(&["a"]);
        let path = host.credentials.join("opnix.cache-key");
        match key {
            Some(key) => fs::write(path, key).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        let daemon = host.start(&host.config(json!({}), &[("a", json!({}))]));
        assert!(daemon.ask("a").is_some());
        let log = daemon.stop();
        assert!(log.contains("values are kept in memory only"), "{log}");
        assert_eq!(host.cache(), None);
    }
    let host = Host::new(&["a"]);
    let daemon = host.start(&host.config(json!({"cache": "memory"}), &[("a", json!({}))]));
    assert!(daemon.ask("a").is_some());
    daemon.stop();
    assert_eq!(host.cache(), None);
}

#[test]
fn a_secret_that_leaves_the_configuration_leaves_the_cache() {
    let host = Host::new(&["a", "b"]);
    let both = host.config(json!({}), &[("a", json!({})), ("b", json!({}))]);
    let daemon = host.start(&both);
    assert!(daemon.ask("a").is_some() && daemon.ask("b").is_some());
    daemon.stop();
    let daemon = host.start(&both);
    let with_both = host.cache().unwrap().len();
    daemon.configure(&host.config(json!({}), &[("a", json!({}))]));
    daemon.reload();
    wait("one of them to go", || host.cache().is_some_and(|cache| cache.len() < with_both));
    daemon.configure(&host.config(json!({}), &[]));
    daemon.reload();
    wait("the last one to go", || host.cache().is_none());
    // And while the service was down.
    daemon.configure(&both);
    daemon.reload();
    assert!(daemon.ask("a").is_some());
    daemon.stop();
    assert!(host.cache().is_some());
    let _daemon = host.start(&host.config(json!({}), &[]));
    wait("all of it to go", || host.cache().is_none());
}

#[test]
fn a_cache_that_is_damaged_or_of_another_machine_or_account_is_a_warning_and_an_empty_one() {
    let host = Host::new(&["a"]);
    let config = host.config(json!({}), &[("a", json!({}))]);
    let daemon = host.start(&config);
    assert!(daemon.ask("a").is_some());
    daemon.stop();
    let cache = host.cache().unwrap();
    let (mut flipped, last) = (cache.clone(), cache.len() - 1);
    flipped[last] ^= 1;
    for (content, why) in [
        (flipped, "it is damaged, or was sealed with another key"),
        (cache[..last].to_vec(), "it is cut off"),
        (b"something else".to_vec(), "it is no sealed cache"),
        (b"opnix sealed cache 9\n...".to_vec(), "it was written by another version of opnix"),
    ] {
        fs::write(host.state.join("cache"), content).unwrap();
        host.simulator.server.forget_requests();
        let daemon = host.start(&config);
        assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"), "{why}");
        assert!(host.requests() > 0, "{why}");
        assert!(daemon.stop().contains(why), "{why}");
    }
    // Copied to a machine with another key.
    fs::write(host.credentials.join("opnix.cache-key"), [8; 32]).unwrap();
    let daemon = host.start(&config);
    assert!(daemon.ask("a").is_some());
    assert!(daemon.stop().contains("sealed with another key"));
    // The token of another account, which has other values under the same names.
    let mut account = host.simulator.account();
    account.set(VAULT, "a", "value", "theirs");
    let (state, credentials) = (host.state.clone(), host.credentials.clone());
    let other = Host { simulator: ServiceAccount::local(account), state, credentials };
    let daemon = other.start(&config);
    assert_eq!(daemon.ask("a").as_deref(), Some("theirs"));
    assert!(daemon.stop().contains("it is of another account"));
}

#[test]
fn what_1password_says_is_gone_is_served_for_the_grace_only() {
    let host = Host::new(&["kept", "gone"]);
    let gone = |host: &Host| host.simulator.change(|account| account.vault(VAULT).shared = false);
    // Enough for asking over and over.
    let budget = json!({"hourly": 100_000, "daily": 100_000});
    let top = json!({"fresh_for": "0s", "grace": "3s", "budget": budget});
    let config = host.config(top, &[("gone", json!({}))]);
    let daemon = host.start(&config);
    assert_eq!(daemon.ask("gone").as_deref(), Some("canary-gone"));
    gone(&host);
    let denied = Instant::now();
    assert_eq!(daemon.ask("gone").as_deref(), Some("canary-gone"), "within the grace");
    daemon.says("there is no vault \"Vault\"");
    wait("the end of the grace", || daemon.ask("gone").is_none());
    assert!(denied.elapsed() >= Duration::from_secs(3));
    wait("it to leave the disk too", || host.cache().is_none());
    // The grace goes on while 1Password is down, and through restarts.
    host.simulator.change(|account| account.vault(VAULT).shared = true);
    assert_eq!(daemon.command(&["refresh"]).1, 0);
    assert!(daemon.ask("gone").is_some());
    gone(&host);
    let denied = || {
        assert!(daemon.ask("gone").is_some());
        let (status, _) = daemon.command(&["status", "--json"]);
        let status: Value = serde_json::from_str(&status).unwrap();
        status["secrets"][0]["denied_for"].is_u64()
    };
    // On a slow machine an answer may take longer than a start waits for it.
    wait("1Password to say so", denied);
    daemon.stop();
    assert!(host.cache().is_some());
    host.one_password_is_down(true);
    thread::sleep(Duration::from_secs(3));
    let daemon = host.start(&config);
    assert!(daemon.refusal("gone").contains("cannot be reached"));
}

#[test]
fn values_are_renewed_in_the_background_and_requests_are_counted_as_they_are_made() {
    let host = Host::new(&["a", "b", "unasked"]);
    let secrets = [("a", json!({})), ("b", json!({})), ("unasked", json!({}))];
    let top = json!({"refresh": "1s", "fresh_for": "1h", "budget": {"hourly": 100_000, "daily": 100_000}});
    let config = host.config(top, &secrets);
    let daemon = host.start(&config);
    assert!(daemon.ask("a").is_some());
    wait("a round", || daemon.log().contains("renewed 3 of 3 values in the background"));
    host.simulator.change(|account| account.set(VAULT, "a", "value", "changed"));
    wait("the change", || daemon.ask("a").as_deref() == Some("changed"));
    daemon.stop();
    assert_eq!(host.counted(), host.requests() as u64, "{:?}", host.simulator.server.requests());
    assert_eq!(host.simulator.violations(), [""; 0]);
    // What was never asked for is there too when 1Password is not.
    host.one_password_is_down(true);
    let daemon = host.start(&config);
    assert_eq!(daemon.ask("unasked").as_deref(), Some("canary-unasked"));
}

#[test]
fn requests_of_every_kind_are_counted() {
    let mut account = Account::everything();
    let vault = account.vault("Zoo").id.clone();
    let item = account.vault("Zoo").items.iter().find(|item| item.title == "Sections").unwrap().id.clone();
    let by_id = format!("op://{vault}/{item}/username");
    for references in [
        vec![by_id.as_str(), by_id.as_str()],
        vec!["op://Zoo/Sections/username", "op://Vault 1/Item 1/value", "op://Zoo/Kinds/notes"],
        vec!["op://Zoo/Nope/nothing"],
        vec!["op://Nope/Nope/nothing"],
        vec!["op://Zoo/Sections/prod/cert.pem", "op://Zoo/Papers/paper.bin"],
        vec!["op://Zoo/Key/private key?ssh-format=openssh"],
    ] {
        let host = Host::with(account.clone());
        let secret = |(number, reference): (usize, &&str)| {
            let kind =
                if reference.contains(".pem") || reference.contains(".bin") { "file" } else { "field" };
            json!({"name": format!("s{number}"), "reference": reference, "kind": kind, "units": [UNIT], "cache": "never"})
        };
        let secrets: Vec<Value> = references.iter().enumerate().map(secret).collect();
        let config = merged(host.config(json!({}), &[]), &json!({"secrets": secrets}));
        let daemon = host.start(&config);
        for _ in 0..2 {
            (0..references.len()).for_each(|number| drop(daemon.ask_bytes(&format!("s{number}"))));
        }
        daemon.stop();
        let requests = host.simulator.server.requests();
        assert_eq!(host.counted(), requests.len() as u64, "{references:?}: {requests:?}");
    }
}

#[test]
fn a_unit_that_starts_again_and_again_for_what_is_not_there_does_not_use_up_the_limits() {
    let host = Host::new(&["there"]);
    let daemon = host.start(&host.config(json!({}), &[("there", json!({})), ("gone", json!({}))]));
    assert!(daemon.ask("there").is_some());
    host.simulator.server.forget_requests();
    for _ in 0..50 {
        assert!(daemon.refusal("gone").contains("there is no item \"gone\""));
    }
    // Twice at once, and then not before five seconds are over.
    assert!(host.requests() <= 6, "{:?}", host.simulator.server.requests());
    // Whoever puts it there says so, or waits.
    host.simulator.change(|account| {
        account.add(VAULT, "gone", &[("value", FieldValue::Concealed("here now".into()))]);
    });
    assert_eq!(daemon.command(&["refresh", "gone"]).1, 0);
    assert_eq!(daemon.ask("gone").as_deref(), Some("here now"));
}

#[test]
fn the_background_leaves_half_of_the_budget_to_starts_and_starts_go_on_from_the_cache() {
    let host = Host::new(&["a", "b"]);
    let secrets = [("a", json!({})), ("b", json!({}))];
    let top = json!({"refresh": "1s", "fresh_for": "0s", "budget": {"hourly": 40, "daily": 40}});
    let config = host.config(top, &secrets);
    let daemon = host.start(&config);
    thread::sleep(Duration::from_secs(4));
    assert!(host.requests() <= 20, "{}", host.requests());
    // Starts may use up all of it.
    wait("the budget to be spent", || {
        assert!(daemon.ask("a").is_some());
        host.requests() >= 40
    });
    let spent = host.requests();
    assert!(spent < 40 + 10, "{spent}");
    assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"));
    assert_eq!(host.requests(), spent, "from the cache");
    daemon.says("this machine's budget of requests is used up");
    // A restart does not forget.
    daemon.stop();
    let daemon = host.start(&config);
    assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"));
    assert_eq!(host.requests(), spent, "after a restart");
    // What is not in the cache is asked for all the same: the budget is only ours.
    daemon.configure(&host.config(json!({}), &[("b", json!({"cache": "never"}))]));
    daemon.reload();
    assert_eq!(daemon.ask("b").as_deref(), Some("canary-b"));
}

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

#[test]
fn a_limit_stops_the_background_and_starts_go_on_from_the_cache() {
    let host = Host::new(&["a", "b"]);
    let top = json!({"refresh": "1s", "fresh_for": "0s", "budget": {"hourly": 100_000, "daily": 100_000}});
    let config = host.config(top, &[("a", json!({})), ("b", json!({"cache": "never"}))]);
    let daemon = host.start(&config);
    assert!(daemon.ask("a").is_some());
    host.simulator.server.fault("", usize::MAX, Fault::Limited(None));
    wait("a limit", || {
        daemon.log().contains("1Password's limit on requests is reached") || daemon.ask("a").is_none()
    });
    let told = host.requests();
    thread::sleep(Duration::from_secs(3));
    assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"));
    assert_eq!(host.requests(), told, "nothing more was asked");
    daemon.stop();
    let daemon = host.start(&config);
    assert_eq!(daemon.ask("a").as_deref(), Some("canary-a"));
    thread::sleep(Duration::from_secs(2));
    assert_eq!(host.requests(), told, "after a restart");
    // Nobody knows until when: a unit that has nothing else may try.
    host.simulator.server.clear_faults();
    assert_eq!(daemon.ask("b").as_deref(), Some("canary-b"));
}
