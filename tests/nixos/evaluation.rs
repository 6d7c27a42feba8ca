//! Evaluates and builds configurations with `tests/nixos`, with a Nix store of its own below `target`.

use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where units name opnix. Not a place below this project, which a unit with `PrivateTmp=` may not see.
pub const PACKAGE: &str = "/opt/opnix";

/// A root directory with opnix at [`PACKAGE`], as a package installs it.
pub fn stage() -> PathBuf {
    static DONE: std::sync::Once = std::sync::Once::new();
    // Nix takes what is built from a place of the same name for the same.
    let name = format!(concat!("stage-", env!("CARGO_CRATE_NAME"), "-{:x}"), unit_files());
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    DONE.call_once(|| {
        let output = Command::new(project().join("systemd/install"))
            .arg(PACKAGE)
            .env("DESTDIR", &place)
            .env("BINARY", env!("CARGO_BIN_EXE_opnix"))
            .env("SHELL_PATH", "/bin/sh")
            .output()
            .expect("sh");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
    place
}

/// A number for the files in `systemd`.
fn unit_files() -> u64 {
    let mut hash = std::hash::DefaultHasher::new();
    let mut directories = vec![project().join("systemd")];
    while let Some(directory) = directories.pop() {
        let mut paths: Vec<_> = std::fs::read_dir(&directory)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                directories.push(path);
            } else {
                (&path, std::fs::read(&path).expect("a file")).hash(&mut hash);
            }
        }
    }
    hash.finish()
}

pub fn command(program: &str) -> Command {
    let store = project().join("target/nix");
    let mut command = Command::new(program);
    command.env("NIX_STORE_DIR", store.join("store")).env("NIX_STATE_DIR", store.join("state"));
    command.env("NIX_LOG_DIR", store.join("log")).env("NIX_CONF_DIR", store.join("etc"));
    command.env_remove("NIX_PATH").env("HOME", &store);
    for (option, value) in [("sandbox", "false"), ("build-users-group", ""), ("substitute", "false")] {
        command.args(["--option", option, value]);
    }
    command
}

pub fn run(mut command: Command) -> Output {
    // Two that make a new store at once get in each other's way, and one of them fails: it is made once, before all.
    static STORE: std::sync::Once = std::sync::Once::new();
    STORE.call_once(|| {
        let made = self::command("nix-store").arg("--init").output();
        let made = made.unwrap_or_else(|error| panic!("nix-store: {error}; tests/run installs nix-bin"));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    });
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs nix-bin"))
}

/// What it said, or what it said against it.
pub fn of(output: Output) -> Result<String, String> {
    let text = |bytes| String::from_utf8(bytes).expect("text");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// An attribute of `tests/nixos` for this module, which is an expression; or what Nix says against it.
pub fn evaluate(module: &str, attribute: &str) -> Result<Value, String> {
    let mut nix = command("nix-instantiate");
    nix.args(["--eval", "--strict", "--json", "-A", attribute]).args(arguments(module));
    of(run(nix)).map(|text| serde_json::from_str(&text).expect("JSON"))
}

/// Builds it, and returns where it is.
pub fn build(module: &str, attribute: &str) -> Result<PathBuf, String> {
    let mut nix = command("nix-build");
    nix.args(["--no-out-link", "-A", attribute]).args(arguments(module));
    of(run(nix)).map(|text| PathBuf::from(text.trim_end()))
}

/// What was built with it, and what that refers to: a machine that is to have it needs all of this.
#[allow(dead_code, reason = "not everybody who evaluates boots")]
pub fn closure(built: &Path) -> Vec<PathBuf> {
    let mut nix = command("nix-store");
    nix.args(["--query", "--requisites"]).arg(built);
    let paths = of(run(nix)).unwrap_or_else(|why| panic!("{why}"));
    paths.lines().map(PathBuf::from).filter(|path| path != built).collect()
}

fn arguments(module: &str) -> Vec<String> {
    let directory = project().join("tests/nixos");
    let (package, stage) = (format!("{PACKAGE:?}"), format!("{:?}", stage()));
    // A module for home-manager is one all the same.
    let which = if module.contains("programs.") { "home" } else { "module" };
    let flags = [
        "--arg",
        which,
        module,
        "--arg",
        "opnix",
        &package,
        "--arg",
        "stage",
        &stage,
        "--arg",
        "persistence",
        "true",
    ];
    let mut arguments: Vec<String> = flags.into_iter().map(str::to_owned).collect();
    arguments.push(directory.display().to_string());
    arguments
}
