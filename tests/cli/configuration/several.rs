//! Several files that are one configuration, and those that cannot be read.

use std::fs;
use std::path::Path;

use opnix::internals::config::load_from_anybody as load;

use super::{kept, paths, written};

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
fn a_file_that_cannot_be_read_is_a_fault_beside_the_others() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let large = directory.join("config-large.json");
    fs::File::create(&large).unwrap().set_len((16 << 20) + 1).unwrap();
    let garbled = directory.join("config-garbled.json");
    fs::write(&garbled, b"{\"secrets\": [\"\xff\"]}").unwrap();
    let faulty = directory.join("config-faulty.json");
    fs::write(&faulty, r#"{"secret": []}"#).unwrap();
    // Nobody writes into it, and that is not waited for.
    let fifo = directory.join("config-fifo.json");
    let _ = fs::remove_file(&fifo);
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let files = [large.clone(), garbled, directory.join("config-none.json"), faulty, fifo.clone()];
    let faults = load(&files).unwrap_err();
    fs::remove_file(large).unwrap();
    fs::remove_file(fifo).unwrap();
    let faults: Vec<String> =
        faults.iter().map(|fault| fault.to_string().replace(directory.to_str().unwrap(), "")).collect();
    assert_eq!(
        faults,
        [
            "/config-faulty.json:1:2: unknown key \"secret\"\n    did you mean \"secrets\"?",
            "/config-fifo.json: cannot be read: it is a FIFO, not a regular file",
            "/config-garbled.json: cannot be read: it is not UTF-8 text",
            "/config-large.json: cannot be read: it is larger than 16 MiB",
            "/config-none.json: cannot be read: No such file or directory (os error 2)",
        ]
    );
}
