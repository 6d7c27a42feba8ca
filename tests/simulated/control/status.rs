//! `opnix status`: how the service is.

use std::fs;
use std::process::Command;

use serde_json::json;

use super::Host;
use crate::daemon::{Daemon, UNIT, library, new_directory};
use crate::helpers::{status, wait};
use crate::host;

#[test]
fn status_tells_how_the_service_is() {
    let host = Host::new(true);
    assert_eq!(host.daemon.ask("both").as_deref(), Some("canary-1canary-2"));
    assert_eq!(host.daemon.ask("gone"), None);
    let status = status(&host.daemon);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&status["provider"]["kind"], &status["provider"]["health"]), (&json!("local"), &json!("up")));
    assert_eq!((&status["cache"]["sealed"], &status["cache"]["in_memory"]), (&json!(true), &json!(2)));
    assert_eq!(status["budget"]["day"], json!({"used": 0, "left": 200, "limit": 200}));
    assert_eq!(status["budget"]["hour"], json!({"used": 0, "left": null, "limit": null}));
    let secret = |name: &str| {
        let secrets = status["secrets"].as_array().unwrap();
        secrets.iter().find(|secret| secret["name"] == name).unwrap().clone()
    };
    assert_eq!(secret("openai-api-key")["state"], "fresh");
    assert_eq!(secret("both")["state"], "fresh");
    assert_eq!((&secret("code")["state"], &secret("code")["age"]), (&json!("missing"), &json!(null)));
    assert!(secret("gone")["error"].as_str().unwrap().contains("there is no item \"Gone\""));

    // It is written a moment after the values were served.
    wait("the cache to be written", || host.daemon.command(&["status"]).0.contains(", written "));
    let (text, code) = host.daemon.command(&["status"]);
    assert_eq!(code, 69, "one of them cannot be had: {text}");
    for line in [
        "in short   1 of 4 secrets cannot be had now: gone\n",
        "provider   local, local file",
        "works, as far as the last requests tell",
        "cache      2 values, 2 sealed on disk, written ",
        "requests   0 in the last hour, 0 of 200 in the last day",
        "secrets    openai-api-key  fresh    ",
        "           gone            missing",
        "there is no item \"Gone\" in vault \"Vault\"",
    ] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
    assert!(!text.contains("canary") && !status.to_string().contains("canary"));
}

#[test]
fn status_says_when_nothing_is_sealed_when_the_provider_is_down_and_when_the_service_is_not_there() {
    let host = Host::new(false);
    let (text, _) = host.daemon.command(&["status"]);
    assert!(text.contains("0 values, in memory only: there is no key: run `opnix setup`"), "{text}");
    fs::write(host.vault(), "garbage").unwrap();
    assert_eq!(host.daemon.ask("openai-api-key"), None);
    let (text, code) = host.daemon.command(&["status"]);
    assert_eq!(code, 69, "{text}");
    assert!(text.contains("DOES NOT WORK since") && text.contains("it is not a vault file"), "{text}");
    let nowhere = Command::new(env!("CARGO_BIN_EXE_opnix"))
        .args(["status", "--control", "/nonexistent/control.sock"])
        .output()
        .unwrap();
    let said = String::from_utf8(nowhere.stderr).unwrap();
    assert_eq!(nowhere.status.code(), Some(69));
    assert!(said.contains("the service does not listen on /nonexistent/control.sock"), "{said}");
}

#[test]
fn a_call_that_takes_long_holds_up_no_other() {
    let host = Host::new(true);
    let config = json!({"provider": {"kind": "connect", "host": "http://192.0.2.1"}, "deadline": "10s",
        "secrets": [{"name": "key", "reference": "op://v/i/f", "units": [UNIT]}]});
    host.daemon.configure(&config);
    host.daemon.reload();
    std::thread::scope(|scope| {
        // Where nobody answers, or at once that there is no way.
        let slow = scope.spawn(|| host.daemon.command(&["refresh"]));
        assert_eq!(status(&host.daemon)["provider"]["kind"], "connect");
        assert_eq!(slow.join().unwrap().1, 69);
    });
}

