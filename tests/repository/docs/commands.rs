//! The commands that the documentation shows say what it says they do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use opnix::internals::asker;

use super::{documents, examples, readme_configuration};
use crate::{files_below, root};

const LIMIT: Duration = Duration::from_secs(30);

/// A directory with the README's configuration, which its commands have in /etc/opnix/secrets.json.
fn host(name: &str) -> (PathBuf, PathBuf) {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&place).unwrap();
    let configuration = place.join("secrets.json");
    fs::write(&configuration, readme_configuration()).unwrap();
    (place, configuration)
}

/// What `opnix ARGUMENTS` says on the host of the README.
fn opnix(arguments: &str) -> String {
    let (_, configuration) = host("docs-commands");
    let output = Command::new(env!("CARGO_BIN_EXE_opnix"))
        .args(arguments.split_whitespace())
        .arg("--config")
        .arg(&configuration)
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    text.replace(configuration.to_str().unwrap(), opnix::internals::config::DEFAULT_PATH)
}

struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The warning that the service on the host of the README logs when another unit asks for a secret of opencode's.
fn logged_warning() -> String {
    let (place, configuration) = host("docs-service");
    let (socket, log) = (place.join("socket"), place.join("log"));
    let _ = fs::remove_file(&socket);
    let service = Command::new(env!("CARGO_BIN_EXE_opnix"))
        .args(["serve", "--trust-peer-names", "--config"])
        .arg(configuration)
        .arg("--socket")
        .arg(&socket)
        .stderr(Stdio::from(fs::File::create(&log).unwrap()))
        .spawn()
        .unwrap();
    let _service = Service(service);
    let end = Instant::now() + LIMIT;
    let answer = loop {
        match asker::ask(&socket, "intruder.service", "openai-api-key") {
            Ok(answer) => break answer,
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => panic!("no service: {error}; {}", fs::read_to_string(&log).unwrap()),
        }
    };
    assert_eq!(answer, None);
    // The answer does not wait for its record.
    loop {
        let log = fs::read_to_string(&log).unwrap();
        let mut lines = log.lines().filter(|line| line.contains("intruder.service"));
        if let Some((_, message)) = lines.find_map(|line| line.split_once("WARN ")) {
            break format!("{message}\n");
        }
        assert!(Instant::now() < end, "no record: {log}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a service says of itself that serves two secrets; times and account are made up.
fn status() -> String {
    const NOW: u64 = 1_800_000_000;
    let secret = |name: &str| json!({"name": name, "state": "fresh", "age": 181});
    let status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "provider": {"kind": "service_account", "health": "up", "next_refresh": NOW + 6192,
            "account": "machine@1passwordserviceaccounts.com at acme.1password.com"},
        "cache": {"sealed": true, "in_memory": 2, "sealable": 2, "on_disk": 2, "written_at": NOW - 181},
        "budget": {"hour": {"used": 8, "left": 92, "limit": 100}, "day": {"used": 14, "left": 186, "limit": 200}},
        "secrets": [secret("openai-api-key"), secret("datadog-api-key")],
        "waiting": 0,
    });
    let status = serde_json::from_value(status).unwrap();
    opnix::internals::status::describe(&status, SystemTime::UNIX_EPOCH + Duration::from_secs(NOW))
}

#[test]
fn every_command_in_the_documentation_says_what_is_shown() {
    let mut seen = Vec::new();
    for (document, example) in examples("console") {
        let commands = example.strip_prefix("$ ").expect("an example begins with a command").split("\n$ ");
        for session in commands {
            let (command, shown) = session.split_once('\n').unwrap();
            let said = match command.strip_prefix("opnix ") {
                Some("status") => status(),
                Some(arguments) => opnix(arguments),
                None if command == "journalctl -u opnix.service -p warning -o cat" => logged_warning(),
                None => panic!("{document:?}: nobody tests {command:?}"),
            };
            assert_eq!(said.trim_end(), shown.trim_end(), "{document:?}: {command}");
            seen.push(command.to_owned());
        }
    }
    assert!(seen.len() >= 2, "{seen:?}");
}

#[test]
fn every_example_is_of_a_kind_that_is_tested() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let fences = text.lines().filter_map(|line| line.strip_prefix("```"));
        for language in fences.step_by(2) {
            // Those for a shell are run on a machine, by tests/system: the README's (onepassword.rs) and the checklist's
            // (nixos.rs), and those of the metrics (metrics.rs) and for users (user_manager.rs). Those for Nix are evaluated by
            // tests/nixos.
            let tested = ["README.md", "validation-checklist.md", "metrics.md", "user-units.md"];
            assert!(
                language != "sh" || tested.iter().any(|name| document.ends_with(name)),
                "{document:?}: nobody runs it"
            );
            assert!(
                ["ini", "json", "console", "sh", "nix"].contains(&language),
                "{document:?}: nobody tests {language:?}"
            );
        }
    }
}

