//! Files in the repository that are made from the code. `OPNIX_BLESS=1 cargo test --locked --test repository generated` makes them anew.

use std::fs;

use clap::CommandFactory;
use clap_complete::Shell;

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
    let page = |command: clap::Command| {
        let mut text = Vec::new();
        clap_mangen::Man::new(command).render(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    };
    // A page for each subcommand that people use, and for those below it.
    let mut open: Vec<(String, clap::Command)> = vec![("opnix".into(), command.clone())];
    while let Some((parent, command)) = open.pop() {
        for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
            let name: &'static str = format!("{parent}-{}", subcommand.get_name()).leak();
            agrees(&format!("docs/man/{name}.1"), &page(subcommand.clone().name(name)));
            open.push((name.into(), subcommand.clone()));
        }
    }
    agrees("docs/man/opnix.1", &page(command));
    let example = fs::read_to_string(root().join("docs/secrets.json.example")).unwrap();
    let schema = opnix::internals::config::schema();
    agrees("docs/man/secrets.json.5", &crate::secrets_page::page(&schema, &example));
}

#[test]
fn each_key_of_the_configuration_is_in_its_page_and_man_renders_it() {
    let page = root().join("docs/man/secrets.json.5");
    let rendered = std::process::Command::new("man")
        .args(["--warnings=w", "-E", "UTF-8", "-P", "cat", "-l"])
        .arg(&page)
        .env("MANWIDTH", "200")
        .output();
    // A host need not have man.
    let Ok(rendered) = rendered else { return };
    assert_eq!(String::from_utf8_lossy(&rendered.stderr), "", "groff warns");
    let text = String::from_utf8(rendered.stdout).unwrap();
    fn walk(value: &serde_json::Value, text: &str) {
        for (key, _) in value["properties"].as_object().into_iter().flatten() {
            let is_there = text.lines().any(|line| line.trim_start().starts_with(&format!("{key} (")));
            assert!(is_there || key == "$schema", "{key}: {text}");
        }
        value["$defs"].as_object().into_iter().flatten().for_each(|(_, definition)| walk(definition, text));
    }
    walk(&opnix::internals::config::schema(), &text);
    assert!(text.contains("op://Vault/Item/field"), "{text}");
}

#[test]
fn the_completions_are_those_that_the_code_makes() {
    for (shell, name) in [(Shell::Bash, "opnix.bash"), (Shell::Zsh, "_opnix"), (Shell::Fish, "opnix.fish")] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut for_people(), "opnix", &mut text);
        agrees(&format!("docs/completions/{name}"), &with_names(shell, String::from_utf8(text).unwrap()));
    }
}

/// Without what nobody types.
fn for_people() -> clap::Command {
    let command = opnix::internals::Command::command();
    let visible = command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()).cloned();
    clap::Command::new("opnix")
        .version(env!("CARGO_PKG_VERSION"))
        .args(command.get_arguments().cloned())
        .subcommands(visible)
}

/// With the names of the configuration for arguments that are one.
fn with_names(shell: Shell, text: String) -> String {
    let names = |name: &str| fs::read_to_string(root().join("src/cli/completions").join(name)).unwrap();
    match shell {
        Shell::Bash => {
            let (script, end) = text.split_at(text.rfind("\nif [[ ").unwrap());
            assert!(end.contains("complete -F _opnix"));
            script.to_owned() + &names("names.bash")
        }
        Shell::Fish => text + &names("names.fish"),
        _ => {
            let mut changed =
                text.replacen("\n_opnix() {", &format!("\n{}_opnix() {{", names("names.zsh")), 1);
            for (argument, completer) in [
                ("':unit -- ", "_opnix_units"),
                ("'::unit -- ", "_opnix_units"),
                ("'::credential -- ", "_opnix_credentials"),
                ("'*::names -- ", "_opnix_secrets"),
            ] {
                let at = changed.find(argument).unwrap();
                let end = at + changed[at..].find(":_default'").unwrap();
                changed.replace_range(end..end + ":_default'".len(), &format!(":{completer}'"));
            }
            changed
        }
    }
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