#[test]
fn the_exit_code_says_whether_every_secret_would_be_served_from_wherever() {
    let machine = host::Host::new(&["kept", "never"]);
    let never = json!({"cache": "never"});
    let config = machine.config(json!({}), &[("kept", json!({})), ("never", never)]);
    let daemon = machine.start(&config);
    let code = || daemon.command(&["status"]).1;
    assert!(daemon.ask("kept").is_some() && daemon.ask("never").is_some());
    assert_eq!(code(), 0, "{}", daemon.command(&["status"]).0);
    machine.one_password_is_down(true);
    assert_eq!(daemon.ask("never"), None);
    let (text, code) = daemon.command(&["status"]);
    assert_eq!(code, 69, "{text}");
    assert!(text.contains("1 of 2 secrets cannot be had now: never\n"), "{text}");
    // What everything is kept of is served all the same.
    let warm = machine.config(json!({}), &[("kept", json!({}))]);
    daemon.configure(&warm);
    daemon.reload();
    let (text, code) = daemon.command(&["status"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("in short   the one secret would be served now\n"), "{text}");
}

#[test]
fn without_a_token_what_is_not_kept_cannot_be_had() {
    let config = json!({"provider": {"kind": "service_account", "library": library()}, "deadline": "1s", "secrets": [
        {"name": "key", "reference": "op://Vault/key/value", "units": [UNIT]}]});
    let directory = new_directory("no-token");
    let daemon = Daemon::configured(&[("STATE_DIRECTORY", directory.as_path())], &config, "");
    let (text, code) = daemon.command(&["status"]);
    assert_eq!(code, 69, "{text}");
    assert!(text.contains("1 of 1 secrets cannot be had now: key\n"), "{text}");
    assert!(text.contains("there is no token for 1Password: ") && !text.contains("works, as far"), "{text}");
    let (text, code) = daemon.command(&["explain", UNIT, "key"]);
    assert_eq!(code, 69, "{text}");
    assert!(text.starts_with("allowed, but cannot be had now: test.service may have \"key\"\n"), "{text}");
    assert!(text.contains("there is no token for 1Password: "), "{text}");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_file_that_has_to_be_there_is_looked_for() {
    let host = Host::new(true);
    assert_eq!(host.daemon.ask("openai-api-key").as_deref(), Some("canary-1"));
    let (path, other) = (host.directory.join("file"), host.directory.join("other"));
    let secret = |name: &str, path: &std::path::Path, optional: bool| {
        json!({"name": name, "reference": "op://Vault/OpenAI/value", "path": path, "optional": optional,
            "owner": nix::unistd::Uid::effective().to_string(), "services": ["reader.service"]})
    };
    let secrets = [secret("file", &path, false), secret("optional", &other, true)];
    host.daemon.configure(&json!({"provider": {"kind": "local", "path": host.vault()}, "secrets": secrets}));
    host.daemon.reload();
    host.daemon.command(&["refresh"]);
    let (text, code) = host.daemon.command(&["status"]);
    assert_eq!(code, 69, "{text}");
    assert!(text.contains(&format!("in short   {} is not there\n", path.display())), "{text}");
    assert!(text.contains("  left out: it is optional\n"), "{text}");
    // Somebody else wrote it.
    fs::write(&path, "canary-1").unwrap();
    let mode = |mode| fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    mode(0o644);
    let (text, code) = host.daemon.command(&["status"]);
    assert_eq!(code, 69, "{text}");
    assert!(text.contains(" 0644, and to be "), "{text}");
    assert_eq!(host.daemon.command(&["status", "reader.service"]).1, 69);
    mode(0o600);
    let (text, code) = host.daemon.command(&["status"]);
    assert_eq!(code, 0, "{text}");
    let (text, code) = host.daemon.command(&["status", "reader.service"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(&format!("files      {}   there  ", path.display())), "{text}");
    // The mirror's own names are told by their file.
    let files = status(&host.daemon)["files"].clone();
    let name = files[0]["credential"].as_str().unwrap().to_owned();
    let (text, code) = host.daemon.command(&["explain", "opnix-mirror.service", &name]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(&format!("  for       the file {} (", path.display())), "{text}");
}

#[test]
fn status_of_a_unit_and_explain_of_a_unit_are_one_view_of_all_that_concerns_it() {
    let host = Host::new(true);
    assert_eq!(host.daemon.ask("openai-api-key").as_deref(), Some("canary-1"));
    assert_eq!(host.daemon.ask("gone"), None);
    let (text, code) = host.daemon.command(&["status", "test"]);
    assert_eq!(code, 69, "{text}");
    for line in [
        "unit       test.service",
        "may have   \"both\"",
        "\"openai-api-key\"  fresh ",
        "               from op://Vault/OpenAI/value\n               given ",
        "               cannot be had now\n               there is no item \"Gone\"",
        "left out   it was refused \"gone\" ",
    ] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
    let (explained, code) = host.daemon.command(&["explain", UNIT]);
    assert_eq!(code, 69, "{explained}");
    // Seconds may have passed.
    let headings =
        |text: &str| text.lines().map(|line| line.get(..11).unwrap_or(line).to_owned()).collect::<Vec<_>>();
    assert_eq!(headings(&explained), headings(&text));
    let (text, code) = host.daemon.command(&["status", "other.service"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("may have   nothing"), "{text}");
}

#[test]
fn status_goes_on_until_nobody_reads_it() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::Stdio;
    let host = Host::new(false);
    let watch = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_opnix"));
        command.args(["status", "--watch", "--control"]).arg(host.daemon.control()).args(more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut json = watch(&["--json"]);
    let mut states = BufReader::new(json.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let state: serde_json::Value = serde_json::from_str(&states.next().unwrap().unwrap()).unwrap();
        assert_eq!(state["version"], env!("CARGO_PKG_VERSION"));
    }
    let mut text = watch(&[UNIT]);
    let mut lines = BufReader::new(text.stdout.take().unwrap()).lines().map(Result::unwrap);
    let begins = |line: &String| line.starts_with("unit  ");
    assert_eq!(lines.next().as_deref(), Some(""));
    assert!(begins(&lines.next().unwrap()));
    assert!(lines.any(|line| begins(&line)), "it is shown again");
    drop((states, lines));
    for mut ended in [json, text] {
        let exit = ended.wait().unwrap();
        let mut said = String::new();
        ended.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(matches!(exit.code(), Some(0 | 69)) && said.is_empty(), "{exit}: {said}");
    }
}

#[test]
fn what_could_not_be_written_is_not_told_to_be_on_disk() {
    let directory = new_directory("full");
    fs::write(directory.join("opnix.cache-key"), [7; 32]).unwrap();
    let vault = directory.join("vault.json");
    super::write_vault(&vault, &[("OpenAI", "canary-1"), ("Datadog", "canary-2")]);
    // Where nobody can write.
    let environment =
        [("STATE_DIRECTORY", std::path::Path::new("/proc")), ("CREDENTIALS_DIRECTORY", &directory)];
    let daemon = Daemon::configured(&environment, &super::config(&vault), "none");
    assert!(daemon.ask("both").is_some());
    let text = || daemon.command(&["status"]).0;
    wait("it to try", || text().contains("NOTHING CAN BE WRITTEN to disk since "));
    assert!(text().contains("cache      2 values, none of 2 sealed on disk\n"), "{}", text());
    fs::remove_dir_all(directory).unwrap();
}
