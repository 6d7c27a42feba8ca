//! Units get their secrets from 1Password: its own core in the service's sandbox, and a simulator at the other end.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::credentials::nothing_shows_a_value;
use crate::machine::Machine;
use crate::opnix::*;
use crate::simulators::account::{Account, FieldValue};
use crate::simulators::connect::{self, Connect};
use crate::simulators::http::{Fault, Tls};
use crate::simulators::service_account::ServiceAccount;

pub const TOKEN: &str = "/etc/opnix/token";
const VAULT: &str = "Infrastructure Secrets";

/// 1Password with this account, and the machine with its token and core.
pub fn one_password(machine: &Machine, account: Account) -> ServiceAccount {
    const LIBRARY: &str = "/usr/lib/opnix/libop_uniffi_core.so";
    if machine.run(&["test", "-e", LIBRARY]).code != Some(0) {
        let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/core/libop_uniffi_core.so");
        let core = std::fs::read(&core)
            .unwrap_or_else(|_| panic!("{} is missing: tests/run puts it there", core.display()));
        machine.write(LIBRARY, core, "0644");
    }
    let simulator = ServiceAccount::start(machine.listen(), account);
    machine.write(TOKEN, simulator.token(), "0600");
    simulator
}

fn of_value(name: &str) -> FieldValue {
    FieldValue::Concealed(value(name))
}

pub fn account(items: &[(&str, &str)]) -> Account {
    let mut account = Account::empty();
    for (title, label) in items {
        account.add(VAULT, title, &[(label, of_value(title))]);
    }
    account
}

pub fn entry(name: &str, reference: &str, unit: &str) -> Value {
    json!({"name": name, "reference": format!("op://{VAULT}/{reference}"), "units": [unit]})
}

pub fn the_secrets_of_a_host_come_through_the_official_core(machine: &Machine) {
    let items =
        [("OpenAI", "credential"), ("Datadog", "api key"), ("Cloudflare", "token"), ("Backblaze", "json")];
    let simulator = one_password(machine, account(&items));
    let config = json!({
        "secrets": [
            entry("openai-api-key", "OpenAI/credential", "op-dynamic.service"),
            entry("datadog-api-key", "Datadog/api key", "op-user.service"),
            entry("cloudflare-token", "Cloudflare/token", "op-web@*.service"),
            entry("backblaze-credentials.json", "Backblaze/json", "op-private.service"),
        ],
        "templates": [{"name": "opencode.env", "units": ["op-env.service"],
            "template": format!("OPENAI_API_KEY={{{{ op://{VAULT}/OpenAI/credential }}}}\n")}],
    });
    set_up_with(machine, &config);
    for (unit, name, more, expected) in [
        ("op-dynamic.service", "openai-api-key", "DynamicUser=yes", value("OpenAI")),
        ("op-user.service", "datadog-api-key", "User=daemon", value("Datadog")),
        ("op-web@blue.service", "cloudflare-token", "", value("Cloudflare")),
        ("op-private.service", "backblaze-credentials.json", "PrivateNetwork=yes", value("Backblaze")),
        ("op-env.service", "opencode.env", "", format!("OPENAI_API_KEY={}\n", value("OpenAI"))),
    ] {
        consumer(machine, &unit.replace("@blue", "@"), name, more);
        machine.systemctl(&["start", unit]).ok();
        assert_eq!(found(machine, unit), expected.into_bytes(), "{unit}");
    }
    assert_eq!(simulator.violations(), [""; 0]);
    nothing_shows_a_value(machine);
    let token = simulator.token();
    assert!(!machine.journal_text().contains(&token[..40]), "the token in the journal");
    let child = format!(
        "cd /proc/{}/task; tr '\\0' ' ' </proc/$(cat */children | tr -d ' ')/cmdline",
        worker(machine)
    );
    let child = machine.sh(&child).ok();
    assert_eq!(child, "/proc/self/exe fetch", "the core lives apart");
}

pub fn fifty_units_at_once_cost_the_fewest_requests(machine: &Machine) {
    let titles: Vec<String> = (1..=50).map(|number| format!("item-{number}")).collect();
    let items: Vec<(&str, &str)> = titles.iter().map(|title| (title.as_str(), "value")).collect();
    let simulator = one_password(machine, account(&items));
    let secrets: Vec<Value> = (1..=50)
        .map(|n| entry(&format!("key-{n}"), &format!("item-{n}/value"), &format!("storm-{n}.service")))
        .collect();
    set_up_with(machine, &json!({"secrets": secrets}));
    for n in 1..=50 {
        consumer(machine, &format!("storm-{n}.service"), &format!("key-{n}"), "");
    }
    // Signing in takes as long as it takes here for all of them to ask.
    simulator.server.fault("POST /api/v3/auth/start", 1, Fault::Delay(Duration::from_secs(4)));
    machine.sh("systemctl start $(printf 'storm-%s.service ' $(seq 50))").ok();
    for n in 1..=50 {
        assert_eq!(found(machine, &format!("storm-{n}.service")), value(&format!("item-{n}")).into_bytes());
    }
    // Four to sign in, then key set, vaults, items of the vault, and all fifty items in one batch.
    let requests = simulator.server.requests();
    assert_eq!(requests.len(), 8, "{requests:?}");
    assert_eq!(simulator.violations(), [""; 0]);
}

