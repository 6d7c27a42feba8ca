//! The one-shot commands of people who come from OpNix: their flags, formats and exit codes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::daemon::{library, new_directory};
use crate::simulators::account::{Account, FieldValue};
use crate::simulators::http::Fault;
use crate::simulators::service_account::ServiceAccount;
use serde_json::{Value, json};

const AWKWARD: &str = "it's \"quoted\" $HOME `id` \\ and\ntwo lines";

struct Place {
    directory: PathBuf,
    simulator: ServiceAccount,
}

impl Place {
    fn new() -> Self {
        let mut account = Account::empty();
        account.add("Vault", "API", &[("token", FieldValue::Concealed("canary-token".into()))]);
        account.add("Vault", "Odd", &[("text", FieldValue::Concealed(AWKWARD.into()))]);
        account.attach("Vault", "API", "", "cert.pem", b"\x00\xffbytes");
        let place = Self { directory: new_directory("once"), simulator: ServiceAccount::local(account) };
        fs::write(place.path("token"), place.simulator.token()).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn configure(&self, mut config: Value) {
        config["provider"] = json!({"kind": "service_account", "library": library()});
        fs::write(self.path("secrets.json"), config.to_string()).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_opnix"));
        command.args(arguments).current_dir(&self.directory).env_remove("OP_SERVICE_ACCOUNT_TOKEN");
        command.output().unwrap()
    }

    /// `opnix env` with these variables.
    fn env(&self, format: &str, vars: &Value) -> Output {
        let config = json!({"vars": vars}).to_string();
        let library = library();
        self.run(&[
            "env",
            "-config-json",
            &config,
            "-token-file",
            "token",
            "-format",
            format,
            "-library",
            library.to_str().unwrap(),
        ])
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn secret_writes_the_files_of_an_opnix_configuration() {
    let place = Place::new();
    let me = fs::metadata(&place.directory).unwrap();
    let owner = json!(me.uid().to_string());
    let group = json!(me.gid().to_string());
    let link = place.path("link");
    place.configure(json!({
        "pathTemplate": "{service}/{name}", "defaults": {"service": "web"},
        "secrets": [
            {"reference": "op://Vault/API/token", "path": "api/token", "owner": owner, "group": group, "mode": "0400", "symlinks": [link]},
            {"reference": "op://Vault/Odd/text", "variables": {"name": "odd"}, "owner": owner, "group": group},
            {"reference": "op://Vault/API/cert.pem", "kind": "file", "path": "cert", "owner": owner, "group": group}],
        "templates": [{"name": "env", "path": "app.env", "owner": owner, "group": group,
            "template": "A={{ op://Vault/API/token }}\n"}]}));
    let output = place.run(&["secret", "-config", "secrets.json", "-output", "out", "-token-file", "token"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stdout), "wrote 4 of 4 files\n");
    let there = fs::File::open(place.path("out")).unwrap();
    let on_disk = !opnix::mirror::install::in_memory(&there).unwrap();
    assert_eq!(text(&output.stderr).contains("is on a disk: the secrets stay there in plain text"), on_disk);
    let out = place.path("out");
    assert_eq!(fs::read_to_string(out.join("api/token")).unwrap(), "canary-token");
    assert_eq!(mode(&out.join("api/token")), 0o400);
    assert_eq!(fs::read_to_string(out.join("web/odd")).unwrap(), AWKWARD);
    assert_eq!(mode(&out.join("web/odd")), 0o600);
    assert_eq!(fs::read(out.join("cert")).unwrap(), b"\x00\xffbytes");
    assert_eq!(fs::read_to_string(out.join("app.env")).unwrap(), "A=canary-token\n");
    assert_eq!(fs::read_to_string(link).unwrap(), "canary-token");
}

#[test]
fn exit_codes_are_those_of_opnix() {
    let place = Place::new();
    let me = fs::metadata(&place.directory).unwrap();
    let file = |item: &str, path: &str| {
        json!({"reference": format!("op://Vault/{item}/token"), "path": path,
            "owner": me.uid().to_string(), "group": me.gid().to_string()})
    };
    let secret = || place.run(&["secret", "-output", "out", "-token-file", "token"]);
    place.configure(json!({"secrets": [file("API", "there"), file("Gone", "gone")]}));
    let output = secret();
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    assert!(text(&output.stderr).contains("there is no item \"Gone\""), "{output:?}");
    assert!(place.path("out/there").exists() && !place.path("out/gone").exists());

    place.configure(json!({"secrets": [file("API", "there")]}));
    place.simulator.server.fault("GET /api/v1/vaults", 1, Fault::Limited(None));
    assert_eq!(secret().status.code(), Some(75));
    fs::write(place.path("secrets.json"), "{").unwrap();
    assert_eq!(secret().status.code(), Some(1));
    place.configure(json!({"secrets": [file("API", "there")]}));
    fs::remove_file(place.path("token")).unwrap();
    let output = secret();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("there is no token"), "{output:?}");
}

#[test]
fn nothing_is_written_through_a_symlink_or_over_a_directory_or_for_nobody() {
    let place = Place::new();
    let me = fs::metadata(&place.directory).unwrap();
    let (uid, gid) = (me.uid().to_string(), me.gid().to_string());
    let file = |path: &str, owner: &str| json!({"reference": "op://Vault/API/token", "path": path, "owner": owner, "group": gid});
    fs::create_dir_all(place.path("out/taken")).unwrap();
    fs::create_dir_all(place.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(place.path("elsewhere"), place.path("out/astray")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", place.path("out/link")).unwrap();
    place.configure(json!({"secrets": [
        file("astray/token", &uid), file("taken", &uid), file("nobody", "no-such-user"), file("link", &uid)]}));
    let output = place.run(&["secret", "-output", "out", "-token-file", "token"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = text(&output.stderr);
    for words in [
        "which is a symlink or no directory: name the real path",
        "there is a directory of that name",
        "there is no user \"no-such-user\"",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(fs::read_dir(place.path("elsewhere")).unwrap().count(), 0);
    // A link in the place of the file is replaced, not followed.
    assert!(!fs::symlink_metadata(place.path("out/link")).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(place.path("out/link")).unwrap(), "canary-token");
    assert!(!said.contains("canary"));
}

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
fn env_prints_variables_that_a_shell_takes_as_they_are() {
    let place = Place::new();
    let vars = json!([
        {"name": "API_TOKEN", "reference": "op://Vault/API/token"},
        {"name": "ODD", "reference": "op://Vault/Odd/text"},
        {"name": "MAYBE", "reference": "op://Vault/Gone/x", "optional": true},
        {"name": "STATIC", "value": "dev"}]);
    let output = place.env("shell", &vars);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stderr).contains("MAYBE is left out"), "{output:?}");
    let script = format!("{}printf '%s|%s|%s' \"$API_TOKEN\" \"$ODD\" \"$STATIC\"", text(&output.stdout));
    let shell = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(text(&shell.stdout), format!("canary-token|{AWKWARD}|dev"));

    let read: Value = serde_json::from_slice(&place.env("json", &vars).stdout).unwrap();
    assert_eq!(read, json!({"API_TOKEN": "canary-token", "ODD": AWKWARD, "STATIC": "dev"}));
    let dotenv = text(&place.env("dotenv", &vars).stdout);
    assert!(dotenv.starts_with("API_TOKEN=\"canary-token\"\nODD=\"it's \\\"quoted\\\" \\$HOME"), "{dotenv}");

    let missing = place
        .env("shell", &json!([{"name": "A", "reference": "op://Vault/Gone/x"}, {"name": "B", "value": "b"}]));
    assert_eq!((missing.status.code(), text(&missing.stdout).as_str()), (Some(65), ""));
    for (wrong, says) in [
        (json!([]), "there is no variable"),
        (json!([{"name": "1A", "value": "x"}]), "vars[0]: \"1A\" is no name of a variable"),
        (json!([{"name": "A"}]), "A needs either a reference or a value"),
        (json!([{"name": "A", "reference": "nope"}]), "is no secret reference"),
    ] {
        let output = place.env("shell", &wrong);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(says), "{output:?}");
    }
}
