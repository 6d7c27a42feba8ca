//! Varlink's own Python client is the judge of the interface.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::Host;

/// Varlink's Python client, as `tests/run` installs it.
fn judge(script: &str, socket: &Path) -> String {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients/python");
    assert!(clients.join("varlink").exists(), "varlink's Python client is missing: tests/run puts it there");
    let judge = Command::new("python3")
        .arg("-c")
        .arg(script)
        .arg(format!("unix:{}", socket.display()))
        .env("PYTHONPATH", clients)
        .output()
        .unwrap();
    assert!(judge.status.success(), "{}", String::from_utf8_lossy(&judge.stderr));
    String::from_utf8(judge.stdout).unwrap()
}

#[test]
fn the_interface_is_the_documented_one() {
    let host = Host::new(true);
    let text = judge(
        "
import sys, varlink
with varlink.Client(address=sys.argv[1]) as client:
    with client.open('org.varlink.service') as service:
        print(service.GetInterfaceDescription('io.opnix')['description'], end='')
",
        &host.daemon.control(),
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/io.opnix.varlink");
    // They may differ in white space only.
    let words = |text: &str| -> Vec<String> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ").replace(',', " , ");
        spaced.split_whitespace().map(str::to_owned).collect()
    };
    let documented = fs::read_to_string(path).unwrap();
    assert!(words(&documented) == words(&text), "the implementation's is:\n{text}");
}

#[test]
fn varlinks_own_client_is_answered() {
    let host = Host::new(true);
    assert!(host.daemon.ask("openai-api-key").is_some());
    let text = judge(
        "
import json, sys, varlink
with varlink.Client(address=sys.argv[1]) as client, client.open('io.opnix') as opnix:
    print(json.dumps(opnix.Status()))
    print(json.dumps(opnix.Explain(unit='test.service', credential='openai-api-key')))
    print(json.dumps(opnix.Refresh(names=['openai-api-key'])))
    try:
        opnix.Refresh(names=['nope'])
    except varlink.VarlinkError as error:
        print(json.dumps([error.error(), error.parameters()]))
    try:
        opnix.Explain(unit='no unit', credential='x')
    except varlink.VarlinkError as error:
        print(json.dumps([error.error(), error.parameters()]))
",
        &host.daemon.control(),
    );
    let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [status, explanation, refreshed, unknown, invalid] = &answers[..] else { panic!("{text}") };
    assert_eq!(status["secrets"][0]["state"], "fresh");
    assert_eq!((&explanation["granted"], &explanation["name"]), (&json!(true), &json!("openai-api-key")));
    assert_eq!(refreshed["secrets"][0]["outcome"], "unchanged");
    assert_eq!(*unknown, json!(["io.opnix.UnknownSecret", {"name": "nope"}]));
    assert_eq!((&invalid[0], &invalid[1]["name"]), (&json!("io.opnix.InvalidName"), &json!("no unit")));
}