pub fn each_fault_at_a_units_start_refuses_it_and_says_why(machine: &Machine) {
    let simulator = one_password(machine, account(&[("OpenAI", "credential")]));
    let config =
        json!({"deadline": "2s", "secrets": [entry("key", "OpenAI/credential", "faulty@*.service")]});
    consumer(machine, "faulty@.service", "key", "");
    let item = "GET /api/v1/vault/";
    for (number, (on, fault, says)) in [
        ("POST /api/v3/auth/start", Fault::Status(401), "rejects the token"),
        ("POST /api/v3/auth/start", Fault::Reset, "cannot be reached"),
        (item, Fault::Limited(Some(60)), "limit on requests"),
        (item, Fault::Status(403), "may not read"),
        (item, Fault::Status(404), "there is no"),
        (item, Fault::Status(500), "out of order"),
        (item, Fault::Truncate, "cannot be reached"),
        (item, Fault::Garbage, "broke its contract"),
        (item, Fault::Hang, "did not answer"),
        (item, Fault::Delay(Duration::from_secs(10)), "did not answer"),
    ]
    .into_iter()
    .enumerate()
    {
        set_up_with(machine, &config);
        simulator.server.clear_faults();
        simulator.server.fault(on, usize::MAX, fault.clone());
        let unit = format!("faulty@{number}.service");
        machine.systemctl(&["start", &unit]).fails();
        let check = if says == "did not answer" { "deadline" } else { "provider" };
        assert_refused(machine, &unit, "key", check);
        let records = machine.journal(&[&format!("OPNIX_UNIT={unit}"), &format!("MESSAGE_ID={REFUSED}")]);
        let reason = records[0]["OPNIX_REASON"].as_str().unwrap_or_default();
        assert!(reason.contains(says), "{fault:?}: {reason}");
    }
    machine.systemctl(&["reset-failed"]).ok();
}

pub fn units_that_wait_for_1password_get_their_secret_when_it_is_back(machine: &Machine) {
    let simulator = one_password(machine, account(&[("OpenAI", "credential")]));
    set_up_with(
        machine,
        &json!({"deadline": "50s", "secrets": [entry("key", "OpenAI/credential", "patient@*.service")]}),
    );
    consumer(machine, "patient@.service", "key", "");
    simulator.server.fault("", usize::MAX, Fault::Reset);
    machine.sh("systemctl start --no-block patient@1.service patient@2.service").ok();
    machine.wait("several tries", || simulator.server.requests().len() > 3, LONG);
    // Across a crash too.
    machine.sh("systemctl kill --signal=KILL opnix.service").ok();
    let tries = simulator.server.requests().len();
    machine.wait("tries of the next instance", || simulator.server.requests().len() > tries + 1, LONG);
    assert_eq!(machine.show("patient@1.service", "ActiveState"), "activating");
    simulator.server.clear_faults();
    for unit in ["patient@1.service", "patient@2.service"] {
        machine.wait("the unit", || machine.show(unit, "ActiveState") == "active", LONG);
        assert_eq!(found(machine, unit), value("OpenAI").into_bytes());
    }
}

pub fn the_secrets_of_a_host_come_from_a_connect_server(machine: &Machine) {
    let items =
        [("OpenAI", "credential"), ("Datadog", "api key"), ("Cloudflare", "token"), ("Backblaze", "json")];
    let tls = Tls::new();
    let simulator = Connect::start(machine.listen(), Some(&tls), account(&items));
    machine.write(TOKEN, connect::TOKEN, "0600");
    machine.write("/etc/opnix/authority.pem", &tls.pem, "0644");
    let host = format!("https://{}", simulator.server.address());
    let config = json!({
        "provider": {"kind": "connect", "host": host, "authority": "/etc/opnix/authority.pem"},
        "deadline": "3s",
        "secrets": [
            entry("openai-api-key", "OpenAI/credential", "co-dynamic.service"),
            entry("datadog-api-key", "Datadog/api key", "co-user.service"),
            entry("cloudflare-token", "Cloudflare/token", "co-web@*.service"),
            entry("backblaze-credentials.json", "Backblaze/json", "co-private.service"),
        ],
        "templates": [{"name": "opencode.env", "units": ["co-env.service"],
            "template": format!("OPENAI_API_KEY={{{{ op://{VAULT}/OpenAI/credential }}}}\n")}],
    });
    set_up_with(machine, &config);
    // What goes wrong at first ends in a refusal, and is forgotten when it is over.
    consumer(machine, "co-dynamic.service", "openai-api-key", "DynamicUser=yes");
    for (fault, says) in [
        (Fault::Status(401), "rejects the token"),
        (Fault::Status(500), "out of order"),
        (Fault::Reset, "cannot be reached"),
        (Fault::Truncate, "cannot be reached"),
        (Fault::Garbage, "no Connect server"),
        (Fault::Limited(Some(600)), "limit on requests is reached until"),
    ] {
        machine.begin();
        simulator.server.clear_faults();
        simulator.server.fault("", usize::MAX, fault);
        machine.systemctl(&["start", "co-dynamic.service"]).fails();
        assert_refused(machine, "co-dynamic.service", "openai-api-key", "provider");
        assert!(machine.journal_text().contains(says), "{says}: {}", machine.journal_text());
    }
    simulator.server.clear_faults();
    // But who says when to come back is not asked before then.
    set_up_with(machine, &config);
    for (unit, name, more, expected) in [
        ("co-dynamic.service", "openai-api-key", "DynamicUser=yes", value("OpenAI")),
        ("co-user.service", "datadog-api-key", "User=daemon", value("Datadog")),
        ("co-web@blue.service", "cloudflare-token", "", value("Cloudflare")),
        ("co-private.service", "backblaze-credentials.json", "PrivateNetwork=yes", value("Backblaze")),
        ("co-env.service", "opencode.env", "", format!("OPENAI_API_KEY={}\n", value("OpenAI"))),
    ] {
        consumer(machine, &unit.replace("@blue", "@"), name, more);
        machine.systemctl(&["start", unit]).ok();
        assert_eq!(found(machine, unit), expected.into_bytes(), "{unit}");
    }
    nothing_shows_a_value(machine);
    assert!(!machine.journal_text().contains(connect::TOKEN), "the token in the journal");
}

