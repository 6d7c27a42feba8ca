//! `opnix token set`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{Place, mode, text};
use crate::daemon::library;
use crate::helpers::wait;
use crate::simulators::connect::TOKEN;

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
    let service = opnix()
        .args(["serve", "--trust-peer-names", "--config", "secrets.json"])
        .args(["--socket", "socket", "--control", "control"])
        .current_dir(&place.directory)
        .env("CREDENTIALS_DIRECTORY", &place.directory)
        .stderr(log)
        .spawn()
        .unwrap();
    let service = Ends(service);
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
    let taken = ask(&["token", "take", "--path", "garbage"]);
    assert!(!taken.status.success(), "{taken:?}");
    assert!(bad().is_object(), "{taken:?}");
    fs::write(place.path("vault.json"), r#"{"vaults": []}"#).unwrap();
    for file in ["vault.json", "garbage"] {
        fs::set_permissions(place.path(file), fs::Permissions::from_mode(0o600)).unwrap();
    }
    configure(json!({"kind": "local", "path": "vault.json"}));
    kill(Pid::from_raw(service.0.id() as i32), Signal::SIGHUP).unwrap();
    wait("the reload", || fs::read_to_string(place.path("log")).unwrap().contains("for development only"));
    wait("the fault to be gone", || bad().is_null());
    let taken = ask(&["token", "take", "--path", "garbage"]);
    assert!(taken.status.success() && bad().is_null(), "{taken:?}");
}

/// A service that ends with its test.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn set(place: &Place, input: &[u8], more: &[&str]) -> std::process::Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_opnix"))
        .args(["token", "set"])
        .args(if more.contains(&"--config") { &[][..] } else { &["--config", "none"] })
        .args(more)
        .current_dir(&place.directory)
        .env("PATH", format!("{}:{}", place.directory.display(), std::env::var("PATH").unwrap()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[test]
fn what_is_not_one_token_is_refused_and_the_one_before_stays() {
    let place = Place::new();
    let token = place.simulator.token();
    fs::write(place.path("token"), "before").unwrap();
    let (twice, cut) = (format!("{token}\n{token}\n"), &token[..token.len() - 9]);
    let long = vec![b'x'; 70_000];
    let utf_16: Vec<u8> = token.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (input, why) in [
        (&b""[..], "no token was given"),
        (b"\xef\xbb\xbf\r\n", "no token was given"),
        (twice.as_bytes(), "exactly one line"),
        (cut.as_bytes(), "the token is damaged"),
        (&token.as_bytes()[4..], "neither a service account's token"),
        (&utf_16, "neither spaces nor anything but plain ASCII"),
        (b"\0\x01\xff\xfe", "neither spaces nor anything but plain ASCII"),
        (b"ops_ with spaces", "neither spaces nor anything but plain ASCII"),
        (b"eyJhbGciOiJFUzI1NiJ9.eyJ", "it does not have three parts"),
        (&long, "it is longer than any token"),
    ] {
        let output = set(&place, input, &["-path", "token"]);
        let (code, said) = (output.status.code(), text(&output.stderr));
        assert!(code == Some(1) && said.contains(why), "{why}: {code:?} {said}");
        assert!(!said.contains(&token[4..24]) && output.stdout.is_empty(), "{said}");
        assert_eq!(fs::read_to_string(place.path("token")).unwrap(), "before", "{why}");
    }
    for input in [format!("{token}\r\n\n "), format!("\u{feff}{token}\r\n"), format!(" {token}")] {
        let output = set(&place, input.as_bytes(), &["-path", "token"]);
        let said = text(&output.stdout);
        assert!(output.status.success() && !said.contains(&token[4..24]), "{said}");
        assert!(
            said.starts_with("stored the token of made-up@1passwordserviceaccounts.com at 127.0.0.1:"),
            "{said}"
        );
        assert_eq!(fs::read_to_string(place.path("token")).unwrap(), token);
    }
}

#[test]
fn a_line_is_enough_whoever_holds_the_other_end_open() {
    let place = Place::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_opnix"))
        .args(["token", "set", "-path", "token"])
        .current_dir(&place.directory)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut open = child.stdin.take().unwrap();
    writeln!(open, "{}", place.simulator.token()).unwrap();
    wait("its end", || child.try_wait().unwrap().is_some());
    assert!(child.wait().unwrap().success());
    drop(open);
}

#[test]
fn the_configured_provider_says_which_token_it_has_to_be() {
    let place = Place::new();
    let account = place.simulator.token();
    for (provider, token, why) in [
        (json!({"kind": "service_account"}), TOKEN, "the configuration's provider is a service account"),
        (
            json!({"kind": "connect", "host": "http://127.0.0.1:1"}),
            account.as_str(),
            "provider is a Connect server",
        ),
    ] {
        let config = json!({"provider": provider, "secrets": [{"name": "a", "reference": "op://v/i/f", "units": ["a.service"]}]});
        fs::write(place.path("provider.json"), config.to_string()).unwrap();
        let of = |token: &str| set(&place, token.as_bytes(), &["-path", "new", "--config", "provider.json"]);
        let (wrong, other) = (of(token), if token == TOKEN { account.as_str() } else { TOKEN });
        assert!(wrong.status.code() == Some(1) && text(&wrong.stderr).contains(why), "{wrong:?}");
        assert!(of(other).status.success());
    }
}

#[test]
fn what_lies_at_its_place_is_replaced_or_refused_and_never_written_to() {
    let place = Place::new();
    let token = place.simulator.token();
    let stored = |path: &str| set(&place, token.as_bytes(), &["-path", path]);
    // A link is replaced.
    fs::write(place.path("victim"), "theirs").unwrap();
    symlink(place.path("victim"), place.path("link")).unwrap();
    assert!(text(&stored("link").stdout).contains("it was a link"));
    assert_eq!(fs::read_to_string(place.path("victim")).unwrap(), "theirs");
    assert!(fs::symlink_metadata(place.path("link")).unwrap().is_file());
    // The group keeps it, and others do not.
    for (before, after) in [(0o640, 0o640), (0o644, 0o640), (0o600, 0o600), (0o400, 0o600), (0o777, 0o640)] {
        fs::write(place.path("mode"), "before").unwrap();
        fs::set_permissions(place.path("mode"), fs::Permissions::from_mode(before)).unwrap();
        let output = stored("mode");
        assert_eq!(mode(&place.path("mode")), after, "{before:o}");
        assert_eq!(text(&output.stdout).contains("its mode was"), before & !after != 0, "{output:?}");
    }
    // Nor does somebody else whose file was there get it.
    fs::write(place.path("theirs"), "before").unwrap();
    fs::set_permissions(place.path("theirs"), fs::Permissions::from_mode(0o660)).unwrap();
    if chown(place.path("theirs"), Some(65534), Some(65534)).is_ok() {
        assert!(
            text(&stored("theirs").stdout)
                .contains("it belonged to user 65534, and now belongs to user 0 alone")
        );
        let now = fs::metadata(place.path("theirs")).unwrap();
        assert_eq!((now.uid(), now.gid(), now.mode() & 0o7777), (0, 0, 0o600));
    }
    // What is not a file stays.
    nix::unistd::mkfifo(&place.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(place.path("directory")).unwrap();
    for (path, why) in [
        ("fifo", "not a file"),
        ("directory", "it is a directory"),
        ("directory/", "not the path of a file"),
        ("directory/..", "not the path of a file"),
        ("victim/below", "File exists"),
        ("/dev/full", "not a file"),
        ("/proc/token", "No such file"),
    ] {
        let output = stored(path);
        assert!(output.status.code() == Some(1) && text(&output.stderr).contains(why), "{path}: {output:?}");
    }
    assert_eq!(fs::read_dir(place.path("directory")).unwrap().count(), 0);
}

#[test]
fn whenever_it_is_killed_there_is_the_token_of_before_or_the_new_one() {
    let place = Place::new();
    let tokens = [place.simulator.token(), place.simulator.token_for("https://acme.1password.eu")];
    fs::write(place.path("token"), &tokens[1]).unwrap();
    for number in 0..40_u64 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_opnix"))
            .args(["token", "set", "-path", "token", "--config", "none"])
            .current_dir(&place.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(tokens[number as usize % 2].as_bytes());
        std::thread::sleep(std::time::Duration::from_millis(number));
        let _ = child.kill();
        child.wait().unwrap();
        let now = fs::read_to_string(place.path("token")).unwrap();
        assert!(tokens.contains(&now), "{number}");
    }
    // What one left unfinished is in nobody's way, and gone with the next.
    assert!(set(&place, tokens[0].as_bytes(), &["-path", "token"]).status.success());
    let left = fs::read_dir(&place.directory).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["token"]);
}

#[test]
fn several_at_once_leave_one_whole_token() {
    let place = Place::new();
    let tokens = [place.simulator.token(), place.simulator.token_for("https://acme.1password.eu")];
    for _ in 0..5 {
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (place, token) = (&place, &tokens[number % 2]);
                scope.spawn(move || {
                    let output = set(place, token.as_bytes(), &["-path", "token"]);
                    let said = text(&output.stderr);
                    assert!(
                        output.status.success() || said.contains("another process writes there"),
                        "{said}"
                    );
                });
            }
        });
        assert!(tokens.contains(&fs::read_to_string(place.path("token")).unwrap()));
    }
}

