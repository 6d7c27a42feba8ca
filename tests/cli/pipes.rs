//! Whoever reads what a command prints may stop at any line, and there may be no room for it: nothing panics.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use super::root;

const FULL: &str = "/dev/full";
/// `EX_OSERR`: the output is lost, and all else was well.
const LOST: i32 = 71;

/// Commands that print something and change nothing; with `true` those that succeed.
const COMMANDS: [(&[&str], bool); 15] = [
    (&["schema"], true),
    (&["check", "--config", "good.json"], true),
    (&["check", "--config", "faulty.json"], false),
    (&["explain", "opencode.service", "openai-api-key", "--config", "good.json"], true),
    (&["explain", "other.service", "openai-api-key", "--config", "good.json"], false),
    (&["doctor", "--config", "good.json"], false),
    (&["status", "--control", "/nonexistent"], false),
    (&["refresh", "--control", "/nonexistent"], false),
    (&["env", "--config-json", r#"{"vars": [{"name": "A", "value": "b"}]}"#], true),
    (&["core", "install", "/nonexistent"], false),
    (&["token", "show", "--path", "/nonexistent"], false),
    (&["--help"], true),
    (&["--version"], true),
    (&["check", "--help"], true),
    (&["check", "--no-such-flag"], false),
];

fn opnix(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_opnix"));
    command.args(arguments).current_dir(root().join("tests/cli/check.in")).stdin(Stdio::null());
    command
}

fn code(arguments: &[&str], status: ExitStatus) -> i32 {
    assert_eq!(status.signal(), None, "{arguments:?}");
    let code = status.code().unwrap();
    assert!(code != 101 && code != 134, "{arguments:?} panics");
    code
}

#[test]
fn a_reader_that_goes_away_changes_no_exit_code_and_nothing_panics() {
    for (arguments, succeeds) in COMMANDS {
        let usual = opnix(arguments).output().unwrap();
        assert_eq!(usual.status.success(), succeeds, "{arguments:?}");
        let usual = code(arguments, usual.status);
        // A pipe that nobody reads.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = opnix(arguments).stdout(writer.try_clone().unwrap()).stderr(writer).status().unwrap();
        // Half of an environment is worse than none.
        let expected = if arguments[0] == "env" { 1 } else { usual };
        assert_eq!(code(arguments, status), expected, "{arguments:?}");
    }
}

#[test]
fn output_that_finds_no_room_is_a_failure_and_no_panic() {
    for (arguments, succeeds) in COMMANDS {
        let usual = code(arguments, opnix(arguments).output().unwrap().status);
        let full = || File::options().write(true).open(FULL).unwrap();
        let output = opnix(arguments).stdout(full()).output().unwrap();
        let expected = match arguments[0] {
            "env" => 1,
            _ if succeeds => LOST,
            _ => usual,
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(code(arguments, output.status), expected, "{arguments:?}: {said}");
        assert!(!succeeds || !said.is_empty(), "{arguments:?}: nobody learns of it");
        let status = opnix(arguments).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(code(arguments, status), expected, "{arguments:?}");
    }
}

#[test]
fn without_standard_output_and_error_nothing_panics() {
    for (arguments, _) in COMMANDS {
        let usual = code(arguments, opnix(arguments).output().unwrap().status);
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"exec "$0" "$@" >&- 2>&-"#, env!("CARGO_BIN_EXE_opnix")]).args(arguments);
        let status = shell.current_dir(root().join("tests/cli/check.in")).status().unwrap();
        assert_eq!(code(arguments, status), usual, "{arguments:?}");
    }
}
