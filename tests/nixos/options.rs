//! What each option does, and that the documentation has all of them.

use std::fs;

use serde_json::{Value, json};

use crate::{mapping, nix, with};

#[test]
fn every_option_has_its_effect() {
    let all = with(
        r#"
        tokenFile = "/root/token";
        users = [ "alice" ];
        outputDir = "/run/opnix-secrets";
        cache = "memory"; freshFor = "1h"; staleFor = "30d"; grace = "0s"; deadline = "2m"; shortDeadline = "1s"; refresh = "never";
        budget = { hourly = 50; daily = 100; };
        provider.serviceAccount = { library = "/usr/lib/core.so"; hosts = [ "1password.example.org" ]; };
        configFiles = [ ./tests/cli/check.in/parts/10-first.json ];
        persistence = { root = "/keep"; directories = [ ]; files = [ ]; };
        systemdIntegration.services = [ "caddy" ];
        pathTemplate = "{service}/x"; defaults.service = "web";
        secrets.plain = {
          reference = "op://V/I/f"; kind = "file"; variables.service = "other"; owner = "caddy"; group = "web"; mode = "0440";
          symlinks = [ "/run/link" ]; optional = true; services.caddy = { restart = false; signal = "SIGHUP"; after = [ ]; };
          cache = "never"; freshFor = "1s"; staleFor = "2s"; alwaysFetch = true;
        };
        secrets.credential = { reference = "op://V/I/g"; units = [ "caddy.service" { unit = "caddy.service"; credential = "other"; on_change = "restart"; } ]; };
        templates.env = { template = "K={{ op://V/I/f | env }}\n"; path = "/etc/env"; };
        "#,
        r#"
        systemd.services.caddy = {
          serviceConfig.ExecStart = "/usr/bin/caddy";
          onepassword.credentials.file = { reference = "op://V/I/h"; kind = "file"; onChange = { signal = "SIGUSR1"; }; alwaysFetch = true; };
        };
        "#,
    );
    assert_eq!(
        mapping(&all),
        json!({
            "provider": {"kind": "service_account", "library": "/usr/lib/core.so", "hosts": ["1password.example.org"]},
            "cache": "memory", "fresh_for": "1h", "stale_for": "30d", "grace": "0s", "deadline": "2m",
            "short_deadline": "1s", "refresh": "never", "mirror_root": "/run/opnix-secrets", "budget": {"hourly": 50, "daily": 100},
            "systemdIntegration": {"services": ["caddy"]},
            "secrets": [
                {"name": "credential", "reference": "op://V/I/g",
                    "units": ["caddy.service", {"unit": "caddy.service", "credential": "other", "on_change": "restart"}]},
                {"name": "plain", "reference": "op://V/I/f", "kind": "file", "path": "/run/opnix-secrets/other/x", "owner": "caddy",
                    "group": "web", "mode": "0440", "symlinks": ["/run/link"], "optional": true,
                    "services": {"caddy": {"restart": false, "signal": "SIGHUP", "after": []}},
                    "cache": "never", "fresh_for": "1s", "stale_for": "2s", "always_fetch": true},
                {"name": "file@caddy", "reference": "op://V/I/h", "kind": "file", "always_fetch": true,
                    "units": [{"unit": "caddy.service", "credential": "file", "on_change": {"signal": "SIGUSR1"}}]},
            ],
            "templates": [{"name": "env", "template": "K={{ op://V/I/f | env }}\n", "path": "/etc/env", "owner": "root",
                "mode": "0600"}],
        })
    );
    let units = nix::evaluate(&all, "units").unwrap();
    let mirror = units["opnix-mirror.service"]["text"].as_str().unwrap();
    assert!(
        mirror.contains("\nReadWritePaths=-/etc\n") && mirror.contains("\nInaccessiblePaths=-/root/token\n"),
        "{mirror}"
    );
    assert_eq!(nix::evaluate(&all, "tmpfiles").unwrap()[1], "z /root/token 0640 root onepassword-secrets -");
    assert_eq!(
        nix::evaluate(&all, "persistence").unwrap(),
        json!({"/keep": {"directories": [], "files": ["/root/token"]}})
    );
    let connect = with(
        "provider.connect = { host = \"https://c.example.org\"; authority = \"/etc/ca.pem\"; }; settings.deadline = \"9s\";",
        "",
    );
    let connect = mapping(&connect);
    assert_eq!(
        connect["provider"],
        json!({"kind": "connect", "host": "https://c.example.org", "authority": "/etc/ca.pem"})
    );
    assert_eq!(connect["deadline"], "9s");
}

#[test]
fn a_sealed_token_is_opened_by_systemd_and_hidden_from_the_mirror() {
    for (said, path) in
        [("\"/var/lib/sealed/token\"", "/var/lib/sealed/token"), ("./tests/nixos/app.template", "/nix/")]
    {
        let sealed = with(&format!("sealedTokenFile = {said}; users = [ \"alice\" ];"), "");
        assert_eq!(nix::evaluate(&sealed, "faults"), Ok(json!([])));
        let units = nix::evaluate(&sealed, "units").unwrap();
        let line = |unit: &str, key: &str| -> Vec<String> {
            let text = units[unit]["text"].as_str().unwrap();
            text.lines().filter_map(|line| line.strip_prefix(key)).map(str::to_owned).collect()
        };
        let loaded = line("opnix.service", "LoadCredentialEncrypted=");
        assert!(
            loaded.len() == 1 && loaded[0].starts_with("token:/") && loaded[0].contains(path),
            "{loaded:?}"
        );
        assert_eq!(line("opnix.service", "LoadCredential="), [""; 0]);
        let file = loaded[0].trim_start_matches("token:");
        assert_eq!(line("opnix-mirror.service", "InaccessiblePaths="), [format!("-{file}")]);
        // Nobody gets a right to it who could not open it.
        assert_eq!(nix::evaluate(&sealed, "tmpfiles").unwrap().as_array().unwrap().len(), 1);
    }
}

#[test]
fn the_documentation_has_every_option() {
    let mut text = String::from(
        "# NixOS options\n\nMade from the module by a test: `OPNIX_BLESS=1 cargo test --locked --test nixos`. How it all fits together: \
         [getting-started.md](getting-started.md).\n",
    );
    let options = nix::evaluate("{ }", "options").unwrap();
    let options = options.as_array().unwrap();
    assert!(options.len() > 50, "{}", options.len());
    for option in options {
        let name = option["name"].as_str().unwrap();
        let description = option["description"].as_str().unwrap().trim();
        assert!(!description.is_empty(), "{name} has no description");
        assert!(
            option["example"] != Value::Null
                || ["package", "secretPaths", "credentials.<name>.path"]
                    .iter()
                    .any(|end| name.ends_with(end)),
            "{name} has no example"
        );
        text += &format!("\n## `{name}`\n\n{description}\n\nType: {}.", option["type"].as_str().unwrap());
        for (key, word) in [("default", "Default"), ("example", "Example")] {
            if let Some(value) = option[key].as_str() {
                text += &format!(" {word}: `` {} ``.", value.replace('\n', " "));
            }
        }
        text += "\n";
    }
    let path = nix::project().join("docs/nixos-options.md");
    if std::env::var_os("OPNIX_BLESS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == text,
        "docs/nixos-options.md is out of date: OPNIX_BLESS=1 cargo test --locked --test nixos"
    );
}
