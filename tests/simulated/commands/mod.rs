//! The one-shot commands of people who come from OpNix: their flags, formats and exit codes.

mod env;
mod secret;
mod terminal;
mod token;
mod token_check;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::daemon::{library, new_directory};
use crate::simulators::account::{Account, FieldValue};
use crate::simulators::service_account::ServiceAccount;

const AWKWARD: &str = "it's \"quoted\" $HOME `id` \\ and\ntwo lines";

struct Place {
    directory: PathBuf,
    simulator: ServiceAccount,
}

impl Place {
    fn new() -> Self {
        let mut account = Account::empty();
        account.add("Vault", "API", &[("token", FieldValue::Concealed("canary-token".into()))]);
        account.add("Vault", "Odd", &[("text", FieldValue::Concealed(AWKWARD.into()))]);
        account.attach("Vault", "API", "", "cert.pem", b"\x00\xffbytes");
        let place = Self { directory: new_directory("once"), simulator: ServiceAccount::local(account) };
        fs::write(place.path("token"), place.simulator.token()).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn configure(&self, mut config: Value) {
        config["provider"] = json!({"kind": "service_account", "library": library()});
        fs::write(self.path("secrets.json"), config.to_string()).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_opnix"));
        command.args(arguments).current_dir(&self.directory).env_remove("OP_SERVICE_ACCOUNT_TOKEN");
        command.output().unwrap()
    }

    /// `opnix env` with these variables.
    fn env(&self, format: &str, vars: &Value) -> Output {
        let config = json!({"vars": vars}).to_string();
        let library = library();
        self.run(&[
            "env",
            "-config-json",
            &config,
            "-token-file",
            "token",
            "-format",
            format,
            "-library",
            library.to_str().unwrap(),
        ])
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
