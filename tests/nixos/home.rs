//! The module for home-manager.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::nix;

fn home(module: &str) -> Value {
    let module = format!("{{ programs.onepassword-secrets = {{ enable = true; {module} }}; }}");
    nix::evaluate(&module, "home").unwrap_or_else(|why| panic!("{why}"))
}

#[test]
fn a_users_own_units_are_served_by_the_services_that_opnix_has_for_users() {
    let home = home(
        r#"tokenFile = "/home/alice/token"; secrets.sshKey = { reference = "op://P/ssh/key"; path = ".ssh/key"; };
        units.backup.key = "op://P/B/k";"#,
    );
    assert_eq!(home["services"]["backup"]["Service"]["LoadCredential"], json!(["key:%t/opnix/creds.sock"]));
    assert_eq!(home["secretPaths"]["sshKey"], "/home/alice/.ssh/key");
    let names = ["opnix.socket", "opnix-control.socket", "opnix.service", "opnix-mirror.service"];
    for name in names {
        let (unit, kind) = name.split_once('.').unwrap();
        let mut there = home[format!("{kind}s")][unit].clone();
        let own = there["Unit"].as_object_mut().unwrap();
        let method = own.remove("X-SwitchMethod").unwrap();
        assert_eq!(method, if kind == "socket" { "keep-old" } else { "restart" }, "{name}");
        let reloaded = own.remove("X-Reload-Triggers");
        assert_eq!(reloaded.is_some(), kind == "service", "{name}");
        let mut to_be = shipped(name);
        if name == "opnix.service" {
            to_be["Service"]["FileDescriptorStorePreserve"] = json!(["yes"]);
        }
        assert_eq!(there, to_be, "{name}");
    }
    let serve = home["services"]["opnix"]["Service"]["ExecStart"][0].as_str().unwrap();
    assert!(serve.ends_with("/bin/opnix serve --user --token-file /home/alice/token"), "{serve}");
}

/// The unit file, with the places that differ there.
fn shipped(name: &str) -> Value {
    let path = format!("{}/systemd/user/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).unwrap();
    let package = nix::evaluate("{ programs.onepassword-secrets.enable = true; }", "home").unwrap();
    let package = package["services"]["opnix-mirror"]["Service"]["ExecStart"][0].as_str().unwrap().to_owned();
    let program = package.split(' ').next().unwrap();
    let mut unit: BTreeMap<&str, BTreeMap<&str, Vec<String>>> = BTreeMap::new();
    let mut section = "";
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
            continue;
        }
        let (key, value) = line.split_once('=').unwrap();
        let value = value
            .replace("/usr/bin/opnix", program)
            .replace("sh -c", "/bin/sh -c")
            .replace("systemctl --user", "/usr/bin/systemctl --user")
            .replace("grep -q", "/usr/bin/grep -q")
            .replace("%E/opnix/token", "/home/alice/token");
        unit.entry(section).or_default().entry(key).or_default().push(value);
    }
    let sections = unit.into_iter().map(|(name, keys)| {
        // home-manager takes lists wherever it takes one, but for this.
        let one = |(key, values): (_, Vec<String>)| {
            (key, if key == "Description" { json!(values[0]) } else { json!(values) })
        };
        let keys: BTreeMap<_, _> = keys.into_iter().map(one).collect();
        (name, keys)
    });
    json!(sections.collect::<BTreeMap<_, _>>())
}

#[test]
fn who_reads_a_file_comes_after_it_and_another_reference_or_file_is_another_unit() {
    let with = |reference: &str| {
        home(&format!(
            r#"configFiles = [ ./tests/cli/check.in/parts/10-first.json ];
            secrets.a = {{ reference = "op://v/i/f"; path = "/home/alice/keys/a"; services = [ "x" "y.service" ]; }};
            secrets.b = {{ reference = "op://v/i/b"; services.x = {{ }}; optional = true; }};
            systemdIntegration.services = [ "z" ];
            units.backup.key = {{ reference = "{reference}"; onChange = "restart"; }};"#
        ))
    };
    let one = with("op://v/i/f");
    assert_eq!(one["warnings"], json!([]));
    let files = &one["configFile"];
    let waits = "[Unit]\nWants=opnix-mirror.service\nAfter=opnix-mirror.service\n";
    let of_a = "AssertPathExists=%t/secrets/keys/a\nAssertPathIsSymbolicLink=/home/alice/keys/a\n";
    for (unit, asserts) in [("x", of_a), ("y", of_a), ("z", "")] {
        let text = &files[format!("systemd/user/{unit}.service.d/opnix.conf")]["text"];
        assert_eq!(*text, format!("{waits}{asserts}"), "{unit}");
    }
    assert!(files["opnix/secrets.json"]["source"].is_string(), "{files}");
    assert!(files["opnix/secrets.d/0-10-first.json"]["source"].is_string(), "{files}");
    assert_eq!(one["secretPaths"], json!({"a": "/home/alice/keys/a", "b": "/home/alice/b"}));
    let mark =
        |home: &Value| home["services"]["backup"]["Unit"]["X-Opnix-Secrets"].as_str().unwrap().to_owned();
    assert_ne!(mark(&one), mark(&with("op://v/i/g")));
}

#[test]
fn a_file_that_would_be_on_the_disk_is_told() {
    let home = home(r#"secrets.a = { reference = "op://v/i/f"; path = "/srv/a"; };"#);
    let warnings = home["warnings"].to_string();
    assert!(
        warnings.contains("/srv/a, the path of a") && warnings.contains("in plain text on the disk"),
        "{warnings}"
    );
}
