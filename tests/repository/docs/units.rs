//! The unit files that the documentation shows: systemd takes them, and they agree with the README's configuration.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{examples, readme_configuration};
use crate::root;

/// A root directory in which everything is installed as the README says, and each example is where it says itself.
fn installed(name: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if place.exists() {
        fs::remove_dir_all(&place).unwrap();
    }
    let units = place.join("usr/lib/systemd/system");
    fs::create_dir_all(&units).unwrap();
    fs::create_dir_all(place.join("usr/bin")).unwrap();
    fs::create_dir_all(place.join("etc/opnix")).unwrap();
    for entry in fs::read_dir(root().join("systemd")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.extension().is_some_and(|extension| extension != "catalog") {
            fs::copy(&path, units.join(path.file_name().unwrap())).unwrap();
        }
    }
    // What every unit depends on.
    for entry in fs::read_dir("/lib/systemd/system").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "target") && path.is_file() {
            fs::copy(&path, units.join(path.file_name().unwrap())).unwrap();
        }
    }
    for program in ["opnix", "opencode", "sh"] {
        let program = place.join("usr/bin").join(program);
        fs::write(&program, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for (document, example) in of_the_system() {
        let path = example.lines().next().and_then(|line| line.strip_prefix("# /"));
        let path =
            path.unwrap_or_else(|| panic!("{document:?}: the first line says where it goes: {example}"));
        fs::create_dir_all(place.join(path).parent().unwrap()).unwrap();
        fs::write(place.join(path), example).unwrap();
    }
    fs::write(place.join("etc/opnix/secrets.json"), readme_configuration()).unwrap();
    place
}

/// Those of users are used by tests/system/user_manager.rs.
fn of_the_system() -> Vec<(PathBuf, String)> {
    examples("ini").into_iter().filter(|(_, example)| !example.starts_with("# ~/")).collect()
}

#[test]
fn systemd_takes_the_unit_files_that_the_documentation_shows() {
    let place = installed("docs-root-verify");
    let verify = || {
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--root"])
            .arg(&place)
            .args([
                "opencode.service",
                "opnix.service",
                "opnix.socket",
                "opnix-mirror.service",
                "opnix-control.socket",
            ])
            .output()
            .expect("systemd-analyze: tests/run installs it");
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(of_the_system().len(), 6, "a new unit file: name it above");
    assert_eq!(verify(), (true, String::new()));
    // Unknown keys are no failure to it: that all is well shows in its silence, and it is not always silent.
    let drop_in = place.join("etc/systemd/system/opnix.service.d/vault.conf");
    fs::write(&drop_in, fs::read_to_string(&drop_in).unwrap().replace("LoadCredential", "LoadCredentials"))
        .unwrap();
    assert!(verify().1.contains("vault.conf:3: Unknown key"), "{}", verify().1);
}

/// What `opnix check` says of the units and the configuration there.
fn check(place: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_opnix"))
        .args(["check", "--config", "etc/opnix/secrets.json", "--units", "etc/systemd/system"])
        .current_dir(place)
        .output()
        .unwrap()
}

#[test]
fn the_units_and_the_configuration_of_the_readme_agree() {
    let place = installed("docs-root-agree");
    let check = || {
        let output = check(&place);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, text) = check();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("; 1 LoadCredential= line agrees"), "{text}");
    let unit = place.join("etc/systemd/system/opencode.service");
    fs::write(&unit, fs::read_to_string(&unit).unwrap().replace("openai-api-key", "other-key")).unwrap();
    assert_eq!(check().0, Some(78));
}

#[test]
fn the_unit_that_waits_in_the_documentation_has_time_to_start() {
    let place = installed("docs-root-deadline");
    let is_patient = |(_, example): &(PathBuf, String)| example.contains("\"deadline\": \"10m\"");
    let (_, config) = examples("json").into_iter().find(is_patient).unwrap();
    fs::write(place.join("etc/opnix/secrets.json"), config).unwrap();
    let check = || {
        let output = check(&place);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(check(), "");
    fs::remove_file(place.join("etc/systemd/system/opencode.service.d/deadline.conf")).unwrap();
    assert!(check().contains("may wait 10m for credential \"openai-api-key\""), "{}", check());
}
