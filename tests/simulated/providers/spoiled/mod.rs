//! Each member of each answer is spoiled in turn: nobody gets a wrong value, and only who depends on it is refused.

mod cases;
mod connect;
mod service_account;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use self::cases::{Case, Kind, Use};
use crate::daemon::{Daemon, UNIT};
use crate::simulators::account::{Account, FieldValue};
use crate::simulators::hook::Hook;

/// Name and reference. Each name is one word, so that a refusal can be searched for it.
const SECRETS: [(&str, &str); 5] = [
    ("alpha", "op://Vega/Xray/Alpha"),
    ("beta", "op://Vega/Xray/Prod/Beta"),
    ("gamma", "op://Vega/Yarn/Gamma"),
    ("delta", "op://Wolf/Zinc/Delta"),
    ("file-epsilon", "op://Vega/Xray/Epsilon.bin"),
];
/// Some of them, by name.
type Secrets = &'static [&'static str];
const ALL: Secrets = &["alpha", "beta", "gamma", "delta", "file-epsilon"];
const OF_VEGA: Secrets = &["alpha", "beta", "gamma", "file-epsilon"];
const OF_XRAY: Secrets = &["alpha", "beta", "file-epsilon"];
/// How many cases one service sees.
const CHUNK: usize = 50;
const WORKERS: usize = 3;
/// Of each kind of complaint.
const EXAMPLES: usize = 6;

/// What is to be had in this round: ids and values are new in each, so that nothing that was remembered counts.
fn right(secret: &str, round: usize) -> String {
    format!("{secret} of round {round}")
}

fn fill(account: &mut Account, round: usize) {
    let of = |secret: &str| FieldValue::Concealed(right(secret, round));
    let decoy = |label: &str| FieldValue::Concealed(format!("decoy {label}"));
    account.vaults.clear();
    account.add(
        "Vega",
        "Xray",
        &[
            ("Other", decoy("Other")),
            ("Alpha", of("alpha")),
            ("Prod/Beta", of("beta")),
            ("Test/Beta", decoy("Beta")),
            ("Test/Code", FieldValue::OneTimePassword("otpauth://totp/x?secret=JBSWY3DPEHPK3PXP".into())),
        ],
    );
    account.attach("Vega", "Xray", "Test", "Decoy.bin", b"decoy file");
    account.attach("Vega", "Xray", "Prod", "Epsilon.bin", right("file-epsilon", round).as_bytes());
    account.add("Vega", "Yarn", &[("Gamma", of("gamma")), ("Alpha", decoy("Alpha"))]);
    account.add("Vega", "Another", &[("Gamma", decoy("Gamma"))]);
    account.add("Wolf", "Zinc", &[("Delta", of("delta"))]);
    account.add("Third", "Zinc", &[("Delta", decoy("Delta"))]);
}

/// One service with its simulator.
struct Service {
    daemon: Daemon,
    hook: Hook,
    /// Begins a round.
    fill: Box<dyn Fn(usize)>,
}

fn configuration(provider: &Value) -> Value {
    let secret = |(name, reference): &(&str, &str)| {
        let kind = if name.starts_with("file-") { "file" } else { "field" };
        json!({"name": name, "reference": reference, "kind": kind, "units": [UNIT]})
    };
    json!({
        "provider": provider, "refresh": "never", "fresh_for": "1h", "grace": "0s", "deadline": "20s",
        "budget": {"hourly": 1_000_000, "daily": 1_000_000}, "secrets": SECRETS.iter().map(secret).collect::<Value>(),
    })
}

/// How a provider's answers are told apart and judged.
struct Subject {
    start: fn() -> Service,
    /// The name of an answer, from its path and its content.
    name: fn(&str, &Value) -> Option<String>,
    /// Adds what the simulator leaves out.
    add: fn(&mut Value),
    /// How many ways of spoiling are tried on a member.
    used: fn(&str) -> Use,
    /// The secrets that may be refused.
    bearing: fn(&Case, &Value) -> Secrets,
    /// What may be had besides the right value, by those who may be refused.
    also: fn(&Case) -> fn(&str) -> bool,
    /// Whether refusals must not ask to be reported, and the provider not be called down.
    strict: bool,
}

fn call(daemon: &Daemon, method: &str, parameters: &Value) -> Value {
    let mut stream = UnixStream::connect(daemon.control()).unwrap();
    let request = json!({"method": format!("io.opnix.{method}"), "parameters": parameters}).to_string();
    stream.write_all(&[request.as_bytes(), b"\0"].concat()).unwrap();
    let mut answer = Vec::new();
    BufReader::new(stream).read_until(0, &mut answer).unwrap();
    let answer: Value = serde_json::from_slice(answer.trim_ascii_end().strip_suffix(b"\0").unwrap()).unwrap();
    answer["parameters"].clone()
}

