//! The module for home-manager.

use serde_json::json;

use crate::nix;

#[test]
fn a_users_own_units_are_served_by_a_service_of_their_own() {
    let home = r#"{ programs.onepassword-secrets = { enable = true; tokenFile = "/home/alice/token";
        secrets.sshKey = { reference = "op://P/ssh/key"; path = ".ssh/key"; }; units.backup.key = "op://P/B/k"; }; }"#;
    let home = nix::evaluate(home, "home").unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(home["sockets"]["opnix"]["Socket"]["ListenStream"], "%t/opnix/creds.sock");
    assert_eq!(home["services"]["backup"]["Service"]["LoadCredential"], json!(["key:%t/opnix/creds.sock"]));
    let serve = home["services"]["opnix"]["Service"]["ExecStart"].as_str().unwrap();
    assert!(serve.contains("serve --user --token-file /home/alice/token --config "), "{serve}");
    assert_eq!(home["secretPaths"]["sshKey"], "/home/alice/.ssh/key");
}
