//! The provider `connect`, against the simulator of a Connect server.

mod content;
mod counting;
mod faults;
mod names;
mod redirection;
mod requests;
mod trust;

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::simulators::account::Account;
use crate::simulators::connect::{Connect, TOKEN};

pub fn everything() -> Connect {
    Connect::local(Account::everything())
}

pub fn provider(simulator: &Connect) -> Value {
    json!({"kind": "connect", "host": simulator.url()})
}

fn daemon(simulator: &Connect, secrets: &[(&str, &str)]) -> Daemon {
    with_deadline(simulator, "20s", secrets)
}

pub fn with_deadline(simulator: &Connect, deadline: &str, secrets: &[(&str, &str)]) -> Daemon {
    Daemon::with(deadline, &provider(simulator), TOKEN, secrets)
}