/// Commands that are shown, and cannot be run as they stand.
const NOT_RUN: [(&str, &str); 7] = [
    (
        "op service-account create my-server --vault \"Infrastructure Secrets:read_items\"",
        "takes a real account",
    ),
    (
        "nix run github:OWNER/opnix -- token set -path /root/.config/op/token",
        "takes the repository's address",
    ),
    (
        "opnix = { url = \"github:OWNER/opnix\"; inputs.nixpkgs.follows = \"nixpkgs\"; };",
        "a line of a flake, which takes that address",
    ),
    ("nixos-rebuild switch", "takes NixOS: switch::what_ran_before_ replays it"),
    ("nixos-rebuild switch --rollback", "the same"),
    ("opnix purge --dry-run", "purge:: runs it"),
    ("opnix purge --token", "purge:: runs it with --yes, where nobody can be asked"),
];

#[test]
fn what_is_shown_without_a_fence_is_known_not_to_be_run() {
    let mut seen = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for outside in text.split("```").step_by(2) {
            // After an empty line; else it goes on with an item of a list.
            for block in
                outside.split("\n\n").filter(|block| block.trim_start_matches('\n').starts_with("    "))
            {
                for line in block.lines().map(str::trim).filter(|line| !line.is_empty()) {
                    let known = NOT_RUN.iter().any(|(command, _)| *command == line);
                    assert!(
                        known,
                        "{document:?}: nobody runs {line:?}: put it into a fence, and have it run"
                    );
                    seen.push(line.to_owned());
                }
            }
        }
    }
    assert!(NOT_RUN.iter().all(|(command, _)| seen.iter().any(|line| line == command)), "{seen:?}");
}

#[test]
fn every_symptom_is_made_in_a_test_that_exists() {
    let mut tests = String::new();
    for path in ["tests/cli", "tests/nixos", "tests/system", "tests/simulated"]
        .iter()
        .flat_map(|directory| files_below(&root().join(directory)))
    {
        if path.extension().is_some_and(|extension| extension == "rs") {
            tests += &fs::read_to_string(path).unwrap();
        }
    }
    let exists = |name: &str| tests.contains(&format!("fn {name}("));
    let table = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let symptoms = table.lines().take_while(|line| !line.starts_with("## "));
    let rows: Vec<&str> = symptoms.filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 10, "{}", rows.len());
    for row in rows {
        let name = row.trim_end_matches(" |").rsplit("| ").next().unwrap().trim_matches('`');
        assert!(exists(name), "there is no test {name}: {row}");
    }
    // What somebody can and cannot do, and where that is seen.
    let model = fs::read_to_string(root().join("docs/threat-model.md")).unwrap();
    let table = model.lines().skip_while(|line| !line.starts_with("| who | can |")).skip(2);
    let rows: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 5, "{}", rows.len());
    for row in rows {
        for test in row.trim_end_matches(" |").rsplit("| ").next().unwrap().split(", ") {
            let name = test.trim_matches('`').rsplit("::").next().unwrap();
            assert!(exists(name), "there is no test {name}: {row}");
        }
    }
}
