//! What the files in `systemd` must say as the program does.

use std::collections::BTreeSet;
use std::fs;

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
fn every_kind_of_record_is_in_the_catalog() {
    let after = |text: &str, prefix: &str| -> BTreeSet<String> {
        text.match_indices(prefix).map(|(at, _)| text[at + prefix.len()..][..32].to_owned()).collect()
    };
    // Wherever they stand: in a macro, or as a constant.
    let ids = |code: &String| after(&code.replace("\"8e3f0c5f", "\"id 8e3f0c5f"), "\"id ");
    let used: BTreeSet<String> = sources().values().flat_map(ids).collect();
    assert_eq!(used, after(&shipped("opnix.catalog"), "\n-- "));
    assert_eq!(used.len(), 28);
}
