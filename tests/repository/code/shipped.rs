//! What the files in `systemd` must say as the program does.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::sources;
use crate::root;

fn shipped(file: &str) -> String {
    fs::read_to_string(root().join("systemd").join(file)).unwrap()
}

#[test]
fn the_unit_files_and_the_program_agree() {
    let sources = sources();
    assert!(shipped("opnix.service").contains("FileDescriptorStoreMax=4096"));
    assert_eq!(opnix::internals::STORE_MAX, 4096);
    assert!(shipped("opnix.socket").contains("ListenStream=/run/opnix/creds.sock"));
    assert!(sources["systemd/mod.rs"].contains("\"/run/opnix/creds.sock\""));
    assert!(shipped("opnix.socket").contains("FileDescriptorName=creds\n"));
    assert!(sources["systemd/activation.rs"].contains("CREDENTIALS: &str = \"creds\""));
    assert!(
        shipped("opnix-control.socket")
            .contains(&format!("ListenStream={}\n", opnix::internals::CONTROL_SOCKET))
    );
    assert!(shipped("opnix-control.socket").contains("FileDescriptorName=control\n"));
    assert!(sources["systemd/activation.rs"].contains("CONTROL: &str = \"control\""));
    let key = opnix::internals::KEY_CREDENTIAL;
    assert!(shipped("opnix-key.service").contains(&format!("LoadCredentialEncrypted={key}\n")));
    let opened =
        format!("LoadCredential={key}:/run/credentials/opnix-key.service/{key}\nSetCredential={key}:\\n\n");
    assert!(shipped("opnix.service").contains(&opened));
}

#[test]
fn a_purge_stops_every_unit_that_is_shipped_and_keeps_it_from_starting() {
    let units = &sources()["cli/purge/units.rs"];
    assert!(units.contains("    SERVICE,\n"), "opnix.service");
    let files = fs::read_dir(root().join("systemd")).unwrap().map(|entry| entry.unwrap().file_name());
    let is_unit = |name: &String| name.ends_with(".service") || name.ends_with(".socket");
    let names: Vec<String> = files.map(|name| name.into_string().unwrap()).filter(is_unit).collect();
    assert!(names.len() >= 8, "{names:?}");
    // Those of the metrics know of no value, and tell that opnix is down.
    let knows_values =
        |name: &String| !name.starts_with("opnix-metrics") && !name.starts_with("opnix-report");
    for name in names.into_iter().filter(knows_values) {
        assert!(name == "opnix.service" || units.contains(&format!("\"{name}\"")), "{name} is not stopped");
        assert!(shipped(&name).contains("\nAssertPathExists=!/etc/opnix/purged\n"), "{name} comes back");
    }
}

#[test]
fn every_kind_of_record_is_in_the_catalog() {
    let after = |text: &str, prefix: &str| -> BTreeSet<String> {
        text.match_indices(prefix).map(|(at, _)| text[at + prefix.len()..][..32].to_owned()).collect()
    };
    // Wherever they stand: in a macro, or as a constant.
    let ids = |code: &String| after(&code.replace("\"8e3f0c5f", "\"id 8e3f0c5f"), "\"id ");
    let used: BTreeSet<String> = sources().values().flat_map(ids).collect();
    assert_eq!(used, after(&shipped("opnix.catalog"), "\n-- "));
    // All of them are in one place, and each has a row for people.
    assert_eq!(used, ids(&sources()["records/id.rs"]));
    let documented = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let rows: BTreeSet<String> = documented
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .filter(|(id, _)| id.len() == 32 && id.starts_with("8e3f0c5f"))
        .map(|(id, _)| id.to_owned())
        .collect();
    assert_eq!(used, rows);
}

/// In a copy of this system, of which nothing remains.
#[test]
fn what_is_installed_into_the_system_is_explained_by_journalctl() {
    let script = r#"
        at=$(mktemp -d) && mount -t tmpfs none "$at" && mkdir "$at/upper" "$at/work" &&
        mount -t overlay -o "lowerdir=/usr,upperdir=$at/upper,workdir=$at/work" none /usr &&
        mount -t tmpfs none /var/lib/systemd && mkdir /var/lib/systemd/catalog && mount -t tmpfs none /run &&
        LIVE=no BINARY=/bin/true systemd/install /usr >&2 && journalctl --list-catalog"#;
    let run = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script])
        .current_dir(root())
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&run.stdout);
    let id = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c02";
    assert!(run.status.success() && listed.contains(id), "{}{listed}", String::from_utf8_lossy(&run.stderr));
}
