//! Files in the repository that are made from the code. `OPNIX_BLESS=1 cargo test --locked --test repository generated` makes them anew.

use std::fs;
use std::process::Command;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::roff::{Roff, roman};
use opnix::internals::statuses;

use crate::docs::times;
use crate::{files_below, root};

#[allow(dead_code)]
#[path = "../../examples/fleet.rs"]
mod fleet;
#[allow(dead_code)]
#[path = "../../examples/pictures/main.rs"]
mod pictures;

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
        .env("LC_ALL", "C.UTF-8")
        .output();
    let rendered = rendered.unwrap_or_else(|error| panic!("man: {error}; tests/run installs man-db"));
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
    agrees("docs/fleet.svg", &fleet::plot(&fleet::theme::LIGHT));
    agrees("docs/fleet-dark.svg", &fleet::plot(&fleet::theme::DARK));
}

#[test]
fn the_pictures_are_those_that_the_example_draws() {
    for (name, svg) in pictures::pictures() {
        agrees(&format!("docs/pictures/{name}"), &svg);
    }
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    agrees(
        "docs/architecture.md",
        &with_table(&page, "what survives which death", &pictures::table_of_deaths()),
    );
    let tests = fs::read_to_string(root().join("tests/system/main.rs")).unwrap();
    for test in pictures::tests_of_deaths() {
        assert!(tests.contains(&format!("        {test},\n")), "there is no system test {test}");
    }
}

#[test]
fn no_picture_needs_anything_from_elsewhere_and_each_is_there_for_light_and_dark_pages() {
    for path in files_below(&root().join("docs/pictures")) {
        let svg = fs::read_to_string(&path).unwrap();
        let (name, shown) = (path.file_name().unwrap().to_str().unwrap(), path.display());
        assert!(
            !["href", "url(", "@import", "<script", "<image"].iter().any(|it| svg.contains(it)),
            "{shown}"
        );
        let stem = name.strip_suffix("-light.svg").or_else(|| name.strip_suffix("-dark.svg")).unwrap();
        for page in ["light", "dark"] {
            let other = format!("pictures/{stem}-{page}.svg");
            let pages = ["README.md", "docs/architecture.md", "docs/configuration.md", "docs/scale.md"];
            let shows = |page: &str| fs::read_to_string(root().join(page)).unwrap().contains(&other);
            assert!(pages.iter().any(|page| shows(page)), "no page shows {other}");
        }
    }
}

/// What the demo says where no service manager is at hand, with everything that is another each time replaced.
fn demo() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_opnix"))
        .arg("demo")
        .env("PATH", "")
        .env("CLICOLOR_FORCE", "1")
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("TMPDIR")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut text, mut values) = (String::from("$ opnix demo\n"), Vec::<String>::new());
    for line in String::from_utf8(output.stdout).unwrap().split_inclusive('\n') {
        let line =
            replaced(line, "opnix-demo-", |rest| (hex(rest) == 16).then(|| (16, "0123456789abcdef".into())));
        let line = replaced(&line, "demo", |rest| {
            let value = &rest[..hex(rest)];
            // Some are cut off.
            let known = values.iter().position(|known| known.starts_with(value));
            let number = known.unwrap_or(values.len()) as u64 + 1;
            let is_value = value.len() > 2;
            if is_value && known.is_none() {
                values.push(value.to_owned());
            }
            // Always the same, and as long as it was.
            let other = format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            is_value.then(|| (value.len(), other[..value.len()].to_owned()))
        });
        let quoted = |rest: &str| Some((rest.find('"')?, "/user.slice".to_owned()));
        text.push_str(&timeless(&replaced(&line, "cgroup \"", quoted)));
    }
    text
}

/// With what follows these words replaced: so many bytes by this.
fn replaced(line: &str, words: &str, mut by: impl FnMut(&str) -> Option<(usize, String)>) -> String {
    let mut parts = line.split(words);
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        text.push_str(words);
        match by(part) {
            Some((length, other)) => text.push_str(&(other + &part[length..])),
            None => text.push_str(part),
        }
    }
    text
}

fn hex(text: &str) -> usize {
    text.bytes().take_while(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte)).count()
}

/// Times are another each time, and left out.
fn timeless(line: &str) -> String {
    let is_time = |end: &str| line.trim_end().ends_with(end);
    if is_time(" µs") || is_time(" ms") {
        let number = line.trim_end().trim_end_matches(|it: char| !it.is_ascii_digit());
        return format!("{}…\n", number.trim_end_matches(|it: char| it.is_ascii_digit() || it == '.'));
    }
    match line.split_once("an answer takes ") {
        Some((before, after)) => format!("{before}an answer takes …{}", &after[after.find(" (").unwrap()..]),
        None => line.to_owned(),
    }
}

#[test]
fn the_terminal_of_the_demo_shows_what_the_demo_says() {
    let text = demo();
    let colour = |hex: &str| {
        let part = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        anstyle::RgbColor(part(1), part(3), part(5))
    };
    for theme in [&fleet::theme::LIGHT, &fleet::theme::DARK] {
        let mut palette = anstyle_svg::VGA;
        for (at, hex) in [(anstyle::AnsiColor::Green, theme.good), (anstyle::AnsiColor::Red, theme.bad)] {
            palette.0[at as usize] = colour(hex);
        }
        let term = anstyle_svg::Term::new()
            .palette(palette)
            .fg_color(colour(theme.text).into())
            .bg_color(colour(theme.page).into());
        agrees(&format!("docs/pictures/demo-{}.svg", theme.name), &term.render_svg(&text));
    }
}
