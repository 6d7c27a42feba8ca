//! The NixOS module over a table of configurations, evaluated without nixpkgs: see tests/nixos.

// A test that panics has failed, which is what it should do then.
#![allow(clippy::unwrap_used)]

use std::fs;

use serde_json::{Value, json};

#[path = "nixos/evaluation.rs"]
mod nix;

/// A configuration with the module at work, and these lines within `services.onepassword-secrets`.
fn with(options: &str, others: &str) -> String {
    format!("{{ services.onepassword-secrets = {{ enable = true; {options} }}; {others} }}")
}

fn mapping(module: &str) -> Value {
    assert_eq!(nix::evaluate(module, "faults"), Ok(json!([])), "{module}");
    nix::evaluate(module, "mapping").unwrap_or_else(|why| panic!("{module}: {why}"))
}

#[test]
fn the_three_lines_that_an_opnix_user_has_evaluate_and_build() {
    let three = with("users = [ \"alice\" ]; tokenFile = \"/root/.config/op/token\";", "");
    assert_eq!(mapping(&three)["provider"], json!({"kind": "service_account"}));
    assert_eq!(
        nix::evaluate(&three, "groups").unwrap(),
        json!({"onepassword-secrets": {"members": ["alice"]}})
    );
    let units = nix::evaluate(&three, "units").unwrap();
    let service = units["opnix.service"]["text"].as_str().unwrap();
    assert!(service.contains("\nLoadCredential=token:/root/.config/op/token\n"), "{service}");
    assert!(service.contains("\nX-StopIfChanged=false\n"), "{service}");
    // Hardening has one truth, the shipped unit.
    assert!(!service.contains("Protect") && !service.contains("ExecStart"), "{service}");
    nix::build(&three, "tree").unwrap();
    // Without `enable` nothing at all happens.
    let off = "{ services.onepassword-secrets.users = [ \"alice\" ]; }";
    assert_eq!(nix::evaluate(off, "units").unwrap(), json!({}));
}

#[test]
fn a_configuration_of_opnix_evaluates_unchanged() {
    let opnix = with(
        r#"
        tokenFile = "/etc/opnix-token";
        outputDir = "/run/secrets";
        users = [ "alice" ];
        pathTemplate = "{service}/{name}.{environment}";
        defaults = { environment = "prod"; };
        configFiles = [ ];
        secrets = {
          databasePassword = { reference = "op://Vault/Database/password"; variables = { service = "postgresql"; name = "password"; }; owner = "postgres"; group = "postgres"; mode = "0440"; };
          sslKey = { reference = "op://Vault/SSL/key.pem"; kind = "file"; path = "/var/lib/ssl/key.pem"; symlinks = [ "/etc/ssl/key.pem" ];
            services = { caddy = { restart = false; signal = "SIGHUP"; after = [ "opnix-secrets.service" ]; }; }; };
          plain = { reference = "op://Vault/Plain/key"; path = "plain"; services = [ "caddy" ]; };
        };
        systemdIntegration = {
          enable = true; services = [ "caddy" ]; restartOnChange = true;
          changeDetection = { enable = true; hashFile = "/var/lib/opnix/hashes"; };
          polling = { enable = true; interval = "6h"; };
          errorHandling = { rollbackOnFailure = false; continueOnError = true; maxRetries = 3; };
        };
        "#,
        "systemd.services.caddy.serviceConfig.ExecStart = \"/usr/bin/caddy\";",
    );
    let mapping = mapping(&opnix);
    // What is not said is left to opnix, so that the interval of the polling counts, and files may say it.
    assert_eq!(mapping["systemdIntegration"]["polling"]["interval"], "6h");
    assert_eq!(mapping.get("refresh").or(mapping.get("deadline")), None);
    let secret = |name: &str| {
        let secrets = mapping["secrets"].as_array().unwrap();
        secrets.iter().find(|secret| secret["name"] == name).unwrap().clone()
    };
    assert_eq!(secret("databasePassword")["path"], "/run/secrets/postgresql/password.prod");
    assert_eq!(secret("sslKey")["services"]["caddy"]["signal"], "SIGHUP");
    assert_eq!(
        nix::evaluate(&opnix, "secretPaths").unwrap(),
        json!({"databasePassword": "/run/secrets/postgresql/password.prod", "sslKey": "/var/lib/ssl/key.pem", "plain": "/run/secrets/plain"})
    );
    let tree = nix::build(&opnix, "tree").unwrap_or_else(|why| panic!("{why}"));
    let units = tree.join("etc/systemd/system");
    let caddy = fs::read_to_string(units.join("caddy.service.d/opnix.conf")).unwrap();
    assert_eq!(
        caddy,
        "[Unit]\nWants=opnix-mirror.service\nAfter=opnix-mirror.service\n\
         AssertPathExists=/run/secrets/plain\nAssertPathExists=/var/lib/ssl/key.pem\n"
    );
    assert_eq!(
        fs::read_link(units.join("opnix-secrets.service")).unwrap().to_str(),
        Some("opnix-mirror.service")
    );
}

