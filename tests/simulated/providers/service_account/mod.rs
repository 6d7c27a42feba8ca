//! The provider `service_account`, through 1Password's official core, against the simulator.

mod content;
mod core;
mod faults;
mod names;
mod requests;
mod resolver;
mod session;
mod token;

use serde_json::{Value, json};

use crate::daemon::{Daemon, library};
use crate::simulators::account::Account;
use crate::simulators::service_account::ServiceAccount;

/// What signing in takes: four requests, and one for the keys with the first vault.
const SIGN_IN: usize = 5;

fn everything() -> ServiceAccount {
    ServiceAccount::local(Account::everything())
}

fn one(simulator: &ServiceAccount) -> Daemon {
    Daemon::start(&simulator.token(), &[("key", "op://Zoo/Sections/username")])
}

pub fn provider() -> Value {
    json!({"kind": "service_account", "library": library()})
}
