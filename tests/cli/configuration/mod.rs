//! What a configuration comes to, and that no fault goes unshown. The faults themselves, one after another with their
//! places, are in tests/cli/config.trycmd.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use opnix::config::{Config, Faults, MirrorFile, OnChange, load};
use opnix::reference::Kind;
use opnix::secret::Secret;
use opnix::template::Template;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The configuration of these files of `opnix`.
fn kept(names: &[&str]) -> Result<Config, Faults> {
    load(
        &names.iter().map(|name| root().join("tests/cli/configuration/opnix").join(name)).collect::<Vec<_>>(),
    )
}

/// The configuration of these texts, in files of their own.
fn written(test: &str, texts: &[&str]) -> Result<Config, Faults> {
    let file = |(number, text): (usize, &&str)| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("config-{test}-{number}.json"));
        fs::write(&path, text).unwrap();
        path
    };
    load(&texts.iter().enumerate().map(file).collect::<Vec<_>>())
}

fn paths(config: &Config) -> Vec<&str> {
    config.files.iter().map(|file| file.path.to_str().unwrap()).collect()
}

#[test]
fn an_opnix_configuration_is_taken_unchanged() {
    let config = kept(&["opnix.json"]).unwrap();
    assert_eq!(config.policy.rules().count(), 0, "OpNix knows no units: nobody gets a credential");
    assert_eq!(
        paths(&config),
        ["/run/secrets/ssl/cert.pem", "/var/lib/caddy/key.pem", "/run/secrets/postgres/prod/password"]
    );
    assert_eq!(config.timing.refresh, Some(Duration::from_secs(6 * 3600)), "as often as OpNix polls");
    let [cert, key, password] = &config.files[..] else { panic!("{:?}", config.files) };

    let owned = |file: &MirrorFile| format!("{}:{} {:04o}", file.owner, file.group, file.mode);
    assert_eq!(owned(cert), "root:root 0600");
    assert_eq!(owned(key), "caddy:ssl-cert 0440");
    assert_eq!(owned(password), "root:root 0640");

    let named = |file: &MirrorFile| file.entry.content.as_plain().unwrap().clone();
    assert_eq!((named(cert).kind, named(cert).section), (Kind::Field, None));
    assert_eq!((named(key).kind, named(key).section), (Kind::File, Some("tls".to_owned())));

    assert_eq!(key.symlinks, ["/etc/ssl/private/app.pem", "/srv/app/key.pem"].map(PathBuf::from));
    assert!(cert.symlinks.is_empty());
    let acted_on = |file: &MirrorFile| -> Vec<(String, OnChange)> {
        file.services.iter().map(|(unit, action)| (unit.to_string(), action.clone())).collect()
    };
    let restarted = |units: &[&str]| -> Vec<(String, OnChange)> {
        units.iter().map(|unit| ((*unit).to_owned(), OnChange::Restart)).collect()
    };
    // Those of `systemdIntegration` are concerned by every change.
    assert_eq!(acted_on(cert), restarted(&["caddy.service", "app.service"]));
    let own = ["caddy.service", "nginx.service", "app.v2.service", "vpn@home.service", "app.service"];
    assert_eq!(acted_on(key), restarted(&own));
    assert_eq!(
        acted_on(password),
        [
            ("app.service".to_owned(), OnChange::Signal("SIGHUP".to_owned())),
            ("idle.service".to_owned(), OnChange::Nothing),
            ("postgresql.service".to_owned(), OnChange::Restart),
            ("web.service".to_owned(), OnChange::Restart),
            ("caddy.service".to_owned(), OnChange::Restart),
        ]
    );
}

#[test]
fn the_secrets_of_several_files_are_joined_and_the_last_path_template_and_defaults_win() {
    let config = kept(&["opnix.json", "opnix-second.json", "opnix-third.json"]).unwrap();
    assert_eq!(
        paths(&config),
        [
            "/run/secrets/ssl/cert.pem",
            "/var/lib/caddy/key.pem",
            "/var/lib/staging/postgres-password",
            "/var/lib/staging/mail-password",
            "/var/lib/staging/mail-user",
        ]
    );
    let other_way_round = kept(&["opnix-third.json", "opnix-second.json", "opnix.json"]).unwrap();
    assert_eq!(
        paths(&other_way_round)[..2],
        ["/run/secrets/mail/prod/user", "/run/secrets/mail/prod/password"]
    );
}

