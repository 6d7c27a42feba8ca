//! The simulators judged by 1Password's own clients, which know nothing of opnix. `tests/run` installs them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::simulators::account::{Account, Field, FieldValue, Item};
use crate::simulators::connect::{self, Connect};
use crate::simulators::http::Fault;
use crate::simulators::service_account::ServiceAccount;
use serde_json::{Value, json};

/// What a script reports that was given `input`.
fn judged_by(program: &str, script: &str, input: &Value) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let clients = root.join("target/clients");
    assert!(clients.exists(), "{} is missing: tests/run puts it there", clients.display());
    let mut judge = Command::new(program)
        .arg(root.join("tests/simulated/official").join(script))
        .env("PYTHONPATH", clients.join("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NODE_PATH", clients.join("node_modules"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    judge.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = judge.wait_with_output().unwrap();
    assert!(output.status.success(), "{script} failed");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_python_sdk_gets_everything_from_the_service_account_simulator() {
    let account = Account::everything();
    let expected = account.expected();
    let simulator = ServiceAccount::local(account.clone());
    let input = json!({"token": simulator.token(), "references": expected.as_object().unwrap().keys().collect::<Vec<_>>()});
    let seen = judged_by("python3", "service_account.py", &input);
    assert!(expected.as_object().unwrap().len() > 100);
    assert_eq!(seen["resolved"], expected);
    let titles: Value = account
        .vaults
        .iter()
        .map(|vault| {
            let items = vault.items.iter().filter(|item| !item.archived).map(|item| item.title.clone());
            (vault.name.clone(), items.collect::<Vec<_>>().into())
        })
        .collect::<serde_json::Map<String, Value>>()
        .into();
    assert_eq!(seen["titles"], titles);
    let items = account.vaults.iter().flat_map(|vault| &vault.items);
    let files = items.flat_map(|item| &item.files).map(|file| (file.name.clone(), json!(file.content)));
    assert_eq!(seen["files"], Value::Object(files.collect()));
    // One by one and in a batch.
    assert_eq!(seen["items"], seen["batch"]);
    assert_eq!(simulator.violations(), [""; 0]);
}

#[test]
fn the_python_sdk_meets_faults_as_it_would_at_1password() {
    let simulator = ServiceAccount::local(Account::everything());
    let token = simulator.token();
    let ask = || {
        judged_by("python3", "service_account.py", &json!({"token": token, "references": []}))["failure"]
            .clone()
    };
    simulator.server.fault("GET /api/v1/vaults", usize::MAX, Fault::Limited(Some(60)));
    assert_eq!(ask()["kind"], "RateLimitExceededException");
    simulator.server.clear_faults();
    simulator.server.fault("GET /api/v1/vaults", usize::MAX, Fault::Status(403));
    assert!(ask()["message"].as_str().unwrap().contains("right permissions"));
    simulator.server.clear_faults();
    simulator.revoke(true);
    assert!(ask()["message"].as_str().unwrap().contains("not authenticated"));
    simulator.revoke(false);
    assert_eq!(ask(), Value::Null);
    assert_eq!(simulator.violations(), [""; 0]);
}

/// All of an account, as the scripts report what they got from a Connect server: what is archived, too.
fn all_of(account: &Account) -> Value {
    let mut seen = json!({});
    for vault in &account.vaults {
        let mut items = json!({});
        for item in &vault.items {
            let files: serde_json::Map<String, Value> =
                item.files.iter().map(|file| (file.name.clone(), json!(file.content))).collect();
            let entry = json!({"fields": fields_of(item), "files": files});
            match items[&item.title].as_array_mut() {
                Some(same) => same.push(entry),
                None => items[&item.title] = json!([entry]),
            }
        }
        seen[&vault.name] = items;
    }
    seen
}

fn fields_of(item: &Item) -> Vec<Value> {
    let text = |value: &FieldValue| match value {
        FieldValue::Text(text) | FieldValue::Concealed(text) => text.clone(),
        FieldValue::OneTimePassword(text) | FieldValue::SshKey(text) => text.clone(),
        FieldValue::Date(seconds) => seconds.to_string(),
        FieldValue::MonthYear(month) => month.to_string(),
        FieldValue::Address { street, city, state, zip, country } => {
            format!("{street}, {city}, {state}, {zip}, {country}")
        }
    };
    let label = |field: &Field| Some(field.label.clone()).filter(|label| !label.is_empty());
    let fields = item.fields.iter().map(|field| json!([label(field), text(&field.value)]));
    fields.chain([json!(["notesPlain", item.notes])]).collect()
}

#[test]
fn the_python_and_javascript_clients_get_everything_from_the_connect_simulator() {
    let account = Account::everything();
    let simulator = Connect::local(account.clone());
    let input = json!({"host": simulator.url(), "token": connect::TOKEN});
    let expected = all_of(&account);
    assert_eq!(judged_by("python3", "connect.py", &input), expected);
    assert_eq!(judged_by("node", "connect.cjs", &input), expected);
}
