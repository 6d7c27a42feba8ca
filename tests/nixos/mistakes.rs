//! What is said about each mistake.

use serde_json::json;

use crate::{nix, with};

#[test]
fn each_mistake_has_its_message() {
    let unit = "systemd.services.app.serviceConfig.ExecStart = \"/usr/bin/app\";";
    let credential = |name: &str, id: &str, what: &str| {
        format!(
            "systemd.services.{name} = {{ serviceConfig.ExecStart = \"/bin/x\"; onepassword.credentials.{id} = {what}; }};"
        )
    };
    let long = "n".repeat(80);
    for (module, part) in [
        (
            with("secrets.a.reference = \"Vault/Item/field\";", ""),
            "is no secret reference: write op://vault/item/field",
        ),
        (
            with("", &credential("app", "a", "\"nonsense\"")),
            "systemd.services.app.onepassword.credentials.a: \"nonsense\" is no secret",
        ),
        (
            with("secrets.a = { reference = \"op://v/i/f\"; mode = \"rw\"; };", ""),
            "the mode \"rw\" of a is not 3 or 4 octal digits",
        ),
        (
            with(
                "secrets.a = { reference = \"op://v/i/f\"; path = \"x\"; }; secrets.b = { reference = \"op://v/i/g\"; path = \"x\"; };",
                "",
            ),
            "two secrets or templates are to be /run/secrets/x",
        ),
        (with("", &credential(&long, "abc", "\"op://v/i/f\"")), "bytes too long together"),
        (with("", &credential("app", "a", "{ }")), "give a `reference`, a `template` or a `templateFile`"),
        (with("templates.a = { };", ""), "give a `template` or a `templateFile`"),
        (
            with("secrets.a = { reference = \"op://v/i/f\"; path = \"{nope}/key\"; };", ""),
            "nothing is said for the word in braces in /run/secrets/{nope}/key, the path of a",
        ),
        (
            with(
                "secrets.pw.reference = \"op://v/i/f\";",
                "users.users.alice.hashedPasswordFile = \"/run/secrets/pw\";",
            ),
            "users.users.alice.hashedPasswordFile: NixOS sets passwords before",
        ),
        (
            with(
                "",
                "systemd.services.\"a@\" = { serviceConfig.ExecStart = \"/bin/x\"; onepassword.restartOnChange = true; };",
            ),
            "is a template: name its instances",
        ),
        (with("tokenFile = ./default.nix;", ""), "all users can read the Nix store"),
        (
            with("tokenFile = \"/root/token\"; sealedTokenFile = \"/root/token.cred\";", ""),
            "as it is, or in `sealedTokenFile` sealed: leave out one of the two",
        ),
        (
            with("templates.a.template = \"ops_eyJzaWduSW5BZGRyZXNzIjoi\";", ""),
            "a token of a service account is in the configuration",
        ),
    ] {
        let faults = nix::evaluate(&module, "faults").unwrap_or_else(|why| panic!("{module}: {why}"));
        let faults = faults.as_array().unwrap();
        assert!(faults.iter().any(|fault| fault.as_str().unwrap().contains(part)), "{part}: {faults:?}");
    }
    // Whether a package has a unit is known at the build.
    for reader in ["units = [ \"ap.service\" ]", "services = [ \"ap\" ]"] {
        let module = with(&format!("secrets.a = {{ reference = \"op://v/i/f\"; {reader}; }};"), unit);
        let why = nix::build(&module, "tree").unwrap_err();
        assert!(why.contains("there is no systemd.services.\"ap\""), "{why}");
    }
    let warnings = |module: &str| nix::evaluate(module, "warnings").unwrap().to_string();
    for (options, others, part) in [
        ("users = [ \"alice\" ]; tokenFile = \"/root/token\";", "", "nobody but root comes into /root"),
        (
            "users = [ \"alice\" ]; sealedTokenFile = \"/etc/token.cred\";",
            "",
            "only root can open the token in `sealedTokenFile`, and alice cannot use it",
        ),
        ("", "systemd.services.opnix-secrets.after = [ \"x.service\" ];", "`systemd.services.opnix-mirror`"),
        ("", "systemd.services.opnix-secrets-poll.enable = true;", "services.onepassword-secrets.refresh"),
        (
            "outputDir = \"/var/lib/opnix/secrets\"; configFiles = [ ./tests/cli/check.in/parts/10-first.json ];",
            "",
            "relative paths in `configFiles` are in memory",
        ),
    ] {
        let said = warnings(&with(options, others));
        assert!(said.contains(part), "{part}: {said}");
    }
    let elsewhere = nix::evaluate(&with("", ""), "elsewhere").unwrap();
    assert!(elsewhere.to_string().contains("nobody has looked through its mapping"), "{elsewhere}");
    assert_eq!(warnings(&with("users = [ \"alice\" ];", "")), "[]");
    let volatile = with("tokenFile = \"/root/token\";", "fileSystems.\"/\".fsType = \"tmpfs\";");
    assert!(nix::evaluate(&volatile, "warnings").unwrap()[0].as_str().unwrap().contains("is gone at reboot"));
    let reload = with("", &credential("app", "a", "{ reference = \"op://v/i/f\"; onChange = \"reload\"; }"));
    assert!(nix::evaluate(&reload, "warnings").unwrap()[0].as_str().unwrap().contains("systemd 260"));
    // What the shim of the module system is for: a wrong type and an option that there is none of.
    assert!(
        nix::evaluate(&with("users = \"alice\";", ""), "mapping").is_err()
            || nix::evaluate(&with("users = \"alice\";", ""), "groups").is_err()
    );
    assert!(
        nix::evaluate(&with("secrets.a.ref = \"op://v/i/f\";", ""), "mapping")
            .unwrap_err()
            .contains("does not exist")
    );
}

#[test]
fn a_wrong_mapping_fails_the_build_and_says_why() {
    let wrong = with("fresh_for = 1;", "").replace("fresh_for = 1", "freshFor = \"soon\"");
    assert_eq!(nix::evaluate(&wrong, "faults"), Ok(json!([])));
    let why = nix::build(&wrong, "tree").unwrap_err();
    assert!(why.contains("soon"), "{why}");
}
