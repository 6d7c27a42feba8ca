//! What 1Password answers, as far as its core lets it through.

use serde_json::{Value, json};
use std::sync::Arc;

use super::cases::{Case, Kind, Use};
use super::{ALL, OF_VEGA, Secrets, Service, Subject, configuration, fill, run_all};
use crate::daemon::{Daemon, library};
use crate::simulators::account::Account;
use crate::simulators::service_account::ServiceAccount;

fn start() -> Service {
    let simulator = Arc::new(ServiceAccount::local(Account::empty()));
    let provider = json!({"kind": "service_account", "library": library()});
    let daemon = Daemon::configured(&[], &configuration(&provider), &simulator.token());
    let hook = simulator.hook();
    Service { daemon, hook, fill: Box::new(move |round| simulator.change(|account| fill(account, round))) }
}

fn name(on: &str, content: &Value) -> Option<String> {
    let vault = |items: usize, several: usize| if items == several { "Vega" } else { "Wolf" };
    let items = content["items"].as_array().map_or(0, Vec::len);
    let text = content.to_string();
    let item = ["Xray", "Yarn", "Zinc"].into_iter().zip(["alpha of", "gamma of", "delta of"]);
    let item = item.into_iter().find(|(_, value)| text.contains(value)).map(|(title, _)| title);
    let steps: Vec<&str> = on.split('/').collect();
    let name = match &steps[..] {
        ["v1", "vaults"] => "vaults".into(),
        ["encAttrs"] => format!("{}, attributes", content["name"].as_str()?),
        ["v1", "vault", _, "items", "overviews"] => format!("{}, overviews", vault(items, 3)),
        ["encOverview"] => format!("{}, overview", content["title"].as_str()?),
        ["v3", "vault", _, "items", "batch"] => format!("{}, batch", vault(items, 2)),
        // Of Zinc, and of Xray for its file.
        ["v1", "vault", _, "item", _] => "one item".into(),
        ["encDetails"] => format!("{}, details", item?),
        _ => return None,
    };
    // Of items and vaults that nobody asks for, the lists are enough.
    let untried = ["Third", "Another", "Yarn, details", "Zinc, details"];
    (!untried.iter().any(|untried| name.starts_with(untried))).then_some(name)
}

/// Of entries that are alike, one; of what is sealed by itself, what is in it; nothing that neither the core nor opnix uses.
fn used(at: &str) -> Use {
    let steps: Vec<&str> = at.split('/').collect();
    let sealed = steps.iter().rposition(|step| step.starts_with("enc") || step.ends_with("Access"));
    let number = |place: usize| steps.get(place).and_then(|step| step.parse::<usize>().ok());
    let alike = number(1).or(number(2)).or(number(4)).is_some_and(|number| number > 1)
        || number(2) == Some(1) && steps[1] == "items";
    let of_file = steps.iter().rev().skip(1).any(|step| *step == "v");
    if alike || of_file || sealed.is_some_and(|place| place + 1 < steps.len()) {
        return Use::Untried;
    }
    match steps[steps.len() - 1] {
        "" | "uuid" | "title" | "trashed" | "name" | "fields" | "sections" | "notesPlain" | "k" | "n"
        | "t" | "v" => Use::Little,
        "encOverview" | "encDetails" | "encAttrs" | "combinedAccess" | "contentVersion" => Use::Little,
        number if number.parse::<usize>().is_ok() => Use::Little,
        _ => Use::Untried,
    }
}

/// Measured with the core of the SDK 0.4.2: one spoiled vault fails the whole list of vaults, one spoiled item the whole
/// list of its vault, and the whole batch.
fn bearing(case: &Case, _: &Value) -> Secrets {
    match &case.document[..] {
        list if list == "vaults" || list == "one item" || list.ends_with("attributes") => ALL,
        of if of.starts_with("Wolf") || of.starts_with("Zinc") => &["delta"],
        _ => OF_VEGA,
    }
}

/// Measured: of two members of one name in an item's details the core takes the second, and does not tell.
fn also(case: &Case) -> fn(&str) -> bool {
    let second = case.kind == Kind::Twice && case.document == "Xray, details";
    if second { |value| value.ends_with("-second") || value.ends_with(" of round 0") } else { |_| false }
}

#[test]
fn a_spoiled_member_of_1passwords_answer_never_gives_another_value() {
    run_all(&Subject { start, name, add: |_| (), used, bearing, also, strict: false });
}
