//! What a host of OpNix has, unchanged.

use std::fs;

use serde_json::json;

use crate::{mapping, nix, with};

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
    let caddy = nix::evaluate(&opnix, "units").unwrap()["caddy.service"]["text"].as_str().unwrap().to_owned();
    for line in [
        "Wants=opnix-mirror.service",
        "After=opnix-mirror.service",
        "AssertPathExists=/run/secrets/plain",
        "AssertPathExists=/var/lib/ssl/key.pem",
    ] {
        assert!(caddy.lines().any(|found| found == line), "{line}\n{caddy}");
    }
    let tree = nix::build(&opnix, "tree").unwrap_or_else(|why| panic!("{why}"));
    let units = tree.join("etc/systemd/system");
    assert!(!units.join("caddy.service.d").join("opnix.conf").exists());
    assert_eq!(
        fs::read_link(units.join("opnix-secrets.service")).unwrap().to_str(),
        Some("opnix-mirror.service")
    );
}

#[test]
fn the_services_of_the_integration_come_after_their_files_where_it_is_on() {
    let text = |integration: &str| {
        let module = with(
            &format!("secrets.a.reference = \"op://v/i/f\"; systemdIntegration = {{ {integration} }};"),
            "systemd.services.caddy.serviceConfig.ExecStart = \"/usr/bin/caddy\";",
        );
        nix::evaluate(&module, "units").unwrap()["caddy.service"]["text"].as_str().unwrap().to_owned()
    };
    let on = text("services = [ \"caddy\" ];");
    assert!(
        on.contains("Wants=opnix-mirror.service\n") && on.contains("After=opnix-mirror.service\n"),
        "{on}"
    );
    // They need no file of their own.
    assert!(!on.contains("AssertPathExists"), "{on}");
    assert!(!text("enable = false; services = [ \"caddy\" ];").contains("opnix"));
}

#[test]
fn a_unit_of_a_package_is_told_by_a_drop_in_and_one_of_nobody_fails_the_build() {
    let fwupd = "({ pkgs, ... }: { services.onepassword-secrets = { enable = true; \
        secrets.a = { reference = \"op://v/i/f\"; services = [ \"fwupd\" \"job@1\" \"of-nixos@1\" ]; }; }; \
        systemd.services.\"of-nixos@\".serviceConfig.ExecStart = \"/bin/x\"; \
        systemd.packages = [ (pkgs.writeTextDir \"lib/systemd/system/fwupd.service\" \"[Service]\") \
          (pkgs.runCommand \"job\" { } \"mkdir -p $out/etc/systemd/system; echo [Service] >$out/etc/systemd/system/job@.service\") ]; })";
    let tree = nix::build(fwupd, "tree").unwrap_or_else(|why| panic!("{why}"));
    for unit in ["fwupd", "job@1", "of-nixos@1"] {
        let told = tree.join(format!("etc/systemd/system/{unit}.service.d/opnix.conf"));
        assert_eq!(
            fs::read_to_string(told).unwrap(),
            "[Unit]\nWants=opnix-mirror.service\nAfter=opnix-mirror.service\nAssertPathExists=/run/secrets/a\n"
        );
    }
    let misspelled = fwupd.replace("\"fwupd\" ", "\"fwup\" ");
    let why = nix::build(&misspelled, "tree").unwrap_err();
    assert!(why.contains("there is no systemd.services.\"fwup\", and no package has such a unit"), "{why}");
}

#[test]
fn a_name_in_a_path_is_the_secrets_and_a_variable_its_value() {
    let paths = nix::evaluate(
        &with(
            r#"pathTemplate = "/etc/ssl/{service}/{name}"; defaults = { service = "caddy"; env = "prod"; };
            secrets.cert = { reference = "op://v/i/f"; };
            secrets.key = { reference = "op://v/i/f"; variables.service = "pg"; };
            secrets.own = { reference = "op://v/i/f"; path = "x/{env}/{name}"; };
            templates.t = { template = "{{ op://v/i/f }}"; path = "{env}/{name}.env"; };"#,
            "",
        ),
        "secretPaths",
    );
    assert_eq!(
        paths.unwrap(),
        json!({"cert": "/etc/ssl/caddy/cert", "key": "/etc/ssl/pg/key", "own": "/run/secrets/x/prod/own", "t": "/run/secrets/prod/t.env"})
    );
}

#[test]
fn a_file_that_was_built_can_be_one_of_the_configuration() {
    let built = "({ pkgs, ... }: { services.onepassword-secrets = { enable = true; configFiles = [ \
        (pkgs.writeText \"more.json\" ''{\"secrets\": [{\"path\": \"a\", \"reference\": \"op://v/i/f\"}]}'') ]; }; })";
    let tree = nix::build(built, "tree").unwrap_or_else(|why| panic!("{why}"));
    let files: Vec<_> = fs::read_dir(tree.join("etc/opnix/secrets.d")).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
}
