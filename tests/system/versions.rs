//! What is in one item changes together, also while it is edited.

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::opnix::*;

const FIELDS: usize = 8;
const STARTS: usize = 60;

/// Edits the item, once or without end: all of its fields have the number of the version.
const EDITOR: &str = "
import json, os, sys, time
vault = '/run/opnix-vault/vault.json'
status = os.stat(vault)
version = int(sys.argv[1])
while True:
    version += 1
    fields = [{'label': f'f{n}', 'value': f'version {version}'} for n in range(8)]
    with open(vault + '.new', 'w') as new:
        json.dump({'vaults': [{'name': 'Vault', 'items': [{'title': 'Pair', 'fields': fields}]}]}, new)
    os.chown(vault + '.new', status.st_uid, status.st_gid)
    os.chmod(vault + '.new', 0o640)
    os.rename(vault + '.new', vault)
    if len(sys.argv) > 2: break
    time.sleep(0.1)
";

pub fn the_fields_of_an_item_are_of_one_version_in_each_start_and_text(machine: &Machine) {
    forget_files(machine);
    set_up(machine, &[], &[("made-up", value("made-up"))], "5s");
    let names: Vec<String> = (0..FIELDS).map(|number| format!("f{number}")).collect();
    // Some are asked for at each start, others are kept and fetched anew all the time.
    let secrets: Vec<Value> = ["never", "memory"]
        .iter()
        .flat_map(|keep| {
            names.iter().map(move |name| {
                json!({"name": format!("{keep}-{name}"), "reference": format!("op://Vault/Pair/{name}"), "cache": keep,
                    "units": [format!("{keep}.service")]})
            })
        })
        .collect();
    let text: String = names.iter().map(|name| format!("{{{{ op://Vault/Pair/{name} }}}}\n")).collect();
    let config = |of: &str| {
        let secrets: Vec<&Value> = secrets
            .iter()
            .filter(|secret| secret["name"].as_str().is_some_and(|name| name.starts_with(of)))
            .collect();
        json!({"provider": {"kind": "local", "path": VAULT}, "deadline": "5s", "secrets": secrets,
            "templates": [{"name": "text", "template": text, "path": "text", "cache": of, "units": [format!("{of}.service")]}]})
    };
    let mut editor = None;
    for keep in ["never", "memory"] {
        machine.write("/etc/opnix/secrets.json", config(keep).to_string(), "0644");
        let loads: String = names
            .iter()
            .map(|name| format!("LoadCredential={keep}-{name}:/run/opnix/creds.sock\n"))
            .collect();
        machine.unit(
            &format!("{keep}.service"),
            &format!(
                "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\n{loads}LoadCredential=text:/run/opnix/creds.sock\n\
                 ExecStart=sh -c 'cd %d; {{ for n in {keep}-f*; do cat $$n; echo; done; cat text; }} | sort -u | tr \"\\n\" \";\" >>/run/versions; echo >>/run/versions'\n"
            ),
        );
        machine.sh("rm -f /run/versions; systemctl restart opnix.service").ok();
        editor.get_or_insert_with(|| machine.spawn(&["python3", "-c", EDITOR, "0"]));
        machine.wait("the item", || machine.sh(&format!("grep -c Pair {VAULT} || true")).ok() == "1", LONG);
        let refreshing = (keep == "memory")
            .then(|| machine.spawn(&["sh", "-c", "while :; do opnix refresh >/dev/null 2>&1 || true; done"]));
        let mut started = 0;
        for _ in 0..STARTS {
            started += usize::from(machine.systemctl(&["start", &format!("{keep}.service")]).code == Some(0));
        }
        drop(refreshing);
        let seen = machine.sh("cat /run/versions").ok();
        let seen: Vec<&str> = seen.lines().collect();
        let refused =
            machine.journal(&[&format!("MESSAGE_ID={REFUSED}"), &format!("OPNIX_UNIT={keep}.service")]);
        for record in &refused {
            let is_of_a_text =
                record["MESSAGE"].as_str().is_some_and(|said| said.contains("not of one version"));
            assert!(is_of_a_text || record["OPNIX_CHECK"] == "version", "{}", record["MESSAGE"]);
        }
        assert_eq!(seen.len(), started);
        for versions in &seen {
            assert_eq!(versions.matches(';').count(), 1, "{keep}: {versions}");
        }
        assert!(started > 0, "{keep}: {started} started, {} were refused", refused.len());
        eprintln!("{keep}: {started} of {STARTS} started, {} refused", refused.len());
        // If nothing ever changed in between, this shows nothing.
        assert!(!refused.is_empty() || keep == "memory", "{keep}");
    }
    // A text in a file is of one version as well.
    machine.systemctl(&["start", "opnix-control.socket", "opnix-mirror.service"]).ok();
    machine.wait("the file", || machine.run(&["test", "-e", "/run/secrets/text"]).code == Some(0), LONG);
    for _ in 0..20 {
        machine.run(&["opnix", "refresh"]).ok();
        let text = machine.sh("sort -u /run/secrets/text | wc -l").ok();
        assert_eq!(text, "1");
    }
    drop(editor);
    machine.sh("systemctl stop opnix-mirror.service; rm -f /run/versions").ok();
}

/// A process of the unit, as systemd's at a start, asks for two fields of an item.
const ASKS_TWICE: &str = "
import os, socket, time
def ask(credential):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(f'\\0{os.getpid():x}/unit/twice.service/{credential}')
        s.connect('/run/opnix/creds.sock')
        s.shutdown(socket.SHUT_WR)
        answer = b''
        while part := s.recv(1 << 20): answer += part
    print(answer.decode() if len(answer) < 100 else len(answer), flush=True)
ask('f0')
while not os.path.exists('/run/twice.go'): time.sleep(0.05)
ask('f1')
";

/// The second one is at hand, and is of another version: that is decided where nothing is waited for.
pub fn a_field_at_hand_that_is_newer_than_what_the_start_was_given_is_refused(machine: &Machine) {
    forget_files(machine);
    set_up(machine, &[], &[("made-up", value("made-up"))], "5s");
    let secret = |name: &str| json!({"name": name, "reference": format!("op://Vault/Pair/{name}"), "units": ["twice.service"]});
    let config = json!({"provider": {"kind": "local", "path": VAULT}, "deadline": "5s", "secrets": [secret("f0"), secret("f1")]});
    machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
    let edit = |version: &str| machine.run(&["python3", "-c", EDITOR, version, "once"]).ok();
    edit("1");
    machine.sh("rm -f /run/twice.go; systemctl restart opnix.service; opnix refresh").ok();
    let worker_before = worker(machine);
    machine.write("/run/twice.py", ASKS_TWICE, "0644");
    machine.unit(
        "twice.service",
        "[Service]\nType=exec\nExecStart=python3 /run/twice.py\nStandardOutput=truncate:/run/twice.said\n",
    );
    let _ended = Ended::with(machine, "twice.service");
    machine.systemctl(&["start", "twice.service"]).ok();
    let said = || machine.sh("cat /run/twice.said || true").text();
    machine.wait("the first one", || said().contains("version 2"), LONG);
    edit("2");
    machine.run(&["opnix", "refresh"]).ok();
    machine.write("/run/twice.go", "", "0644");
    machine.wait("the second one", || said().lines().count() == 2, LONG);
    assert_eq!(said().lines().last(), Some("1048577"), "a refusal");
    assert_eq!(worker(machine), worker_before, "nothing died over it");
}
