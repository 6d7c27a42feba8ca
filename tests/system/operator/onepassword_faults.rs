//! Faults of the token, of the way to 1Password, and of what is there.

use serde_json::{Value, json};

use super::{Fault, is_well};
use crate::boot::Kind;
use crate::machine::Machine;
use crate::onepassword::{TOKEN, account, one_password};
use crate::simulators::account::{Account, Item};
use crate::simulators::connect::{self, Connect};
use crate::simulators::http::{Fault as Trouble, Tls};
use crate::simulators::service_account::ServiceAccount;

const VAULT: &str = "Infrastructure Secrets";
const NEVER: i32 = 69;
const CONFIG: i32 = 78;

/// Two secrets, of which one is never kept: it can be had only while everything works.
fn config(provider: Option<Value>) -> Value {
    let mut config = json!({
        "deadline": "3s", "budget": {"hourly": 100000, "daily": 100000},
        "secrets": [
            {"name": "kept", "reference": format!("op://{VAULT}/Kept/value"), "units": ["app.service"]},
            {"name": "never", "reference": format!("op://{VAULT}/Never/value"), "units": ["other.service"], "cache": "never"},
        ],
    });
    if let Some(provider) = provider {
        config["provider"] = provider;
    }
    config
}

fn host(machine: &Machine, config: &Value) {
    machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
    for (unit, credential) in [("app.service", "kept"), ("other.service", "never")] {
        machine.unit(
            unit,
            &format!("[Service]\nType=exec\nLoadCredential={credential}:/run/opnix/creds.sock\nExecStart=sleep infinity\n"),
        );
    }
    machine.sh("systemctl enable --now opnix.socket opnix-control.socket && systemctl start app.service other.service").ok();
    is_well(machine).expect("as installed");
}

fn items() -> Account {
    account(&[("Kept", "value"), ("Never", "value")])
}

/// The service learns how things are, as it would in time.
const ASK: &str =
    "opnix refresh >/dev/null 2>&1 || true; systemctl restart --no-block other.service; sleep 1";
const ASK_AGAIN: &str =
    "systemctl reset-failed other.service || true; opnix refresh >/dev/null; systemctl restart other.service";