#[test]
fn the_last_path_template_and_the_last_defaults_may_come_from_different_files() {
    let secret =
        r#"{"secrets": [{"reference": "op://v/i/f"}], "defaults": {"a": "1"}, "pathTemplate": "x/{a}"}"#;
    let config = written("template", &[secret, r#"{"pathTemplate": "y/{a}"}"#]).unwrap();
    assert_eq!(paths(&config), ["/run/secrets/y/1"]);
    let config = written("defaults", &[secret, r#"{"defaults": {"a": "2"}}"#]).unwrap();
    assert_eq!(paths(&config), ["/run/secrets/x/2"]);
    // As a whole: what an earlier file says is not underneath.
    let faults = written("no-value", &[secret, r#"{"defaults": {"b": "2"}}"#]).unwrap_err();
    assert!(faults.to_string().contains("no value for {a}"), "{faults}");
}

#[test]
fn a_secret_for_units_only_is_no_file_and_one_for_both_is_both() {
    let config = written(
        "both",
        &[r#"{"pathTemplate": "all/{name}", "defaults": {"name": "x"}, "secrets": [
            {"name": "unit", "reference": "op://v/i/f", "units": ["a.service"]},
            {"name": "both", "reference": "op://v/i/f", "units": ["a.service"], "path": "both"}]}"#],
    )
    .unwrap();
    assert_eq!(paths(&config), ["/run/secrets/both"]);
    assert_eq!(config.policy.rules().count(), 2);
}

#[test]
fn a_unit_in_full_and_its_template_do_not_collide_nor_do_two_names_in_one_unit() {
    let config = written(
        "rules",
        &[r#"{"secrets": [
            {"name": "a", "reference": "op://v/i/f", "units": ["x@*.service", {"unit": "x@1.service", "credential": "b"}]},
            {"name": "b", "reference": "op://v/i/f", "units": [{"unit": "x@1.service", "credential": "a"}, "y.service"]}]}"#],
    )
    .unwrap();
    assert_eq!(config.policy.rules().count(), 4);
}

#[test]
fn a_deadline_is_half_a_minute_unless_set_and_an_hour_at_most() {
    let deadline = |text: &str| written("deadline", &[text]).unwrap().timing.deadline;
    assert_eq!(deadline("{}"), Duration::from_secs(30));
    assert_eq!(deadline(r#"{"deadline": "1h"}"#), Duration::from_secs(3600));
    assert_eq!(deadline(r#"{"deadline": "500ms"}"#), Duration::from_millis(500));
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault_beside_the_others() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let large = directory.join("config-large.json");
    fs::File::create(&large).unwrap().set_len((16 << 20) + 1).unwrap();
    let garbled = directory.join("config-garbled.json");
    fs::write(&garbled, b"{\"secrets\": [\"\xff\"]}").unwrap();
    let faulty = directory.join("config-faulty.json");
    fs::write(&faulty, r#"{"secret": []}"#).unwrap();
    let faults = load(&[large.clone(), garbled, directory.join("config-none.json"), faulty]).unwrap_err();
    fs::remove_file(large).unwrap();
    let faults: Vec<String> =
        faults.iter().map(|fault| fault.to_string().replace(directory.to_str().unwrap(), "")).collect();
    assert_eq!(
        faults,
        [
            "/config-faulty.json:1:2: unknown key \"secret\"\n    did you mean \"secrets\"?",
            "/config-garbled.json: cannot be read: stream did not contain valid UTF-8",
            "/config-large.json: cannot be read: it is larger than 16 MiB",
            "/config-none.json: cannot be read: No such file or directory (os error 2)",
        ]
    );
}

#[test]
fn a_value_that_is_no_text_cannot_be_quoted() {
    let template = Template::parse("{{ op://v/i/f | env }}").unwrap();
    let error = template.render(&[Arc::new(Secret::copy_from(b"\xff").unwrap())]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the value is no text, or has a NUL in it: it can be no variable and no JSON string"
    );
}

/// What stands between the placeholders of each string in the code, line by line, if it is more than a word.
fn messages(code: &str) -> Vec<String> {
    let is_code = |line: &&str| !["//", "#[schemars"].iter().any(|start| line.trim().starts_with(start));
    let code: Vec<&str> = code.lines().filter(is_code).collect();
    let code = code.join("\n").replace("\\\"", "\u{1}").replace("{{", "\u{2}").replace("}}", "\u{3}");
    let strings = code.split('"').skip(1).step_by(2);
    let lines = strings.flat_map(|string| string.split("\\n")).flat_map(|text| text.split('\n'));
    let fragments = lines.flat_map(|line| line.split('{').map(|part| part.rsplit('}').next().unwrap()));
    let fragments =
        fragments.map(|part| part.replace('\u{1}', "\"").replace('\u{2}', "{").replace('\u{3}', "}"));
    // trycmd turns every backslash into a slash.
    let fragments = fragments.map(|part| part.trim_end_matches('\\').trim().replace("\\\\", "/"));
    fragments.filter(|part| part.contains(' ')).collect()
}

#[test]
fn every_message_that_a_configuration_can_get_is_shown_by_a_test() {
    let shown: String = ["cli/check.trycmd", "cli/config.trycmd"]
        .iter()
        .map(|file| fs::read_to_string(root().join("tests").join(file)).unwrap())
        .chain([include_str!("mod.rs").to_owned()])
        .collect();
    let mut count = 0;
    for file in [
        "config/check.rs",
        "config/decode.rs",
        "config/file.rs",
        "config/mod.rs",
        "names.rs",
        "reference.rs",
        "template.rs",
    ] {
        let code = fs::read_to_string(root().join("src").join(file)).unwrap();
        for message in messages(code.split("#[cfg(test)]").next().unwrap()) {
            assert!(shown.contains(&message), "src/{file}: no test shows {message:?}");
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
}