#[test]
fn a_line_at_a_unit_is_the_mapping_and_the_credential() {
    let unit = with(
        "",
        r#"
        systemd.package = { type = "derivation"; name = "systemd"; outPath = "/usr"; version = "262"; };
        systemd.services."web@" = {
          serviceConfig.ExecStart = "/usr/bin/web";
          onepassword.credentials = {
            key = "op://Vault/Web/key";
            url = { template = "https://u:{{ op://Vault/Web/password }}@h"; onChange = "reload"; cache = "memory"; };
          };
          onepassword.environment.KEY = "op://Vault/Web/key";
        };
        systemd.services.job = {
          serviceConfig.ExecStart = "/usr/bin/job";
          onepassword.environment.KEY = "op://Vault/Job/key";
          onepassword.restartOnChange = true;
        };
        "#,
    );
    let mapping = mapping(&unit);
    assert_eq!(
        mapping["secrets"],
        json!([{"name": "key@web@", "reference": "op://Vault/Web/key",
            "units": [{"unit": "web@*.service", "credential": "key", "on_change": "none"}]}])
    );
    assert_eq!(mapping["templates"][0]["units"][0]["on_change"], "reload");
    assert_eq!(mapping["templates"][1]["services"], json!(["job"]));
    assert_eq!(mapping["templates"][2]["template"], "KEY={{ op://Vault/Web/key | env }}\n");
    let text = nix::evaluate(&unit, "units").unwrap()["web@.service"]["text"].as_str().unwrap().to_owned();
    for line in [
        "LoadCredential=key:/run/opnix/creds.sock",
        "LoadCredential=url:/run/opnix/creds.sock",
        "RefreshOnReload=credentials",
        "EnvironmentFile=/run/secrets/web@.env",
        "After=opnix.socket opnix-mirror.service",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    nix::build(&unit, "tree").unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn every_option_has_its_effect() {
    let all = with(
        r#"
        tokenFile = "/root/token";
        users = [ "alice" ];
        outputDir = "/run/secrets";
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
            "short_deadline": "1s", "refresh": "never", "budget": {"hourly": 50, "daily": 100},
            "systemdIntegration": {"services": ["caddy"]},
            "secrets": [
                {"name": "credential", "reference": "op://V/I/g",
                    "units": ["caddy.service", {"unit": "caddy.service", "credential": "other", "on_change": "restart"}]},
                {"name": "plain", "reference": "op://V/I/f", "kind": "file", "path": "/run/secrets/other/x", "owner": "caddy",
                    "group": "web", "mode": "0440", "symlinks": ["/run/link"], "optional": true,
                    "services": {"caddy": {"restart": false, "signal": "SIGHUP", "after": []}},
                    "cache": "never", "fresh_for": "1s", "stale_for": "2s", "always_fetch": true},
                {"name": "file@caddy", "reference": "op://V/I/h", "kind": "file", "always_fetch": true,
                    "units": [{"unit": "caddy.service", "credential": "file", "on_change": {"signal": "SIGUSR1"}}]},
            ],
            "templates": [{"name": "env", "template": "K={{ op://V/I/f | env }}\n", "path": "/etc/env", "owner": "root",
                "group": "root", "mode": "0600"}],
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
        (
            with("secrets.a = { reference = \"op://v/i/f\"; units = [ \"ap.service\" ]; };", unit),
            "there is no systemd.services.\"ap\"",
        ),
        (
            with("secrets.a = { reference = \"op://v/i/f\"; services = [ \"ap\" ]; };", unit),
            "there is no systemd.services.\"ap\"",
        ),
        (with("", &credential(&long, "abc", "\"op://v/i/f\"")), "bytes too long together"),
        (with("", &credential("app", "a", "{ }")), "give a `reference` or a `template`"),
        (
            with(
                "",
                "systemd.services.\"a@\" = { serviceConfig.ExecStart = \"/bin/x\"; onepassword.restartOnChange = true; };",
            ),
            "is a template: name its instances",
        ),
        (with("tokenFile = ./default.nix;", ""), "all users can read the Nix store"),
        (
            with("templates.a.template = \"ops_eyJzaWduSW5BZGRyZXNzIjoi\";", ""),
            "a token of a service account is in the configuration",
        ),
    ] {
        let faults = nix::evaluate(&module, "faults").unwrap_or_else(|why| panic!("{module}: {why}"));
        let faults = faults.as_array().unwrap();
        assert!(faults.iter().any(|fault| fault.as_str().unwrap().contains(part)), "{part}: {faults:?}");
    }
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

#[test]
fn with_impermanence_what_must_be_kept_is_listed() {
    let kept = with("tokenFile = \"/root/.config/op/token\"; persistence.root = \"/persist\";", "");
    let persistence = nix::evaluate(&kept, "persistence").unwrap();
    let directories = persistence["/persist"]["directories"].as_array().unwrap();
    assert!(
        directories.contains(&json!({"directory": "/root/.config/op", "mode": "0700"})),
        "{directories:?}"
    );
    assert!(directories.contains(&json!("/var/lib/private/opnix")), "{directories:?}");
    assert_eq!(persistence["/persist"]["files"], json!(["/etc/machine-id"]));
    // A directory that others use is never kept as a whole, and what is on the kept disk already is not listed at all.
    for (token, file) in [("/var/lib/token", Some("/var/lib/token")), ("/persist/op/token", None)] {
        let kept = with(&format!("tokenFile = \"{token}\"; persistence.root = \"/persist\";"), "");
        let persistence = &nix::evaluate(&kept, "persistence").unwrap()["/persist"];
        assert_eq!(persistence["directories"].as_array().unwrap().len(), 3, "{persistence}");
        assert_eq!(persistence["files"].get(1).and_then(Value::as_str), file, "{persistence}");
    }
}

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
fn every_nix_example_in_the_documentation_evaluates_and_builds() {
    let mut count = 0;
    let docs = fs::read_dir(nix::project().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    for path in docs.chain([nix::project().join("README.md")]) {
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for example in text.split("```nix\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
            count += 1;
            if example.contains("programs.") {
                nix::evaluate(example, "home").unwrap_or_else(|why| panic!("{path:?}: {example}\n{why}"));
                continue;
            }
            assert_eq!(nix::evaluate(example, "faults"), Ok(json!([])), "{path:?}: {example}");
            nix::build(example, "tree").unwrap_or_else(|why| panic!("{path:?}: {example}\n{why}"));
        }
    }
    assert!(count >= 8, "{count}");
}

#[test]
fn the_flake_evaluates() {
    nix::check_flake().unwrap_or_else(|why| panic!("{why}"));
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
            option["example"] != Value::Null || name.ends_with("package") || name.ends_with("secretPaths"),
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