#[test]
fn what_is_sealed_goes_through_a_pipe_and_nowhere_else() {
    let place = Place::new();
    let token = place.simulator.token();
    fs::create_dir(place.path("store")).unwrap();
    // Stands for systemd-creds: notes everything that somebody else could see.
    let creds = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\n{ echo \"$*\"; env; grep -rl ops_ store; cat /proc/$PPID/cmdline /proc/$PPID/environ; } >seen 2>&1\n\
        cat >given\n[ ! -e fails ] || { echo '<3>Failed to seal.' >&2; exit 1; }\necho sealed\n";
    fs::write(place.path("systemd-creds"), creds).unwrap();
    fs::set_permissions(place.path("systemd-creds"), fs::Permissions::from_mode(0o755)).unwrap();
    let seal = || {
        set(&place, format!("{token}\n").as_bytes(), &["--seal", "--with-key=host", "-path", "store/sealed"])
    };
    let output = seal();
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains(", sealed, in store/sealed"), "{output:?}");
    let seen = String::from_utf8_lossy(&fs::read(place.path("seen")).unwrap()).into_owned();
    assert!(seen.starts_with("encrypt --name=token --with-key=host - -\n"), "{seen}");
    assert!(!seen.contains("ops_") && !seen.contains(&token[4..24]), "{seen}");
    assert_eq!(fs::read_to_string(place.path("given")).unwrap(), token);
    assert_eq!(fs::read_to_string(place.path("store/sealed")).unwrap(), "sealed\n");
    assert_eq!(mode(&place.path("store/sealed")), 0o600);
    fs::write(place.path("fails"), "").unwrap();
    fs::write(place.path("store/sealed"), "before").unwrap();
    let output = seal();
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("Failed to seal"), "{output:?}");
    assert_eq!(fs::read_to_string(place.path("store/sealed")).unwrap(), "before");
    assert_eq!(fs::read_dir(place.path("store")).unwrap().count(), 1);
}
