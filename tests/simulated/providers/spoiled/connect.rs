//! What a Connect server answers.

use std::sync::Arc;

use serde_json::{Value, json};

use super::cases::{Case, Kind, Use, too_long};
use super::{ALL, OF_VEGA, OF_XRAY, Secrets, Service, Subject, configuration, fill, run_all};
use crate::daemon::Daemon;
use crate::simulators::account::Account;
use crate::simulators::connect::{Connect, TOKEN};

fn start() -> Service {
    let simulator = Arc::new(Connect::local(Account::empty()));
    let provider = json!({"kind": "connect", "host": simulator.url()});
    let daemon = Daemon::configured(&[], &configuration(&provider), TOKEN);
    let hook = simulator.hook().clone();
    Service { daemon, hook, fill: Box::new(move |round| simulator.change(|account| fill(account, round))) }
}

/// `vaults`, `items of Vega`, `Xray`.
fn name(path: &str, content: &Value) -> Option<String> {
    match path.split('/').count() {
        2 => Some("vaults".into()),
        4 => Some(format!("items of {}", content.pointer("/0/vault/name")?.as_str()?)),
        5 => Some(content["title"].as_str()?.into()),
        _ => None,
    }
}

/// What servers send and the simulator does not.
fn add(content: &mut Value) {
    let Some(members) = content.as_object_mut().filter(|members| members.contains_key("fields")) else {
        return;
    };
    members.insert("favorite".into(), json!(false));
    members.insert("tags".into(), json!(["a tag"]));
    members.insert("urls".into(), json!([{"primary": true, "href": "https://made.up"}]));
    let fields = members["fields"].as_array_mut().unwrap();
    fields[0]["entropy"] = json!(96.5);
    fields[0]["recipe"] = json!({"length": 20, "characterSets": ["LETTERS"]});
}

/// The secrets below an entry of whichever list.
fn own(entry: &Value) -> Secrets {
    let text = |name: &str| entry[name].as_str().unwrap_or_default();
    match (text("name"), text("title"), text("value").split(' ').next().unwrap_or_default()) {
        ("Vega", ..) => OF_VEGA,
        (_, "Xray", _) => OF_XRAY,
        (.., "alpha") => &["alpha"],
        (.., "beta") => &["beta"],
        (_, "Yarn", _) | (.., "gamma") => &["gamma"],
        ("Wolf", ..) | (_, "Zinc", _) | (.., "delta") => &["delta"],
        ("Epsilon.bin", ..) => &["file-epsilon"],
        _ => &[],
    }
}

fn used(at: &str) -> Use {
    let last = at.rsplit('/').next().unwrap();
    let own = ["", "id", "name", "title", "fields", "files", "sections", "section", "label", "value"];
    if own.contains(&last) || last.parse::<usize>().is_ok() { Use::Much } else { Use::Little }
}

fn bearing(case: &Case, document: &Value) -> Secrets {
    let whole = match &case.document[..] {
        "vaults" => ALL,
        "items of Vega" => OF_VEGA,
        "items of Wolf" => &["delta"],
        _ => own(document),
    };
    // One name may then mean two of a list.
    let owned = |list: &Value, number: &str| {
        let both = case.kind == Kind::TwiceAsNext;
        if both { whole } else { own(&list[number.parse::<usize>().unwrap()]) }
    };
    match &case.steps()[..] {
        [] => whole,
        [number] | [number, "id" | "name" | "title" | "state", ..] if document.is_array() => {
            owned(document, number)
        }
        ["id" | "title" | "state"] => whole,
        ["sections", ..] if whole.contains(&"beta") => &["beta"],
        ["fields"] if whole == OF_XRAY => &["alpha", "beta"],
        ["fields"] => whole,
        ["files"] if whole == OF_XRAY => &["file-epsilon"],
        [list @ ("fields" | "files"), number] => owned(&document[list], number),
        [list @ "fields", number, "id" | "label" | "value" | "totp" | "section", ..] => {
            owned(&document[list], number)
        }
        [list @ "files", number, "id" | "name" | "size" | "section", ..] => owned(&document[list], number),
        _ => &[],
    }
}

fn also(case: &Case) -> fn(&str) -> bool {
    let long = case.kind == Kind::TooLong && case.at.ends_with("/value");
    if long { |value| value == too_long() } else { |_| false }
}

#[test]
fn a_spoiled_member_of_a_connect_servers_answer_costs_those_who_depend_on_it_and_nobody_else() {
    run_all(&Subject { start, name, add, used, bearing, also, strict: true });
}
