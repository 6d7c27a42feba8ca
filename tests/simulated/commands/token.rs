//! `opnix token set`.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use super::{Place, mode, text};

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
