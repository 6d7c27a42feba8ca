//! What must be kept on a host whose root is new at each boot.

use serde_json::{Value, json};

use crate::{nix, with};

#[test]
fn with_impermanence_what_must_be_kept_is_listed() {
    let kept = with("tokenFile = \"/root/.config/op/token\"; persistence.root = \"/persist\";", "");
    let persistence = nix::evaluate(&kept, "persistence").unwrap();
    let directories = persistence["/persist"]["directories"].as_array().unwrap();
    assert!(
        directories.contains(&json!({"directory": "/root/.config/op", "mode": "0700"})),
        "{directories:?}"
    );
    for directory in ["/var/lib/private/opnix", "/var/lib/opnix-mirror"] {
        assert!(directories.contains(&json!(directory)), "{directories:?}");
    }
    assert_eq!(persistence["/persist"]["files"], json!(["/etc/machine-id"]));
    // A directory that others use is never kept as a whole, and what is on the kept disk already is not listed at all.
    for (token, file) in [("/var/lib/token", Some("/var/lib/token")), ("/persist/op/token", None)] {
        let kept = with(&format!("tokenFile = \"{token}\"; persistence.root = \"/persist\";"), "");
        let persistence = &nix::evaluate(&kept, "persistence").unwrap()["/persist"];
        assert_eq!(persistence["directories"].as_array().unwrap().len(), 4, "{persistence}");
        assert_eq!(persistence["files"].get(1).and_then(Value::as_str), file, "{persistence}");
    }
    // A sealed token is where systemd keeps such things, which is listed already, or elsewhere, or in the store.
    for (token, listed) in [
        ("\"/etc/credstore.encrypted/opnix-token\"", 4),
        ("\"/root/sealed/token\"", 5),
        ("./tests/nixos/app.template", 4),
    ] {
        let kept = with(&format!("sealedTokenFile = {token}; persistence.root = \"/persist\";"), "");
        let persistence = &nix::evaluate(&kept, "persistence").unwrap()["/persist"];
        assert_eq!(persistence["directories"].as_array().unwrap().len(), listed, "{persistence}");
        assert_eq!(persistence["files"], json!(["/etc/machine-id"]));
    }
}
