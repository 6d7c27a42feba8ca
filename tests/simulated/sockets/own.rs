//! The sockets that the service makes itself, without systemd.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::daemon::{Daemon, new_directory};
use serde_json::json;

#[test]
fn the_services_own_sockets_are_for_its_own_user_alone() {
    let directory = new_directory("own-sockets");
    let provider = json!({"kind": "local", "path": directory.join("vault.json")});
    let daemon = Daemon::with("5s", &provider, "none", &[]);
    for name in ["socket", "control"] {
        let path = daemon.control().with_file_name(name);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    drop(daemon);
    fs::remove_dir_all(directory).unwrap();
}