pub fn each_fault_of_the_token_and_of_1password_is_named_mended_and_gone(_: &Machine) {
    let machine = &Machine::boot_as(Kind::Fresh);
    let simulator = one_password(machine, items());
    host(machine, &config(None));
    let another = ServiceAccount::start(machine.listen(), Account::empty());
    machine.write("/run/token", simulator.token(), "0600");
    machine.write("/run/token-of-another", another.token(), "0600");
    let mut wrong = Vec::new();

    // The token: what is in its file.
    let restore = "cp /run/token /etc/opnix/token";
    for (name, breaks, kind, words, status) in [
        ("the token is missing", "rm /etc/opnix/token", "token-missing", "/etc/opnix/token", CONFIG),
        ("it is empty", ": >/etc/opnix/token", "token-missing", "is empty", CONFIG),
        ("it is garbage", "echo hunter2 >/etc/opnix/token", "token-invalid", "ops_", CONFIG),
        ("it is cut", "head -c 300 /run/token >/etc/opnix/token", "token-invalid", "damaged", CONFIG),
        ("others can read it", "chmod 0644 /etc/opnix/token", "token-open", "chmod 0600", 0),
    ] {
        let mends = if status == 0 { "chmod 0600 /etc/opnix/token" } else { restore };
        let fault = Fault { name, breaks, kind, words, status, mends };
        wrong.extend(fault.run(machine, || {}, || {}).err());
    }
    let replaced = "systemctl stop opnix-token.service; cp /run/token-of-another /etc/opnix/token";
    let mends = "cp /run/token /etc/opnix/token; systemctl start opnix-token.service";
    let fault = Fault {
        name: "it was replaced, and is not in use",
        breaks: replaced,
        kind: "token-not-in-use",
        words: "opnix token take",
        status: 0,
        mends,
    };
    wrong.extend(fault.run(machine, || {}, || {}).err());

    let fault = Fault {
        name: "it is of another account",
        breaks: &format!("cp /run/token-of-another /etc/opnix/token; sleep 5; {ASK}"),
        kind: "token-of-another-account",
        words: "put the token of the account before back",
        status: NEVER,
        mends: &format!("cp /run/token /etc/opnix/token; sleep 5; {ASK_AGAIN}"),
    };
    wrong.extend(fault.run(machine, || {}, || {}).err());

    // What 1Password says.
    let change = |change: fn(&mut Account)| simulator.change(change);
    let restored = || simulator.change(|account| *account = items());
    let of_reference = |name, words, change_it: fn(&mut Account)| {
        let fault =
            Fault { name, breaks: "true", kind: "secret-unavailable", words, status: NEVER, mends: "true" };
        let ask = |script: &str| drop(machine.sh(script));
        let breaks = || {
            change(change_it);
            ask(ASK);
        };
        let mends = || {
            restored();
            ask(ASK_AGAIN);
        };
        fault.run(machine, breaks, mends).err()
    };
    wrong.extend(of_reference("the vault is not shared", VAULT, |account| {
        account.vault(VAULT).shared = false
    }));
    wrong.extend(of_reference("the item was renamed", "there is no item", |account| {
        account.change(VAULT, "Never", |item| item.title = "Forever".into());
    }));
    wrong.extend(of_reference("the field was renamed", "has no field", |account| {
        account.change(VAULT, "Never", |item| item.fields[0].label = "valeu".into());
    }));
    wrong.extend(of_reference("the field is empty", "is empty", |account| {
        account.set(VAULT, "Never", "value", "")
    }));
    wrong.extend(of_reference("the item is ambiguous", "ambiguous", |account| {
        let vault = account.vault(VAULT);
        let second = vault.items.iter().find(|item| item.title == "Never").cloned().expect("it is there");
        let id = account.next_id();
        let vault = account.vault(VAULT);
        vault.items.push(Item { id, ..second });
        vault.content_version += 1;
    }));

    let mut of_server = |name, trouble: Option<Trouble>, kind, words| {
        let fault = Fault { name, breaks: "true", kind, words, status: NEVER, mends: "true" };
        let breaks = || {
            match trouble.clone() {
                Some(trouble) => simulator.server.fault("", usize::MAX, trouble),
                None => simulator.revoke(true),
            }
            simulator.expire_sessions();
            drop(machine.sh(ASK));
        };
        let mends = || {
            simulator.revoke(false);
            simulator.server.clear_faults();
            drop(machine.sh(ASK_AGAIN));
        };
        wrong.extend(fault.run(machine, breaks, mends).err());
    };
    of_server("the token is rejected", None, "token-rejected", "rejects the token");
    of_server("1Password resets connections", Some(Trouble::Reset), "unreachable", "127.0.0.1");
    of_server("it is out of order", Some(Trouble::Status(503)), "provider-fails", "503");
    of_server("it does not answer", Some(Trouble::Hang), "unreachable", "did not answer");

    // What is needed to ask it.
    let library = "/usr/lib/opnix/libop_uniffi_core.so";
    let (gone, back) = (
        format!("mv {library} /run/core; systemctl restart opnix.service; {ASK}"),
        format!("mv /run/core {library}; systemctl restart opnix.service; {ASK_AGAIN}"),
    );
    let fault = Fault {
        name: "the core library is missing",
        breaks: &gone,
        kind: "core-unusable",
        words: "opnix core install",
        status: NEVER,
        mends: &back,
    };
    wrong.extend(fault.run(machine, || {}, || {}).err());
    // Its build id is what a release is known by, though a distribution stripped it; no other byte of it is changed.
    let (other, back) = (
        format!(
            r"cp {library} /run/core; LC_ALL=C sed -i 's/\x25\xeb\x8c\x20\x10\x34/\x25\xeb\x8c\x20\x10\x35/' {library}"
        ),
        format!("mv /run/core {library}"),
    );
    let fault = Fault {
        name: "it is of another version",
        breaks: &other,
        kind: "core-unusable",
        words: "none of the releases",
        status: 0,
        mends: &back,
    };
    wrong.extend(fault.run(machine, || {}, || {}).err());

    // Its limits.
    let budget = "cp /etc/opnix/secrets.json /run/before; sed -i 's/\"daily\":100000/\"daily\":1/' /etc/opnix/secrets.json; systemctl reload opnix.service";
    let mends =
        "cp /run/before /etc/opnix/secrets.json; systemctl reload opnix.service; opnix refresh >/dev/null";
    let fault = Fault {
        name: "the budget is used up",
        breaks: budget,
        kind: "budget-spent",
        words: "of 1 in the last day",
        status: 0,
        mends,
    };
    wrong.extend(fault.run(machine, || {}, || {}).err());
    // Its core does not say how long that lasts, so it is not over here.
    simulator.server.fault("", usize::MAX, Trouble::Limited(Some(600)));
    machine.sh(ASK).ok();
    let fault = Fault {
        name: "1Password's limit is reached",
        breaks: "true",
        kind: "rate-limited",
        words: "it is over",
        status: NEVER,
        mends: "true",
    };
    wrong.extend(fault.is_named(machine).err().map(|why| format!("{}: {why}", fault.name)));
    assert!(wrong.is_empty(), "{} faults: {}", wrong.len(), wrong.join("\n\n"));
}

