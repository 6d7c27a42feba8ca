//! Where nobody has written a configuration yet.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What this program says in a view of the machine in which there is no /etc/opnix.
fn said(program: &Path) -> Vec<String> {
    let script = "mount -t tmpfs none /etc/opnix 2>/dev/null; exec \"$0\" check";
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script])
        .arg(program)
        .output()
        .unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    said.lines().map(str::to_owned).collect()
}

const NOTHING: &str =
    "/etc/opnix/secrets.json: there is no configuration yet, and so no unit is given anything";

#[test]
fn where_nothing_is_written_it_is_said_what_to_write() {
    let lines = said(Path::new(env!("CARGO_BIN_EXE_opnix")));
    let [nothing, example, then] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(nothing, NOTHING);
    // What is to be pasted is valid.
    let example = example.strip_prefix("    write into it which unit gets which secret, such as: ").unwrap();
    assert_eq!(super::written("nothing", &[example]).unwrap().entries.len(), 1);
    assert_eq!(then, "    then edit it, and: opnix check; all keys are in docs/configuration.md");
}

#[test]
fn where_an_example_is_installed_that_is_what_to_begin_with() {
    let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nothing-{}", std::process::id()));
    fs::create_dir_all(prefix.join("bin")).unwrap();
    fs::create_dir_all(prefix.join("share/doc/opnix")).unwrap();
    let (program, example) = (prefix.join("bin/opnix"), prefix.join("share/doc/opnix/secrets.json.example"));
    fs::hard_link(env!("CARGO_BIN_EXE_opnix"), &program).unwrap();
    fs::write(&example, "").unwrap();
    let lines = said(&program);
    assert_eq!(lines[0], NOTHING);
    let begin = "begin with the example: install -D -m 0644";
    assert_eq!(lines[1], format!("    {begin} {} /etc/opnix/secrets.json", example.display()));
    fs::remove_dir_all(prefix).unwrap();
}
