//! `opnix env`: variables for a shell.

use std::process::Command;

use serde_json::{Value, json};

use super::{AWKWARD, Place, text};

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
