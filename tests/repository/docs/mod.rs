//! All that the documentation shows is run: configurations, unit files, commands.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

mod alerts;
mod commands;
mod json_schema;
mod schema;
pub mod times;
mod units;

use crate::root;

fn documents() -> Vec<PathBuf> {
    let files = |directory| fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let all = files(root().to_owned()).chain(files(root().join("docs")));
    all.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// The examples in one language, each with the document that shows it.
fn examples(language: &str) -> Vec<(PathBuf, String)> {
    let begin = format!("```{language}\n");
    let mut found = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let fences = text.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
        found.extend(fences.map(|example| (document.clone(), example)));
    }
    found
}

#[test]
fn every_link_in_the_documentation_leads_somewhere() {
    let is_of_heading = |text: &str, fragment: &str| {
        let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            title.replace(|c: char| !c.is_alphanumeric() && c != '-' && c != '_', "")
        });
        headings.into_iter().any(|heading| heading == fragment)
    };
    let mut seen = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("https://")) {
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: there is no {link}", document.display());
            let found = fragment.is_empty() || is_of_heading(&fs::read_to_string(target).unwrap(), fragment);
            assert!(found, "{}: there is no {link}", document.display());
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn every_file_that_the_documentation_names_is_there() {
    let rooms = ["src/", "tests/", "systemd/", "docs/", "nixos-module/", "benches/", "examples/", ".ci/"];
    let mut seen = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let quoted = text.split('`').skip(1).step_by(2);
        let is_path = |name: &&str| {
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
            plain && rooms.iter().any(|room| name.starts_with(room))
        };
        for name in quoted.filter(is_path) {
            assert!(root().join(name).exists(), "{}: there is no {name}", document.display());
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn every_cargo_command_builds_what_the_lock_file_says() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for command in ["cargo run", "cargo build", "cargo test", "cargo bench"] {
            for rest in text.split(command).skip(1) {
                let rest = rest.split(['`', '\n']).next().unwrap();
                assert!(rest.contains("--locked"), "{}: {command}{rest}", document.display());
            }
        }
    }
}

fn configurations() -> Vec<(PathBuf, String)> {
    examples("json").into_iter().filter(|(_, example)| example.contains("\"secrets\"")).collect()
}

fn readme_configuration() -> String {
    let of_readme = |(document, _): &(PathBuf, String)| document.ends_with("README.md");
    configurations().into_iter().find(of_readme).expect("the README shows a configuration").1
}

#[test]
fn every_configuration_in_the_documentation_is_valid() {
    let configurations = configurations();
    assert!(configurations.len() >= 2, "the README and docs/configuration.md show one each");
    for (number, (document, example)) in configurations.iter().enumerate() {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("docs-{number}.json"));
        fs::write(&file, example).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_opnix"))
            .args(["check", "--config"])
            .arg(&file)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", document.display());
    }
}

#[test]
fn the_example_of_a_configuration_that_is_installed_is_valid() {
    let example = root().join("docs/secrets.json.example");
    let output =
        Command::new(env!("CARGO_BIN_EXE_opnix")).args(["check", "--config"]).arg(example).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stderr, b"", "nor is there a warning");
}

#[test]
fn the_vault_file_in_the_documentation_is_read() {
    let (_, vault) =
        examples("json").into_iter().find(|(_, example)| example.contains("\"vaults\"")).unwrap();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.join("docs-vault.json");
    fs::write(&path, vault).unwrap();
    Command::new("chmod").arg("600").arg(&path).status().unwrap();
    let local = opnix::internals::Local::new(Path::new("docs-vault.json"), None, directory);
    let provider = opnix::internals::Provider::Local(local);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let found = runtime.block_on(
        provider.fetch_all(&["op://Vault/App/prod/token".parse().unwrap()], Duration::from_secs(20)),
    );
    assert_eq!(found[0].as_ref().unwrap().expose(), b"made-up");
}

#[test]
fn the_demo_shows_what_it_should() {
    let output = Command::new(env!("CARGO_BIN_EXE_opnix")).arg("demo").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.matches("refused: ").count(), 2, "{text}");
    assert!(text.contains("the peer's name is forged"), "{text}");
}
