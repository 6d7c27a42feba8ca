//! Where nobody has written a configuration yet.

use std::process::Command;

#[test]
fn where_nothing_is_written_it_is_said_what_to_write() {
    // In a view of the machine in which there is no /etc/opnix.
    let script = "mount -t tmpfs none /etc/opnix 2>/dev/null; exec \"$0\" check";
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_opnix")])
        .output()
        .unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    let mut lines = said.lines();
    assert_eq!(
        lines.next(),
        Some("/etc/opnix/secrets.json: there is no configuration yet, and so no unit is given anything")
    );
    // What is to be pasted is valid.
    let example = lines
        .next()
        .and_then(|line| line.strip_prefix("    write into it which unit gets which secret, such as: "));
    assert_eq!(super::written("nothing", &[example.unwrap()]).unwrap().entries.len(), 1);
    assert_eq!(
        lines.collect::<Vec<_>>(),
        ["    then edit it, and: opnix check; all keys are in docs/configuration.md"]
    );
}
