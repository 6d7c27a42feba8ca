//! The table for Connect servers.

use super::Outcome::{Alone, Down};
use super::{ELSEWHERE, GATHERED, IN_ZOO, PAPERS, Place, Row, Simulator, Trouble, ids, of_all, of_one};
use crate::daemon::Daemon;
use crate::providers::connect::with_deadline;
use crate::providers::table::SECRETS;
use crate::providers::table::cell::check;
use crate::simulators::account::{Account, Seal};
use crate::simulators::connect::Connect;
use crate::simulators::http::{Fault, Server};

impl Simulator for Connect {
    fn start(account: Account) -> Self {
        Self::local(account)
    }

    fn server(&self) -> &Server {
        &self.server
    }

    fn seal(&self, seal: Seal) {
        self.change(|account| account.change("Zoo", "Broken", |item| item.seal = seal));
    }

    fn daemon(&self, deadline: &str) -> Daemon {
        with_deadline(self, deadline, &SECRETS)
    }
}

/// With what is another matter than 1Password's own word: a page of something in between, or a way to elsewhere.
fn with_pages(mut rows: Vec<Row>) -> Vec<Row> {
    const NO_DENIAL: &[&str] = &["!may not read", "!there is no", "!has no"];
    let more = [
        (Fault::Html(403), Alone(NO_DENIAL)),
        (Fault::Html(404), Alone(NO_DENIAL)),
        (Fault::Redirect(302, ELSEWHERE.into()), Alone(&[ELSEWHERE])),
    ];
    rows.extend(more.map(|(fault, outcome)| (Trouble::Fault(fault), outcome)));
    rows
}

#[test]
fn the_list_of_vaults() {
    let place = Place { on: "GET /v1/vaults ".into(), at_first: false, secrets: GATHERED, names: &[] };
    const NO_SERVER: &[&str] = &["no Connect server", "http://127.0.0.1:"];
    let mut rows = of_all(&["may not read the account's vaults"], NO_SERVER, &[ELSEWHERE]);
    let pages = [(Fault::Html(403), Down(&[])), (Fault::Html(404), Down(NO_SERVER))];
    rows.extend(pages.map(|(fault, outcome)| (Trouble::Fault(fault), outcome)));
    check::<Connect>(&place, rows);
}

#[test]
fn the_list_of_one_vaults_items() {
    let (vault, _) = ids("broken");
    let on = format!("GET /v1/vaults/{vault}/items ");
    let place = Place { on, at_first: false, secrets: IN_ZOO, names: &["vault \"Zoo\""] };
    let rows = of_one(&["may not read vault"], &["there is no vault"]);
    check::<Connect>(&place, with_pages(rows));
}

#[test]
fn one_item_among_others() {
    let (vault, item) = ids("broken");
    let on = format!("GET /v1/vaults/{vault}/items/{item} ");
    let names = &["item \"Broken\"", "vault \"Zoo\""];
    let place = Place { on, at_first: false, secrets: &["broken"], names };
    let mut rows = vec![(Trouble::Fault(Fault::Hang), Alone(&[]))];
    rows.extend(with_pages(of_one(&["may not read item"], &["there is no item"])));
    rows.push((Trouble::Sealed(Seal::BadDetails), Alone(&[])));
    check::<Connect>(&place, rows);
}

#[test]
fn the_content_of_one_file() {
    let (_, file) = ids("file-paper");
    let (vault, item) = ids("beside");
    let on = format!("GET /v1/vaults/{vault}/items/{item}/files/{file}/");
    let place = Place { on, at_first: false, secrets: &["file-paper"], names: PAPERS };
    check::<Connect>(&place, with_pages(of_one(&["may not read"], &["there is no|has no"])));
}
