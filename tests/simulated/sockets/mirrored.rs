//! Secrets that are written into files: the mirror alone may ask for them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::daemon::{Daemon, UNIT, new_directory};
use opnix::internals::Template;
use opnix::internals::asker;
use serde_json::json;

#[test]
fn what_is_written_into_files_is_served_to_the_mirror_and_to_no_other_unit() {
    let directory = new_directory("mirrored");
    let vault = directory.join("vault.json");
    let item = json!({"title": "key", "fields": [{"label": "value", "value": "made-up"}]});
    fs::write(&vault, json!({"vaults": [{"name": "Vault", "items": [item]}]}).to_string()).unwrap();
    fs::set_permissions(&vault, fs::Permissions::from_mode(0o600)).unwrap();
    let reference = "op://Vault/key/value";
    let config = json!({
        "provider": {"kind": "local", "path": vault},
        "secrets": [{"name": "key", "reference": reference, "path": "key"}],
    });
    let daemon = Daemon::configured(&[], &config, "none");
    let name = Template::parse(&format!("{{{{ {reference} }}}}")).unwrap().mirror_name();
    let ask = |unit: &str, credential: &str| {
        asker::ask(&daemon.control().with_file_name("socket"), unit, credential).unwrap()
    };
    assert_eq!(ask("opnix-mirror.service", name.as_str()).as_deref(), Some(&b"made-up"[..]));
    // Neither when it is fetched, nor now that it is in memory; nor under the name that people gave it.
    for unit in [UNIT, "opnix-mirror@x.service", "opnix-mirror.socket", "my-opnix-mirror.service"] {
        assert_eq!(ask(unit, name.as_str()), None, "{unit}");
        assert_eq!(ask(unit, "key"), None, "{unit}");
    }
    drop(daemon);
    fs::remove_dir_all(directory).unwrap();
}
