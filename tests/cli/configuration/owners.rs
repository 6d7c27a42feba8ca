//! Whose the files are.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

/// A program that only root, or whoever runs it, could have written.
fn check(file: &Path) -> (Option<i32>, String) {
    let program = file.with_file_name("opnix");
    fs::copy(env!("CARGO_BIN_EXE_opnix"), &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(&program).args(["check", "--config"]).arg(file).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), told.replace(file.parent().unwrap().to_str().unwrap(), "/place"))
}

#[test]
fn what_others_could_have_written_is_faulty() {
    let place = std::env::temp_dir().join(format!("opnix-whose-{}", std::process::id()));
    fs::create_dir_all(&place).unwrap();
    fs::set_permissions(&place, Permissions::from_mode(0o755)).unwrap();
    let file = place.join("secrets.json");
    fs::write(&file, r#"{"secrets": []}"#).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    let told =
        "/place/secrets.json: /place/secrets.json can be written by other users than its owner (mode 0666)
    chmod go-w /place/secrets.json
opnix: the configuration has 1 fault
";
    assert_eq!(check(&file), (Some(78), told.to_owned()));
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(check(&file), (Some(0), String::new()));
    // Only root can give a file away.
    match chown(&file, Some(12345), None) {
        Ok(()) => {
            let told = "/place/secrets.json: /place/secrets.json belongs to user 12345, who could change it
    chown --no-dereference root /place/secrets.json, or keep the configuration elsewhere
opnix: the configuration has 1 fault
";
            assert_eq!(check(&file), (Some(78), told.to_owned()));
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
    }
    fs::remove_dir_all(place).unwrap();
}
