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

#[test]
fn files_of_opnixs_own_configuration_are_written_below_the_home_and_what_nobody_acts_on_is_said() {
    let with = |more: &str| {
        let module = format!(
            "{{ programs.onepassword-secrets = {{ enable = true; configFiles = [ ./tests/cli/check.in/parts/10-first.json ]; {more} }}; }}"
        );
        nix::evaluate(&module, "home").unwrap_or_else(|why| panic!("{why}"))
    };
    let only = with("");
    let service = &only["services"]["opnix-secrets"]["Service"];
    let starts = service["ExecStart"].as_str().unwrap();
    assert!(starts.contains(" secret -output /home/alice ") && starts.contains("10-first.json"), "{starts}");
    assert_eq!(service.get("ExecStartPre"), None);
    assert!(only["warnings"].to_string().contains("in plain text on the disk"), "{only}");
    let both = with(
        r#"secrets.a = { reference = "op://v/i/f"; services = [ "x" ]; }; units.backup.key = { reference = "op://v/i/f"; onChange = "restart"; };"#,
    );
    let service = &both["services"]["opnix-secrets"]["Service"];
    assert!(service["ExecStart"].as_str().unwrap().contains(" -output /home/alice "), "{service}");
    let declared = service["ExecStartPre"].as_str().unwrap();
    assert!(declared.contains(" -output %t/secrets ") && !declared.contains("10-first.json"), "{declared}");
    let warnings = both["warnings"].to_string();
    assert!(
        warnings.contains("`services` of a") && warnings.contains("`onChange` of backup.key"),
        "{warnings}"
    );
}