pub fn the_readmes_installation_ends_in_a_unit_with_its_secret(machine: &Machine) {
    let readme = include_str!("../../README.md");
    let commands =
        readme.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("its commands");
    let simulator = one_password(machine, account(&[("OpenAI", "credential")]));
    machine.sh("rm -rf /usr/lib/opnix /etc/opnix /tmp/opnix-core").ok();
    set_up_with(machine, &json!({"secrets": [entry("key", "OpenAI/credential", "installed.service")]}));
    machine.systemctl(&["stop", "opnix.socket"]).ok();
    let mut ran = 0;
    for command in commands.lines().map(|line| line.split("  #").next().unwrap_or(line).trim()) {
        match command {
            // It asks at a terminal; here it is given.
            "opnix token set" => drop(machine.sh(&format!("echo {} | {command}", simulator.token())).ok()),
            // The machine has no network; what it would get is on this one.
            "pip download onepassword-sdk==0.4.2 --no-deps --only-binary=:all: --python-version=3.13 --dest /tmp/opnix-core" =>
            {
                let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/core");
                let files = std::fs::read_dir(directory).expect("tests/run puts it there");
                let mut paths = files.map(|file| file.expect("a file").path());
                let wheel = paths.find(|path| path.extension().is_some_and(|extension| extension == "whl"));
                let wheel = wheel.expect("tests/run puts it there");
                let name = wheel.file_name().and_then(|name| name.to_str()).expect("a name");
                machine.write(
                    &format!("/tmp/opnix-core/{name}"),
                    std::fs::read(&wheel).expect("the wheel"),
                    "0644",
                );
            }
            command => drop(machine.sh(command).ok()),
        }
        ran += 1;
    }
    assert_eq!(ran, 4);
    consumer(machine, "installed.service", "key", "");
    machine.systemctl(&["start", "installed.service"]).ok();
    assert_eq!(found(machine, "installed.service"), value("OpenAI").into_bytes());
    machine.systemctl(&["disable", "opnix.socket"]).ok();
}

pub fn a_restart_in_the_middle_of_a_fetch_loses_no_unit(machine: &Machine) {
    let simulator = one_password(machine, account(&[("OpenAI", "credential")]));
    let secrets = [entry("key", "OpenAI/credential", "between@*.service")];
    set_up_with(machine, &json!({"deadline": "50s", "secrets": secrets}));
    consumer(machine, "between@.service", "key", "");
    simulator.server.fault("POST /api/v3/auth/start", usize::MAX, Fault::Hang);
    machine.sh("systemctl start --no-block between@1.service between@2.service").ok();
    let asked =
        || simulator.server.requests().iter().filter(|request| request.contains("auth/start")).count();
    machine.wait("the fetch", || asked() == 1, LONG);
    machine.systemctl(&["restart", "opnix.service"]).ok();
    machine.wait("the fetch of the next instance", || asked() == 2, LONG);
    for unit in ["between@1.service", "between@2.service"] {
        // Others may be what an earlier test left behind, which the mirror starts when it can.
        let refused = machine.journal(&[&format!("MESSAGE_ID={REFUSED}"), &format!("OPNIX_UNIT={unit}")]);
        assert!(refused.is_empty(), "{refused:?}");
    }
    // The next one goes on when the connection breaks off.
    simulator.server.clear_faults();
    machine.sh("systemctl kill --signal=KILL opnix.service").ok();
    for unit in ["between@1.service", "between@2.service"] {
        machine.wait("the unit", || machine.show(unit, "ActiveState") == "active", LONG);
        assert_eq!(found(machine, unit), value("OpenAI").into_bytes());
    }
}
