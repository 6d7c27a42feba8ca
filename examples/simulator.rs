//! Something that behaves like 1Password, on this machine's loopback, with made-up secrets:
//!
//! `cargo run --locked --example simulator -- service_account` or `… connect`
//!
//! It prints what to try opnix with, and takes commands: `help` lists them.

// A person's tool: what it cannot do, it says by panicking.
#![allow(clippy::unwrap_used)]

#[path = "../tests/simulators/mod.rs"]
mod simulators;

use std::fs;
use std::io::{BufRead, stdin};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};
use simulators::account::Account;
use simulators::connect::{self, Connect};
use simulators::http::{Fault, Server};
use simulators::service_account::ServiceAccount;

const HELP: &str = "\
status CODE [REQUEST]     answer with this HTTP status: status 500 GET /v1/vaults
limit SECONDS [REQUEST]   answer with 429, and after how long to come back
delay SECONDS [REQUEST]   answer later
hang, reset, truncate, garbage [REQUEST]
clear                     no more of that
requests                  what was asked for since the last time
set VAULT/ITEM/FIELD VALUE
revoke, expire            the token, the sessions (service accounts)
A REQUEST is the beginning of \"METHOD /path\"; without one, every request is meant.";

enum Simulator {
    ServiceAccount(ServiceAccount),
    Connect(Connect),
}

fn main() {
    let kind = std::env::args().nth(1).unwrap_or_else(|| "service_account".into());
    let account = Account::everything();
    let (simulator, provider, token) = match kind.as_str() {
        "service_account" => {
            let simulator = ServiceAccount::local(account);
            let token = simulator.token();
            (Simulator::ServiceAccount(simulator), json!({"kind": "service_account"}), token)
        }
        "connect" => {
            let simulator = Connect::local(account);
            let provider = json!({"kind": "connect", "host": simulator.url()});
            (Simulator::Connect(simulator), provider, connect::TOKEN.to_owned())
        }
        other => {
            eprintln!("there is no simulator {other:?}: it is service_account or connect");
            std::process::exit(64);
        }
    };
    let directory = std::env::temp_dir().join(format!("opnix-simulator-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    let (config, token_file) = (directory.join("secrets.json"), directory.join("token"));
    let secrets = json!([
        {"name": "openai-api-key", "reference": "op://Infrastructure Secrets/OpenAI/credential", "units": ["opencode.service"]},
        {"name": "cloudflare-token", "reference": "op://Infrastructure Secrets/Cloudflare/token", "units": ["caddy.service"]},
    ]);
    let text = json!({"provider": provider, "secrets": secrets});
    fs::write(&config, format!("{text:#}\n")).unwrap();
    fs::write(&token_file, token).unwrap();
    fs::set_permissions(&token_file, fs::Permissions::from_mode(0o600)).unwrap();
    println!("A simulator of 1Password ({kind}) is at http://{}. Try it with", simulator.server().address());
    println!(
        "  opnix serve --config {} --token-file {} --socket {}",
        config.display(),
        token_file.display(),
        directory.join("creds.sock").display()
    );
    println!("`help` lists what it can be told; the end of the input ends it.");
    for line in stdin().lock().lines() {
        if let Err(why) = obey(&simulator, line.unwrap().trim()) {
            println!("{why}; try `help`");
        }
    }
    fs::remove_dir_all(directory).unwrap();
}

impl Simulator {
    fn server(&self) -> &Server {
        match self {
            Self::ServiceAccount(simulator) => &simulator.server,
            Self::Connect(simulator) => &simulator.server,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Account)) {
        match self {
            Self::ServiceAccount(simulator) => simulator.change(change),
            Self::Connect(simulator) => simulator.change(change),
        }
    }
}

fn obey(simulator: &Simulator, line: &str) -> Result<(), String> {
    let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
    let server = simulator.server();
    let number = || -> Result<(u16, &str), String> {
        let (number, on) = rest.split_once(' ').unwrap_or((rest, ""));
        Ok((number.parse().map_err(|_| format!("{number:?} is no number"))?, on))
    };
    let (fault, on) = match command {
        "" => return Ok(()),
        "help" => {
            println!("{HELP}");
            return Ok(());
        }
        "clear" => {
            server.clear_faults();
            return Ok(());
        }
        "requests" => {
            server.requests().iter().for_each(|request| println!("{request}"));
            server.forget_requests();
            return Ok(());
        }
        "set" => return set(simulator, rest),
        "revoke" | "expire" => {
            let Simulator::ServiceAccount(account) = simulator else {
                return Err("a Connect server has no sessions".into());
            };
            if command == "revoke" {
                account.revoke(true)
            } else {
                account.expire_sessions()
            }
            return Ok(());
        }
        "status" => number().map(|(status, on)| (Fault::Status(status), on))?,
        "limit" => number().map(|(seconds, on)| (Fault::Limited(Some(seconds.into())), on))?,
        "delay" => number().map(|(seconds, on)| (Fault::Delay(Duration::from_secs(seconds.into())), on))?,
        "hang" => (Fault::Hang, rest),
        "reset" => (Fault::Reset, rest),
        "truncate" => (Fault::Truncate, rest),
        "garbage" => (Fault::Garbage, rest),
        other => return Err(format!("{other:?} is no command")),
    };
    server.fault(on, usize::MAX, fault);
    Ok(())
}

fn set(simulator: &Simulator, rest: &str) -> Result<(), String> {
    let mut known = Value::Null;
    simulator.change(|account| known = account.expected());
    // The longest path that fits, as names may hold spaces.
    let paths = known.as_object().into_iter().flat_map(serde_json::Map::keys);
    let paths = paths.filter_map(|reference| reference.strip_prefix("op://"));
    let path = paths.filter(|path| rest.starts_with(&format!("{path} "))).max_by_key(|path| path.len());
    let path = path.ok_or("there is no such field")?;
    let parts: Vec<&str> = path.split('/').collect();
    simulator
        .change(|account| account.set(parts[0], parts[1], parts[parts.len() - 1], &rest[path.len() + 1..]));
    Ok(())
}
