//! The table for service accounts, through 1Password's core. Of an answer that is not 200 it tells only the status, and it
//! follows redirects; so there is nothing that a page or the place of a redirect would change.

use super::Outcome::Alone;
use super::{ALL, ELSEWHERE, IN_ZOO, PAPERS, Place, Row, SECRETS, Simulator, Trouble, ids, of_all, of_one};
use crate::daemon::Daemon;
use crate::providers::service_account::provider;
use crate::providers::table::cell::check;
use crate::simulators::account::{Account, Seal};
use crate::simulators::http::{Fault, Server};
use crate::simulators::service_account::ServiceAccount;

impl Simulator for ServiceAccount {
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
        Daemon::with(deadline, &provider(), &self.token(), &SECRETS)
    }
}

fn with_redirect(mut rows: Vec<Row>) -> Vec<Row> {
    rows.push((Trouble::Fault(Fault::Redirect(302, ELSEWHERE.into())), Alone(&[])));
    rows
}

#[test]
fn signing_in() {
    let on = "POST /api/v3/auth/start".into();
    let place = Place { on, at_first: true, secrets: ALL, names: &[] };
    check::<ServiceAccount>(&place, of_all(&["rejects the token"], &[], &["cannot be reached"]));
}

#[test]
fn the_list_of_vaults() {
    let place = Place { on: "GET /api/v1/vaults".into(), at_first: false, secrets: ALL, names: &[] };
    let forbidden = &["may not read the account's vaults"];
    check::<ServiceAccount>(&place, of_all(forbidden, &[], &["cannot be reached"]));
}

#[test]
fn the_list_of_one_vaults_items() {
    let (vault, _) = ids("broken");
    let on = format!("GET /api/v1/vault/{vault}/items/overviews");
    let place = Place { on, at_first: false, secrets: IN_ZOO, names: &["vault \"Zoo\""] };
    let mut rows = with_redirect(of_one(&["may not read vault"], &["there is no vault"]));
    // The core lists a vault as a whole, or not at all.
    rows.push((Trouble::Sealed(Seal::Bad), Alone(&[])));
    check::<ServiceAccount>(&place, rows);
}

#[test]
fn one_item_among_others_of_a_batch() {
    let (_, item) = ids("broken");
    let names = &["item \"Broken\"", "vault \"Zoo\""];
    let place = Place { on: format!("item {item}"), at_first: false, secrets: &["broken"], names };
    let mut rows = with_redirect(of_one(&["may not read item"], &["there is no item"]));
    rows.push((Trouble::Sealed(Seal::BadDetails), Alone(&[])));
    check::<ServiceAccount>(&place, rows);
}

#[test]
fn one_single_item() {
    let (vault, item) = ids("far");
    let on = format!("GET /api/v1/vault/{vault}/item/{item}");
    let place = Place { on, at_first: false, secrets: &["far"], names: &["item \"Far\"", "vault \"Den\""] };
    let rows = of_one(&["may not read item"], &["there is no item"]);
    check::<ServiceAccount>(&place, with_redirect(rows));
}

#[test]
fn the_content_of_one_file() {
    let (_, file) = ids("file-paper");
    let (vault, item) = ids("beside");
    let on = format!("GET /api/v2/file/{vault}/{item}/{file}");
    let place = Place { on, at_first: false, secrets: &["file-paper"], names: PAPERS };
    let rows = of_one(&["may not read"], &["there is no|has no"]);
    check::<ServiceAccount>(&place, with_redirect(rows));
}
