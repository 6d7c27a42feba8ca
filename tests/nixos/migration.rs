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
