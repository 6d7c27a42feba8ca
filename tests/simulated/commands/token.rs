//! `opnix token set`.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{Place, mode, text};
use crate::daemon::library;
use crate::helpers::wait;

#[test]
fn token_set_stores_what_it_is_given() {
    let place = Place::new();
    let set = |input: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_opnix"))
            .args(["token", "set", "-path", "new/token"])
            .current_dir(&place.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let token = place.simulator.token();
    let output = set(&format!("  {token}\n"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(fs::read_to_string(place.path("new/token")).unwrap(), token);
    assert_eq!(mode(&place.path("new/token")), 0o600);
    for wrong in ["", "\n", "two\nlines", &token[..40]] {
        let output = set(wrong);
        assert_eq!(output.status.code(), Some(1), "{wrong:?}");
        assert_eq!(fs::read_to_string(place.path("new/token")).unwrap(), token, "kept");
        assert!(!text(&output.stderr).contains("ops_ey"), "{output:?}");
    }
}

#[test]
fn a_provider_that_needs_no_token_has_no_fault_of_one() {
    let place = Place::new();
    let configure = |provider: Value| {
        let secrets = json!([{"name": "key", "reference": "op://v/i/f", "units": ["test.service"]}]);
        let config = json!({"provider": provider, "secrets": secrets});
        fs::write(place.path("secrets.json"), config.to_string()).unwrap();
    };
    configure(json!({"kind": "service_account", "library": library()}));
    let opnix = || Command::new(env!("CARGO_BIN_EXE_opnix"));
    // The token comes as one of the service's credentials, as systemd gives it.
    let log = fs::File::create(place.path("log")).unwrap();
    let mut service = opnix()
        .args(["serve", "--trust-peer-names", "--config", "secrets.json"])
        .args(["--socket", "socket", "--control", "control"])
        .current_dir(&place.directory)
        .env("CREDENTIALS_DIRECTORY", &place.directory)
        .stderr(log)
        .spawn()
        .unwrap();
    wait("the service", || fs::read_to_string(place.path("log")).unwrap().contains("listening on"));
    let ask = |arguments: &[&str]| {
        let control = place.path("control");
        opnix().args(arguments).arg("--control").arg(control).current_dir(&place.directory).output().unwrap()
    };
    let bad = || {
        let status: Value = serde_json::from_slice(&ask(&["status", "--json"]).stdout).unwrap();
        status["bad_token"].clone()
    };
    fs::write(place.path("garbage"), "no token").unwrap();
    let taken = ask(&["token", "take", "--token-file", "garbage"]);
    assert!(!taken.status.success(), "{taken:?}");
    assert!(bad().is_object());
    fs::write(place.path("vault.json"), r#"{"vaults": []}"#).unwrap();
    configure(json!({"kind": "local", "path": "vault.json"}));
    kill(Pid::from_raw(service.id() as i32), Signal::SIGHUP).unwrap();
    wait("the reload", || fs::read_to_string(place.path("log")).unwrap().contains("for development only"));
    wait("the fault to be gone", || bad().is_null());
    let taken = ask(&["token", "take", "--token-file", "garbage"]);
    assert!(taken.status.success() && bad().is_null(), "{taken:?}");
    kill(Pid::from_raw(service.id() as i32), Signal::SIGTERM).unwrap();
    service.wait().unwrap();
}
