//! Secrets at the units that use them.

use serde_json::json;

use crate::{mapping, nix, with};

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
            url = { template = "https://u:{{ op://Vault/Web/password }}@h"; onChange = "reload"; cache = "memory"; deadline = "10m"; };
          };
          onepassword.environment.KEY = "op://Vault/Web/key";
        };
        systemd.services.slow = {
          unitConfig.StartLimitIntervalSec = 60;
          serviceConfig = { ExecStart = "/usr/bin/slow"; RestartSec = "1min"; };
          onepassword.credentials.key = "op://Vault/Web/key";
        };
        systemd.services.once = {
          serviceConfig = { Type = "oneshot"; ExecStart = "/usr/bin/once"; };
          onepassword.credentials.key = "op://Vault/Web/key";
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
        json!(["once", "slow", "web@"].map(|unit| {
            let units = if unit == "web@" { "web@*.service".to_owned() } else { format!("{unit}.service") };
            json!({"name": format!("key@{unit}"), "reference": "op://Vault/Web/key",
                "units": [{"unit": units, "credential": "key", "on_change": "none"}]})
        }))
    );
    assert_eq!(mapping["templates"][0]["units"][0]["on_change"], "reload");
    assert_eq!(mapping["templates"][0]["units"][0]["deadline"], "10m");
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
    let tree = nix::build(&unit, "tree").unwrap_or_else(|why| panic!("{why}"));
    // Refused, they try again; not so a oneshot, which systemd would not take.
    let retry = |unit: &str| {
        let path = format!("etc/systemd/system/{unit}.service.d/opnix-retry.conf");
        std::fs::read_to_string(tree.join(path)).ok()
    };
    assert_eq!(
        retry("web@").as_deref(),
        Some("[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestartForceExitStatus=243\nRestartSec=5s\n")
    );
    assert_eq!(retry("slow").as_deref(), Some("[Service]\nRestartForceExitStatus=243\n"));
    assert_eq!((retry("once"), retry("job")), (None, None));
}

#[test]
fn metrics_are_written_where_they_are_asked_for() {
    let host = |options: &str, version: &str| {
        let package = format!(
            r#"systemd.package = {{ type = "derivation"; name = "systemd"; outPath = "/usr"; version = "{version}"; }};"#
        );
        nix::evaluate(&with(options, &package), "units").unwrap()
    };
    let wanted = |units: &serde_json::Value, unit: &str| units[unit]["wantedBy"].clone();
    let units = host("metrics.enable = true;", "257");
    assert_eq!(wanted(&units, "opnix-metrics.timer"), json!(["timers.target"]));
    assert!(units.get("opnix-report.socket").is_none());
    let units = host("metrics.enable = true;", "262");
    assert_eq!(wanted(&units, "opnix-report.socket"), json!(["sockets.target"]));
    let units = host("", "262");
    assert!(units.get("opnix-metrics.timer").is_none() && units.get("opnix-report.socket").is_none());
}

#[test]
fn no_service_of_opnix_is_stopped_by_a_switch() {
    // systemd 262 has the unit files that older ones do without.
    let newest = with(
        "metrics.enable = true;",
        r#"systemd.package = { type = "derivation"; name = "systemd"; outPath = "/usr"; version = "262"; };"#,
    );
    let units = nix::evaluate(&newest, "units").unwrap();
    let shipped = std::fs::read_dir(nix::project().join("systemd")).unwrap();
    let shipped = shipped.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let defined = units.as_object().unwrap().keys().cloned();
    let is_ours = |unit: &String| unit.starts_with("opnix") && unit.ends_with(".service");
    let ours: std::collections::BTreeSet<String> = shipped.chain(defined).filter(is_ours).collect();
    assert!(ours.len() >= 9, "{ours:?}");
    for unit in &ours {
        let text = units[unit]["text"].as_str().unwrap_or_default();
        // It would stop the socket as well, and start that instead of the service.
        assert!(text.lines().any(|line| line == "X-StopIfChanged=false"), "{unit}: {text}");
        assert_eq!(text.contains("X-RestartIfChanged=false\n"), unit == "opnix-report@.service", "{unit}");
    }
    // Nor is one that goes on the reason why a socket is stopped: only opnix.service needs it.
    for unit in &ours {
        let path = nix::project().join("systemd").join(unit);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let binds = |line: &&str| {
            line.starts_with("Requires=") || line.starts_with("BindsTo=") || line.starts_with("Sockets=")
        };
        let found: Vec<&str> = text.lines().filter(binds).collect();
        let wanted: &[&str] = if unit == "opnix.service" { &["Requires=opnix.socket"] } else { &[] };
        assert_eq!(found, wanted, "{unit}");
    }
}

#[test]
fn a_credential_has_a_path_and_an_environment_can_be_a_text_or_a_file() {
    let unit = "({ config, pkgs, ... }: { services.onepassword-secrets.enable = true; \
        services.onepassword-secrets.templates.whole = { templateFile = pkgs.writeText \"t\" \"{{ op://v/i/f }}\"; services = [ \"web\" ]; }; \
        systemd.services.web = { \
          serviceConfig.ExecStart = \"/bin/web --key ${config.systemd.services.web.onepassword.credentials.key.path}\"; \
          unitConfig.AssertPathExists = \"/srv\"; \
          onepassword.credentials.key.templateFile = ./tests/nixos/app.template; \
          onepassword.environment.A = \"op://v/i/a\"; \
          onepassword.environmentTemplate = ''\n            PORT=1\n            B={{ op://v/i/b | env }}\n          ''; }; })";
    let mapping = nix::evaluate(unit, "mapping").unwrap_or_else(|why| panic!("{why}"));
    let templates = mapping["templates"].as_array().unwrap();
    let named = |name: &str| templates.iter().find(|one| one["name"] == name).unwrap();
    assert_eq!(
        named("environment@web")["template"],
        "A={{ op://v/i/a | env }}\nPORT=1\nB={{ op://v/i/b | env }}\n"
    );
    assert!(named("whole")["template_file"].as_str().unwrap().ends_with("-t"));
    assert!(named("key@web")["template_file"].as_str().unwrap().ends_with("app.template"));
    let text = nix::evaluate(unit, "units").unwrap()["web.service"]["text"].as_str().unwrap().to_owned();
    for line in [
        "ExecStart=/bin/web --key %d/key",
        "EnvironmentFile=/run/secrets/web.env",
        "AssertPathExists=/srv",
        "AssertPathExists=/run/secrets/whole",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    nix::build(unit, "tree").unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn a_path_is_no_specifier_of_systemd_and_has_its_slashes_once() {
    let unit = with(
        r#"outputDir = "/run/files/"; secrets.a = { reference = "op://v/i/f"; path = "100%t/a"; services = [ "reads" ]; };"#,
        r#"systemd.services.reads.serviceConfig.ExecStart = "/usr/bin/reads";"#,
    );
    assert_eq!(mapping(&unit)["secrets"][0]["path"], "/run/files/100%t/a");
    let text = nix::evaluate(&unit, "units").unwrap()["reads.service"]["text"].as_str().unwrap().to_owned();
    assert!(text.lines().any(|line| line == "AssertPathExists=/run/files/100%%t/a"), "{text}");
}
