//! Files in the repository that are made from the code. `OPNIX_BLESS=1 cargo test --locked --test repository generated` makes them anew.

use std::fs;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::roff::{Roff, roman};
use opnix::internals::statuses;

use crate::docs::times;
use crate::root;

#[allow(dead_code)]
#[path = "../../examples/fleet.rs"]
mod fleet;

fn agrees(path: &str, made: &str) {
    let path = root().join(path);
    if std::env::var_os("OPNIX_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "{} is out of date: OPNIX_BLESS=1 cargo test --locked --test repository generated",
        path.display()
    );
}

#[test]
fn the_schema_is_the_one_that_the_code_makes() {
    agrees("docs/secrets.schema.json", &format!("{:#}\n", opnix::internals::config::schema()));
}

#[test]
fn every_key_of_the_schema_is_described() {
    fn walk(value: &serde_json::Value, count: &mut usize) {
        if let Some(properties) = value.get("properties").and_then(|properties| properties.as_object()) {
            for (key, property) in properties {
                assert!(property.get("description").is_some(), "{key} has no description");
                *count += 1;
            }
        }
        match value {
            serde_json::Value::Object(members) => members.values().for_each(|member| walk(member, count)),
            serde_json::Value::Array(elements) => elements.iter().for_each(|element| walk(element, count)),
            _ => {}
        }
    }
    let mut count = 0;
    walk(&opnix::internals::config::schema(), &mut count);
    assert!(count > 30, "{count}");
}

#[test]
fn the_man_pages_are_those_that_the_code_makes() {
    let command = opnix::internals::Command::command();
    let page = |command: clap::Command, path: &str| {
        let mut text = Vec::new();
        clap_mangen::Man::new(command).render(&mut text).unwrap();
        if let Some(statuses) = statuses::of(path) {
            let mut section = Roff::new();
            section.control("SH", ["EXIT STATUS"]);
            for (exit, meaning) in statuses {
                section.control("TP", []).text([roman(format!("{}", exit as u8))]).text([roman(meaning)]);
            }
            section.to_writer(&mut text).unwrap();
        }
        String::from_utf8(text).unwrap()
    };
    // A page for each subcommand that people use, and for those below it.
    let mut open: Vec<(String, clap::Command)> = vec![("opnix".into(), command.clone())];
    while let Some((parent, command)) = open.pop() {
        for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
            let name: &'static str = format!("{parent}-{}", subcommand.get_name()).leak();
            let path = name.trim_start_matches("opnix-").replace('-', " ");
            agrees(&format!("docs/man/{name}.1"), &page(subcommand.clone().name(name), &path));
            assert!(
                subcommand.has_subcommands() || statuses::of(&path).is_some(),
                "{path}: src/cli/statuses.rs does not say how it ends"
            );
            open.push((name.into(), subcommand.clone()));
        }
    }
    agrees("docs/man/opnix.1", &page(command, ""));
}

#[test]
fn the_completions_are_those_that_the_code_makes() {
    for (shell, name) in [(Shell::Bash, "opnix.bash"), (Shell::Zsh, "_opnix"), (Shell::Fish, "opnix.fish")] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut opnix::internals::Command::command(), "opnix", &mut text);
        agrees(&format!("docs/completions/{name}"), &String::from_utf8(text).unwrap());
    }
}

#[test]
fn the_tables_of_the_reference_are_those_that_the_code_makes() {
    let text = fs::read_to_string(root().join("docs/reference.md")).unwrap();
    let text = with_table(&text, "times", &times::times());
    let text = with_table(&text, "limits", &times::limits());
    agrees("docs/reference.md", &with_table(&text, "exit statuses", &statuses::table()));
}

/// What stands in a document between `<!-- NAME -->` and the next empty line.
fn with_table(document: &str, name: &str, table: &str) -> String {
    let mark = format!("<!-- {name} -->\n");
    let (before, after) = document.split_once(&mark).unwrap();
    let (_, after) = after.split_once("\n\n").unwrap();
    format!("{before}{mark}{table}\n{after}")
}

#[test]
fn the_fleets_of_the_documentation_are_those_of_the_simulation() {
    let scale = fs::read_to_string(root().join("docs/scale.md")).unwrap();
    let scale = with_table(&scale, "fleet: default budget", &fleet::defaults());
    agrees("docs/scale.md", &with_table(&scale, "fleet: shared limit", &fleet::shared()));
    agrees("docs/fleet.svg", &fleet::plot());
}
