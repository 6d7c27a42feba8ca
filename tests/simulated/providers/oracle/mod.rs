//! The account changes at random between the asks: an answer is never of another item than the name means, whichever the
//! provider, and however the value is kept.

mod account;

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use serde_json::{Value, json};

use self::account::{Chance, FIELDS, ITEMS, VAULTS};
use crate::daemon::{Daemon, UNIT, library};
use crate::simulators::account::Account;
use crate::simulators::connect::{Connect, TOKEN};
use crate::simulators::service_account::ServiceAccount;

const SEEDS: u64 = 4;
const STEPS: usize = 60;
/// What 1Password has denied so often in a row is not asked for again at once.
const DENIALS: usize = 2;

/// "vault/item/field" of each secret: its reference, and in other signs its name.
fn paths() -> impl Iterator<Item = [&'static str; 3]> {
    let items = VAULTS.into_iter().flat_map(|vault| ITEMS.map(|item| (vault, item)));
    items.flat_map(|(vault, item)| FIELDS.map(|field| [vault, item, field]))
}

fn configuration(provider: &Value) -> Value {
    let secret = |path: [&'static str; 3]| {
        let mut secret =
            json!({"name": path.join("-"), "reference": format!("op://{}", path.join("/")), "units": [UNIT]});
        match path[2] {
            "now" => secret["fresh_for"] = "0s".into(),
            "never" => secret["cache"] = "never".into(),
            _ => {}
        }
        secret
    };
    json!({
        "provider": provider, "refresh": "never", "fresh_for": "1h", "grace": "0s", "deadline": "30s",
        "short_deadline": "29s", "budget": {"hourly": 1_000_000, "daily": 1_000_000},
        "secrets": paths().map(secret).collect::<Value>(),
    })
}

/// Lets something be done to the account.
type Change<'a> = dyn Fn(&mut dyn FnMut(&mut Account)) + 'a;

/// A service with its account, and what its answers may be.
struct Trial<'a> {
    daemon: &'a Daemon,
    account: &'a Change<'a>,
    /// What a secret meant at some moment since the last refresh or reload: a value that is kept may be of any of them.
    since: BTreeMap<[&'static str; 3], BTreeSet<String>>,
    /// How often in a row it was denied.
    denials: BTreeMap<[&'static str; 3], usize>,
    complaints: Vec<String>,
}

impl Trial<'_> {
    fn meaning(&self, [vault, item, field]: [&'static str; 3]) -> Option<String> {
        let mut meaning = None;
        (self.account)(&mut |account| meaning = account::meaning(account, vault, item, field));
        meaning
    }

    /// The values of this moment may be kept from here on.
    fn note(&mut self) {
        for path in paths().filter(|path| path[2] == "kept") {
            let meaning = self.meaning(path);
            self.since.entry(path).or_default().extend(meaning);
        }
    }

    fn reload(&mut self) {
        self.daemon.reload();
        self.since.clear();
        self.denials.clear();
    }

    fn refresh(&mut self) {
        self.daemon.command(&["refresh"]);
        self.since.clear();
        self.note();
        for path in paths() {
            if self.meaning(path).is_none() {
                *self.denials.entry(path).or_default() += 1;
            }
        }
    }

    fn ask(&mut self, path: [&'static str; 3]) {
        self.note();
        let meaning = self.meaning(path);
        let name = path.join("-");
        let mut answer = self.daemon.answer(&name);
        if answer.is_err() && meaning.is_some() && self.denials.get(&path) >= Some(&DENIALS) {
            self.reload();
            self.note();
            answer = self.daemon.answer(&name);
        }
        match &answer {
            Ok(_) => drop(self.denials.remove(&path)),
            Err(_) => *self.denials.entry(path).or_default() += 1,
        }
        let right = match &answer {
            Ok(value) => {
                Some(value) == meaning.as_ref()
                    || self.since.get(&path).is_some_and(|since| since.contains(value))
            }
            Err(why) => meaning.is_none() && !why.contains("makers"),
        };
        if !right {
            self.complaints.push(format!("{name} is {answer:?}, not {meaning:?}"));
        }
    }
}

/// What is wrong with the answers.
fn run(seed: u64, daemon: &Daemon, account: &Change<'_>) -> Vec<String> {
    let mut chance = Chance(seed);
    let mut trial =
        Trial { daemon, account, since: BTreeMap::new(), denials: BTreeMap::new(), complaints: Vec::new() };
    let paths: Vec<_> = paths().collect();
    let (mut found, mut story, mut busy) = (Vec::new(), Vec::new(), 0);
    for step in 1..=STEPS {
        (trial.account)(&mut |account| story.push(account::change(account, &mut chance, step)));
        match chance.below(6) {
            0 => {
                story.push("refresh".into());
                trial.refresh();
            }
            1 => {
                story.push("reload".into());
                trial.reload();
            }
            _ => {}
        }
        // Often the same, so that there is something to be remembered.
        if chance.below(2) == 0 {
            busy = chance.below(paths.len() / 3) * 3;
        }
        for place in [busy, busy + 1, busy + 2, chance.below(paths.len())] {
            trial.ask(paths[place]);
        }
        let what = trial.complaints.drain(..);
        found.extend(
            what.map(|what| format!("seed {seed}, step {step}: {what}, after: {}", story.join("; "))),
        );
    }
    found
}

fn through_connect(seed: u64) -> Vec<String> {
    let simulator = Connect::local(account::filled());
    let provider = json!({"kind": "connect", "host": simulator.url()});
    let daemon = Daemon::configured(&[], &configuration(&provider), TOKEN);
    run(seed, &daemon, &|act| simulator.change(|account| act(account)))
}

fn through_1password(seed: u64) -> Vec<String> {
    let simulator = ServiceAccount::local(account::filled());
    let provider = json!({"kind": "service_account", "library": library()});
    let daemon = Daemon::configured(&[], &configuration(&provider), &simulator.token());
    run(seed, &daemon, &|act| simulator.change(|account| act(account)))
}

fn all(of: fn(u64) -> Vec<String>) {
    let trials: Vec<_> = (0..SEEDS).map(|seed| thread::spawn(move || of(seed))).collect();
    let complaints: Vec<String> = trials.into_iter().flat_map(|trial| trial.join().unwrap()).collect();
    assert!(complaints.is_empty(), "{} wrong answers:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn a_connect_server_gives_what_the_name_means_at_the_moment() {
    all(through_connect);
}

#[test]
fn _1password_gives_what_the_name_means_at_the_moment() {
    all(through_1password);
}
