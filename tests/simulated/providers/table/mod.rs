//! A table of place × fault: what each fault comes to at each place, for whoever asks for something there and for all others.
//!
//! Each cell has a server and a service of its own. All secrets are asked for at the same time, and are fetched together.

mod cell;
mod connect;
mod service_account;

use std::time::Duration;

use self::Outcome::{Alone, Down, Had, Limited};
use crate::daemon::Daemon;
use crate::simulators::account::{Account, FieldValue, Seal};
use crate::simulators::http::{Fault, Server};

/// Three items in one vault, one of which has a file, and two items in other vaults.
const SECRETS: [(&str, &str); 6] = [
    // What is asked for first. While it is held up, the others gather.
    ("first", "op://Hall/Door/value"),
    ("broken", "op://Zoo/Broken/value"),
    ("second", "op://Zoo/Second/value"),
    ("beside", "op://Zoo/Papers/value"),
    ("file-paper", "op://Zoo/Papers/paper"),
    ("far", "op://Den/Far/value"),
];
const ALL: &[&str] = &["first", "broken", "second", "beside", "file-paper", "far"];
const GATHERED: &[&str] = &["broken", "second", "beside", "file-paper", "far"];
const IN_ZOO: &[&str] = &["broken", "second", "beside", "file-paper"];

/// What a refusal of the file names. A file may be empty.
const PAPERS: &[&str] = &["item \"Papers\"|op://Zoo/Papers/paper is empty"];

/// Where something goes wrong.
struct Place {
    /// What the requests there begin with.
    on: String,
    /// Whether it is one that every service asks at first, so that nothing can be held up before it.
    at_first: bool,
    /// The secrets that come from there.
    secrets: &'static [&'static str],
    /// What their refusal names if the fault is theirs alone.
    names: &'static [&'static str],
}

#[derive(Debug)]
enum Trouble {
    Fault(Fault),
    /// The item "Broken" cannot be decrypted.
    Sealed(Seal),
}

/// What it comes to. Of the words each must be in the refusal: "these|or these", and "!not these".
enum Outcome {
    /// Everybody has the value.
    Had,
    /// What comes from this place is refused; all others have their value, and the provider works.
    Alone(&'static [&'static str]),
    /// What comes from this place is refused, and the provider does not work; so others may be refused with the same words.
    Down(&'static [&'static str]),
    /// The same with the limit on requests.
    Limited,
}

type Row = (Trouble, Outcome);

/// Nobody listens there.
const ELSEWHERE: &str = "http://127.0.0.1:1/elsewhere";

/// A provider to be asked through.
trait Simulator: Sized + Sync {
    fn start(account: Account) -> Self;
    fn server(&self) -> &Server;
    /// Of the item "Broken".
    fn seal(&self, seal: Seal);
    fn daemon(&self, deadline: &str) -> Daemon;
}

/// What the faults of one item, of one vault's list or of one file come to, but for what takes long. `forbidden` and `missing` are the words for the
/// two that are 1Password's own decision.
fn of_one(forbidden: &'static [&'static str], missing: &'static [&'static str]) -> Vec<Row> {
    let rows = [
        (Fault::Status(400), Alone(&[])),
        (Fault::Status(401), Down(&["rejects the token"])),
        (Fault::Status(403), Alone(forbidden)),
        (Fault::Status(404), Alone(missing)),
        (Fault::Status(409), Alone(&[])),
        (Fault::Limited(None), Limited),
        (Fault::Status(500), Alone(&[])),
        (Fault::Html(502), Alone(&[])),
        (Fault::Status(503), Alone(&[])),
        (Fault::Truncate, Alone(&[])),
        (Fault::Reset, Alone(&[])),
        (Fault::Empty, Alone(&[])),
        (Fault::Delay(Duration::from_secs(1)), Had),
        (Fault::Slow(300, Duration::from_millis(50)), Had),
    ];
    rows.map(|(fault, outcome)| (Trouble::Fault(fault), outcome)).into()
}

/// What faults come to without which nothing can be had.
fn of_all(
    forbidden: &'static [&'static str],
    missing: &'static [&'static str],
    redirect: &'static [&'static str],
) -> Vec<Row> {
    const UNREACHABLE: Outcome = Down(&["cannot be reached"]);
    const OUT_OF_ORDER: Outcome = Down(&["out of order"]);
    let rows = [
        (Fault::Status(400), Down(&[])),
        (Fault::Status(401), Down(&["rejects the token"])),
        (Fault::Status(403), Down(forbidden)),
        (Fault::Status(404), Down(missing)),
        (Fault::Status(409), Down(&[])),
        (Fault::Limited(None), Limited),
        (Fault::Status(500), OUT_OF_ORDER),
        (Fault::Html(502), OUT_OF_ORDER),
        (Fault::Status(503), OUT_OF_ORDER),
        (Fault::Redirect(302, ELSEWHERE.into()), Down(redirect)),
        (Fault::Truncate, UNREACHABLE),
        (Fault::Reset, UNREACHABLE),
        (Fault::Empty, Down(&[])),
        (Fault::Delay(Duration::from_secs(1)), Had),
        (Fault::Slow(300, Duration::from_millis(50)), Had),
    ];
    rows.map(|(fault, outcome)| (Trouble::Fault(fault), outcome)).into()
}

fn account() -> Account {
    let mut account = Account::empty();
    for (name, reference) in SECRETS {
        let parts: Vec<&str> = reference.split('/').skip(2).collect();
        match name {
            "file-paper" => {
                account.attach(parts[0], parts[1], "", parts[2], value_of(name).as_bytes());
                account.change(parts[0], parts[1], |item| item.category = "DOCUMENT");
            }
            _ => drop(account.add(parts[0], parts[1], &[(parts[2], FieldValue::Concealed(value_of(name)))])),
        }
    }
    account
}

fn value_of(name: &str) -> String {
    format!("the value of {name}")
}

/// The id in the requests for this secret's value: its item's, or its file's; and the vault's.
fn ids(name: &str) -> (String, String) {
    let (_, reference) = SECRETS.into_iter().find(|(known, _)| *known == name).unwrap();
    let parts: Vec<&str> = reference.split('/').skip(2).collect();
    let mut account = account();
    let vault = account.vault(parts[0]);
    let item = vault.items.iter().find(|item| item.title == parts[1]).unwrap();
    let file = item.files.first().filter(|_| name == "file-paper");
    (vault.id.clone(), file.map_or(&item.id, |file| &file.id).clone())
}
