//! The shells complete names of the configuration, as real shells do it; and say nothing where it cannot be read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::root;

const CONFIGURATION: &str = r#"{"secrets": [
    {"name": "api key", "reference": "op://V/I/f", "units": [{"unit": "app.service", "credential": "api-key"}, "web@*.service"]},
    {"name": "other", "reference": "op://V/I/g", "units": ["app.service", "db.service"]}]}"#;
/// What is typed before the tabulator, and what bash then has to offer.
const TYPED: [(&[&str], &str); 9] = [
    (&["explain", ""], "[app.service][db.service]"),
    (&["explain", "ap"], "[app.service]"),
    (&["explain", "app.service", ""], "[api-key][other]"),
    (&["explain", "web@1.service", ""], "[api\\ key]"),
    (&["explain", "--config", "/x", "app.service", "a"], "[api-key]"),
    (&["explain", "--co"], "[--config][--control]"),
    (&["refresh", "other", "a"], "[api\\ key]"),
    (&["status", "--json", "d"], "[db.service]"),
    (&["sche"], "[schema]"),
];

/// A directory with a program `opnix` that has this file for its configuration.
fn place(name: &str, configuration: Option<&str>) -> PathBuf {
    let place =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("completions-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).unwrap();
    let file = place.join("secrets.json");
    configuration.into_iter().for_each(|text| fs::write(&file, text).unwrap());
    let program = place.join("opnix");
    let script =
        format!("#!/bin/sh\nexec {} \"$@\" --config {}\n", env!("CARGO_BIN_EXE_opnix"), file.display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    place
}

fn run(place: &Path, shell: &str, arguments: &[&str]) -> String {
    let path = format!("{}:{}", place.display(), std::env::var("PATH").unwrap());
    let output = Command::new(shell).args(arguments).env("PATH", path).output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

fn in_bash(place: &Path, typed: &[&str]) -> String {
    let script = format!(
        "source {}; COMP_WORDS=(opnix \"$@\"); COMP_CWORD=$#; COMPREPLY=(); \
         f=$(complete -p opnix | sed 's/.*-F \\([^ ]*\\).*/\\1/'); $f opnix \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; \
         [ ${{#COMPREPLY[@]}} = 0 ] || printf '[%s]' \"${{COMPREPLY[@]}}\"",
        root().join("docs/completions/opnix.bash").display()
    );
    run(place, "bash", &[&["--norc", "-c", &script, "bash"], typed].concat())
}

fn in_fish(place: &Path, typed: &str) -> Vec<String> {
    let script = format!(
        "source {}; complete -C 'opnix {typed}'",
        root().join("docs/completions/opnix.fish").display()
    );
    run(place, "fish", &["--no-config", "-c", &script]).lines().map(str::to_owned).collect()
}

#[test]
fn names_of_the_configuration_are_completed() {
    let place = place("good", Some(CONFIGURATION));
    for (typed, offered) in TYPED {
        assert_eq!(in_bash(&place, typed), offered, "{typed:?}");
    }
    assert_eq!(in_fish(&place, "explain "), ["app.service", "db.service"]);
    assert_eq!(in_fish(&place, "explain app.service "), ["api-key", "other"]);
    assert_eq!(in_fish(&place, "refresh "), ["api key", "other"]);
    fs::remove_dir_all(place).unwrap();
}

#[test]
fn without_a_configuration_that_can_be_read_nothing_is_said() {
    for (name, configuration) in
        [("none", None), ("cut", Some("{")), ("faulty", Some(r#"{"secrets": [{"name": "a"}]}"#))]
    {
        let place = place(name, configuration);
        for typed in
            [&["explain", ""][..], &["explain", "app.service", ""], &["refresh", ""], &["status", ""]]
        {
            assert_eq!(in_bash(&place, typed), "", "{name}: {typed:?}");
        }
        fs::remove_dir_all(place).unwrap();
    }
    // Nobody ever writes into this one.
    let place = place("fifo", None);
    assert!(Command::new("mkfifo").arg(place.join("secrets.json")).status().unwrap().success());
    let began = std::time::Instant::now();
    assert_eq!(in_bash(&place, &["explain", ""]), "");
    assert!(began.elapsed().as_secs() < 5);
    fs::remove_dir_all(place).unwrap();
}