pub fn each_fault_of_the_way_to_1password_is_named_mended_and_gone(_: &Machine) {
    let machine = &Machine::boot_as(Kind::Fresh);
    let (tls, untrusted, early) = (Tls::new(), Tls::new(), Tls::valid(2999, 4096));
    let simulator = Connect::start(machine.listen(), Some(&tls), items());
    let strange = Connect::start(machine.listen(), Some(&untrusted), items());
    let ahead = Connect::start(machine.listen(), Some(&early), items());
    machine.write(TOKEN, connect::TOKEN, "0600");
    machine.write("/etc/opnix/authority.pem", format!("{}{}", tls.pem, early.pem), "0644");
    machine.sh("echo 127.0.0.1 connect.test >>/etc/hosts").ok();
    let port = |simulator: &Connect| simulator.server.address().port();
    let right = port(&simulator);
    let provider = json!({"kind": "connect", "host": format!("https://connect.test:{right}"), "authority": "/etc/opnix/authority.pem"});
    host(machine, &config(Some(provider)));

    let mut wrong = Vec::new();
    let mut run = |name, breaks: String, kind, words, mends: &str| {
        let fault = Fault {
            name,
            breaks: &format!("{breaks}; {ASK}"),
            kind,
            words,
            status: NEVER,
            mends: &format!("{mends}; {ASK_AGAIN}"),
        };
        wrong.extend(fault.run(machine, || {}, || {}).err());
    };
    let elsewhere = |port: u16| {
        format!(
            "cp /etc/opnix/secrets.json /run/before; sed -i 's/:{right}/:{port}/' /etc/opnix/secrets.json; systemctl reload opnix.service"
        )
    };
    let back = "cp /run/before /etc/opnix/secrets.json; systemctl reload opnix.service";
    run(
        "its name is not resolved",
        "cp /etc/hosts /run/hosts; sed -i /connect.test/d /etc/hosts; systemctl restart opnix.service".into(),
        "name-unknown",
        "connect.test",
        "cp /run/hosts /etc/hosts",
    );
    run("nobody listens", elsewhere(9), "unreachable", "no connection", back);
    run("its certificate is not trusted", elsewhere(port(&strange)), "untrusted", "not trusted here", back);
    run("its certificate is not valid yet", elsewhere(port(&ahead)), "clock-wrong", "timedatectl", back);
    let proxy = "printf '[Service]\\nEnvironment=HTTPS_PROXY=http://127.0.0.1:9\\n' >/run/systemd/system/opnix.service.d/90-proxy.conf; \
                 systemctl daemon-reload; systemctl restart opnix.service";
    let no_proxy = "rm /run/systemd/system/opnix.service.d/90-proxy.conf; systemctl daemon-reload; systemctl restart opnix.service";
    run(
        "the proxy is wrong",
        format!("mkdir -p /run/systemd/system/opnix.service.d; {proxy}"),
        "proxy-wrong",
        "127.0.0.1:9",
        no_proxy,
    );
    run(
        "the token is another server's",
        "echo eyJhbGciOiJFUzI1NiJ9.eyJtYWRlIjoidXAifQ.of-another >/etc/opnix/token; opnix token take".into(),
        "token-rejected",
        "rejects the token",
        &format!("echo {} >/etc/opnix/token; opnix token take", connect::TOKEN),
    );
    assert!(wrong.is_empty(), "{} faults: {}", wrong.len(), wrong.join("\n\n"));
}