/// The answers of a round in which nothing is spoiled.
fn documents(subject: &Subject) -> BTreeMap<String, Value> {
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let service = (subject.start)();
    let (note, name, add) = (seen.clone(), subject.name, subject.add);
    service.hook.set(move |on, content| {
        add(content);
        name(on, content).map(|name| note.lock().unwrap().insert(name, content.clone()));
    });
    (service.fill)(0);
    let complaints = judge(&service, 0, |_| None);
    assert_eq!(complaints, [], "nothing is spoiled");
    let mut documents = seen.lock().unwrap().clone();
    // Items have it when they are not in use.
    let titled = |item: &&mut Value| item.get("title").is_some();
    for content in documents.values_mut() {
        match content {
            Value::Array(list) => {
                list.iter_mut().filter(titled).for_each(|item| item["state"] = "ACTIVE".into())
            }
            item if item.get("title").is_some() => item["state"] = "ACTIVE".into(),
            _ => {}
        }
    }
    documents
}

/// What is wrong, and with what. `allowed`: `None` if a secret must be had; else which values it may have besides.
fn judge(
    service: &Service,
    round: usize,
    allowed: impl Fn(&str) -> Option<fn(&str) -> bool>,
) -> Vec<(&'static str, String)> {
    let mut complaints = Vec::new();
    let renewals = call(&service.daemon, "Refresh", &json!({"names": []}));
    let renewals = renewals["secrets"].as_array().unwrap();
    for renewal in renewals {
        let name = renewal["name"].as_str().unwrap();
        let mut complain = |what, why: &str| complaints.push((what, format!("{name}: {why}")));
        let failed = renewal["outcome"] == "failed";
        let why = || renewal["error"].as_str().unwrap().to_owned();
        let why = match if failed { Err(why()) } else { service.daemon.answer(name) } {
            Ok(value) => {
                let also = allowed(name).is_some_and(|also| also(&value));
                if value != right(name, round) && !also {
                    complain("WRONG VALUE", &format!("{value:.100?}"));
                }
                continue;
            }
            Err(why) => why,
        };
        if allowed(name).is_none() {
            complain("refused without need", &why);
        }
        let reference = SECRETS.iter().find(|(secret, _)| *secret == name).unwrap().1;
        let is_named = |part: &str| why.to_lowercase().contains(&part.to_lowercase());
        // Of a list that is none, nobody knows what it lacks.
        if !reference.split('/').skip(2).chain(["vaults"]).any(is_named) {
            complain("refused without a name", &why);
        }
        if why.contains("makers") {
            complain("to be reported", &why);
        }
        if why.contains("panic") || why.contains("the process that asks 1Password failed") {
            complain("CRASH", &why);
        }
    }
    if renewals.iter().all(|renewal| renewal["outcome"] != "failed") {
        return complaints;
    }
    let provider = &call(&service.daemon, "Status", &json!({}))["provider"];
    if provider["health"] != "up" {
        complaints.push(("called down", provider["error"].to_string()));
    }
    complaints
}

fn run_all(subject: &Subject) {
    let documents = documents(subject);
    let mut cases: Vec<Arc<Case>> = documents
        .iter()
        .flat_map(|(name, content)| Case::of(name, content, subject.used))
        .map(Arc::new)
        .collect();
    cases.sort_by_key(|case| case.kind == Kind::TooLong);
    let (others, long) = cases.split_at(cases.partition_point(|case| case.kind != Kind::TooLong));
    // Long names are remembered, and handed on with each call.
    let chunks = Mutex::new(others.chunks(CHUNK).chain(long.chunks(CHUNK / 6)));
    let complaints = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some(chunk) = chunks.lock().unwrap().next() else { break };
            let service = (subject.start)();
            for (round, case) in chunk.iter().enumerate() {
                (service.fill)(round);
                let (spoiled, name, add) = (case.clone(), subject.name, subject.add);
                service.hook.set(move |on, content| {
                    add(content);
                    if name(on, content).as_ref() == Some(&spoiled.document) {
                        spoiled.spoil(content);
                    }
                });
                let bearing = (subject.bearing)(case, &documents[&case.document]);
                let also = (subject.also)(case);
                let allowed = |name: &str| bearing.contains(&name).then_some(also);
                let found = judge(&service, round, allowed).into_iter();
                let lenient =
                    |what: &str| !subject.strict && ["to be reported", "called down"].contains(&what);
                let whole = |what: &str| case.at.is_empty() && what == "called down";
                let found = found.filter(|(what, _)| !lenient(what) && !whole(what));
                complaints.lock().unwrap().extend(found.map(|(what, why)| (what, case.clone(), why)));
            }
        }
    };
    thread::scope(|scope| (0..WORKERS).for_each(|_| drop(scope.spawn(work))));
    report(cases.len(), complaints.into_inner().unwrap());
}

fn report(cases: usize, complaints: Vec<(&'static str, Arc<Case>, String)>) {
    let mut groups: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (what, case, why) in &complaints {
        groups.entry((what, case.kind)).or_default().push(format!("{case}: {why}"));
    }
    let lines = groups.iter().flat_map(|((what, kind), of)| {
        let head = format!("\n{what}, {kind:?}: {} times, such as", of.len());
        [head]
            .into_iter()
            .chain(of.iter().step_by(of.len().div_ceil(EXAMPLES)).map(|one| format!("\n    {one}")))
    });
    let lines: String = lines.collect();
    assert!(complaints.is_empty(), "{} complaints in {cases} cases:{lines}", complaints.len());
}
