//! A machine: what outlives the service, and the account at the other end.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::daemon::{Daemon, UNIT, library, new_directory};
use crate::helpers::merged;
use crate::simulators::account::{Account, FieldValue};
use crate::simulators::http::Fault;
use crate::simulators::service_account::ServiceAccount;

pub const VAULT: &str = "Vault";

/// A machine: what outlives the service, and the account at the other end.
pub struct Host {
    pub simulator: ServiceAccount,
    pub state: PathBuf,
    pub credentials: PathBuf,
}

impl Host {
    pub fn new(secrets: &[&str]) -> Self {
        let mut account = Account::empty();
        for name in secrets {
            account.add(VAULT, name, &[("value", FieldValue::Concealed(format!("canary-{name}")))]);
        }
        Self::with(account)
    }

    pub fn with(account: Account) -> Self {
        let (state, credentials) = (new_directory("state"), new_directory("credentials"));
        fs::write(credentials.join("opnix.cache-key"), [7; 32]).unwrap();
        Self { simulator: ServiceAccount::local(account), state, credentials }
    }

    /// The secrets of a configuration, each with these keys.
    pub fn config(&self, top: Value, secrets: &[(&str, Value)]) -> Value {
        let secret = |(name, keys): &(&str, Value)| {
            let reference = format!("op://{VAULT}/{name}/value");
            merged(json!({"name": name, "reference": reference, "units": [UNIT]}), keys)
        };
        let secrets: Vec<Value> = secrets.iter().map(secret).collect();
        let provider = json!({"kind": "service_account", "library": library()});
        merged(json!({"provider": provider, "deadline": "4s", "secrets": secrets}), &top)
    }

    pub fn start(&self, config: &Value) -> Daemon {
        let environment = [
            ("STATE_DIRECTORY", self.state.as_path()),
            ("CREDENTIALS_DIRECTORY", self.credentials.as_path()),
        ];
        Daemon::configured(&environment, config, &self.simulator.token())
    }

    pub fn one_password_is_down(&self, down: bool) {
        self.simulator.server.clear_faults();
        if down {
            self.simulator.server.fault("", usize::MAX, Fault::Reset);
        }
    }

    pub fn cache(&self) -> Option<Vec<u8>> {
        fs::read(self.state.join("cache")).ok()
    }

    pub fn requests(&self) -> usize {
        self.simulator.server.requests().len()
    }

    /// How many requests the service believes it made.
    pub fn counted(&self) -> u64 {
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
