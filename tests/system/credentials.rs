//! Units get their secrets, and only theirs.

use serde_json::json;

use crate::machine::Machine;
use crate::opnix::*;

pub fn five_secrets_reach_five_units_and_the_service_starts_on_first_use(machine: &Machine) {
    let units = [
        ("openai-api-key", "dynamic.service", "DynamicUser=yes"),
        ("datadog-api-key", "user.service", "User=daemon"),
        ("cloudflare-token", "web@blue.service", ""),
        ("backblaze-credentials.json", "private.service", "PrivateNetwork=yes"),
    ];
    let mut secrets: Vec<_> = units.iter().map(|(name, unit, _)| secret(name, &[unit])).collect();
    secrets[2]["units"] = json!(["web@*.service"]);
    secrets[0]["units"] = json!(["dynamic.service", {"unit": "renamed.service", "credential": "other-name"}]);
    let values: Vec<_> = units.iter().map(|(name, ..)| (*name, value(name))).collect();
    set_up(machine, &secrets, &values, "30s");
    assert_eq!(machine.show("opnix.service", "ActiveState"), "inactive", "not before it is needed");
    for (name, unit, more) in units {
        consumer(machine, &unit.replace("@blue", "@"), name, more);
        machine.systemctl(&["start", unit]).ok();
        assert_eq!(found(machine, unit), value(name).into_bytes(), "{unit}");
    }
    consumer(machine, "renamed.service", "other-name", "");
    machine.systemctl(&["start", "renamed.service"]).ok();
    assert_eq!(found(machine, "renamed.service"), value("openai-api-key").into_bytes());
    assert_eq!(machine.show("opnix.service", "ActiveState"), "active");
    nothing_shows_a_value(machine);
}

/// Not the journal, not systemctl, not a command line or an environment, not a file of ours.
pub fn nothing_shows_a_value(machine: &Machine) {
    assert!(!machine.journal_text().contains(CANARY), "in the journal");
    assert!(!machine.systemctl(&["show", "*"]).ok().contains(CANARY), "in systemctl show");
    // As a pattern that does not find itself in the command line of the search. What the tests' own vault, units and output
    // files hold is left out.
    let (start, end) = CANARY.split_at(CANARY.len() - 1);
    let search = format!(
        "! grep -a -l '{start}[{end}]' /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null &&
        ! find /run /etc /var -xdev -type f -not -path '/run/got*' -not -path '/run/opnix-vault/*' \
            -not -path '/run/credentials/*' -exec grep -a -l '{start}[{end}]' {{}} + | grep . &&
        ! journalctl --all --output=export | grep -a -q '{start}[{end}]'"
    );
    machine.sh(&search).ok();
    // It would have found one.
    machine.write("/var/tmp/planted", CANARY, "0600");
    machine.sh(&search).fails();
    machine.run(&["rm", "/var/tmp/planted"]).ok();
}

pub fn a_template_is_served_as_one_credential(machine: &Machine) {
    set_up(machine, &[], &[("key", value("key"))], "30s");
    let config = json!({
        "provider": {"kind": "local", "path": "/run/opnix-vault/vault.json"},
        "templates": [{"name": "env", "template": "A={{ op://Vault/key/value }}\nB=2\n", "units": ["template.service"]}]
    });
    machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
    consumer(machine, "template.service", "env", "");
    machine.systemctl(&["start", "template.service"]).ok();
    assert_eq!(found(machine, "template.service"), format!("A={}\nB=2\n", value("key")).into_bytes());
}

pub fn a_value_of_any_size_up_to_systemds_limit_arrives_whole(machine: &Machine) {
    for size in [1, 2240, 2241, 32 << 10, (32 << 10) + 1, 300_000, (1 << 20) - "big".len()] {
        let big = "x".repeat(size);
        set_up(machine, &[secret("big", &["big.service"])], &[("big", big.clone())], "30s");
        consumer(machine, "big.service", "big", "");
        // The first time it is fetched, the second time it comes from memory.
        for _ in 0..2 {
            machine.systemctl(&["restart", "big.service"]).ok();
            assert_eq!(found(machine, "big.service").len(), size);
        }
    }
}

pub fn the_sandbox_is_tight_and_the_service_small(machine: &Machine) {
    set_up(machine, &[secret("key", &["key.service"])], &[("key", value("key"))], "30s");
    machine.systemctl(&["start", "opnix.service"]).ok();
    for (unit, limit) in [("opnix.service", 1.5), ("opnix-mirror.service", 2.0), ("opnix-key.service", 2.0)] {
        let verdict = machine.run(&["systemd-analyze", "security", "--no-pager", unit]).text();
        let last = verdict.lines().last().unwrap_or_default();
        let level = last.split_whitespace().find_map(|word| word.parse::<f64>().ok());
        assert!(level.is_some_and(|level| level <= limit), "{unit}: {verdict}");
    }
    let units = [
        "opnix.service",
        "opnix.socket",
        "opnix-control.socket",
        "opnix-setup.service",
        "opnix-key.service",
        "opnix-mirror.service",
        "opnix-mount.service",
    ];
    machine.run(&[&["systemd-analyze", "verify", "--man=no"][..], &units].concat()).ok();
    let status = machine.sh("cat /proc/$(systemctl show --value -p MainPID opnix.service)/status").ok();
    let kib = |key: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect(key);
        line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
    };
    // Its own memory; how much of its file is resident depends on the build. `cargo bench` measures both.
    assert!(kib("RssAnon:") < 4 << 10, "{status}");
    // Where systemd itself may not raise the limit (a container without CAP_SYS_RESOURCE), the service must say so.
    let limits = machine.sh("cat /proc/$(systemctl show --value -p MainPID opnix.service)/limits").ok();
    let limit = limits.lines().find(|line| line.starts_with("Max locked memory")).expect("a limit");
    assert_eq!(kib("VmLck:") > 0, limit.contains("unlimited"), "{limit}");
    assert_eq!(machine.journal_text().contains("memory is not locked"), !limit.contains("unlimited"));
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
}

pub fn the_demo_runs_through_real_units(machine: &Machine) {
    let shown = machine.run(&["opnix", "demo"]).ok();
    assert!(shown.contains("real units of the system's service manager"), "{shown}");
    assert!(shown.contains("refused: this secret is not configured for this unit"), "{shown}");
    assert!(shown.contains("refused: the peer's name is forged"), "{shown}");
}

/// The table of docs/configuration.md, row by row.
pub fn whose_a_credential_is_and_who_sees_it_is_as_the_documentation_says(machine: &Machine) {
    const UNITS: [(&str, &str); 3] = [
        ("without `User=`", ""),
        ("`User=caddy`", "User=caddy"),
        ("`DynamicUser=yes`", "DynamicUser=yes\nReadWritePaths=/run/seen"),
    ];
    let names = ["seen0.service", "seen1.service", "seen2.service", "sandbox.service"];
    set_up(machine, &[secret("key", &names)], &[("key", value("key"))], "5s");
    machine
        .sh("id caddy >/dev/null 2>&1 || useradd --system caddy; mkdir -p /run/seen; chmod 0777 /run/seen")
        .ok();
    const KEY: &str = "$CREDENTIALS_DIRECTORY/key";
    let unit = |name: &str, more: &str| {
        let text = format!(
            "[Service]\nType=exec\nLoadCredential=key:/run/opnix/creds.sock\n{more}\nExecStart=sh -c 'cat %d/key >/run/seen/%p; exec sleep infinity'\n\
             ExecReload=sh -c 'cat {KEY} >/run/seen/%p-reload 2>/dev/null || echo none >/run/seen/%p-reload'\n"
        );
        machine.unit(name, &text);
    };
    for ((_, more), name) in UNITS.iter().zip(names) {
        unit(name, more);
    }
    unit("sandbox.service", "ProtectSystem=full\nPrivateTmp=yes");
    machine.sh(&format!("rm -f /run/seen/*; systemctl start {}", names.join(" "))).ok();
    let is_old = machine.systemd_version() < 257;
    let page = include_str!("../../docs/configuration.md");
    for ((row, _), name) in UNITS.iter().zip(names) {
        let plain = name.trim_end_matches(".service");
        machine.wait(name, || machine.sh(&format!("cat /run/seen/{plain}")).text() == value("key"), LONG);
        let path = format!("/run/credentials/{name}/key");
        let found = machine.run(&["stat", "-c", "%a, %U:%G", &path]).ok();
        let acl = machine
            .run(&[
                "python3",
                "-c",
                "import os,sys; print('system.posix_acl_access' in os.listxattr(sys.argv[1]))",
                &path,
            ])
            .ok();
        let line = page.lines().find(|line| line.starts_with(&format!("| {row} |"))).expect("a row");
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let told = if is_old { cells[2] } else { cells[3] };
        let found = if acl == "True" { format!("{found}, and an ACL") } else { found };
        // The name of a dynamic user is that of its unit, where somebody can say it.
        let found = if row.contains("Dynamic") { found.replace(plain, "its user") } else { found };
        assert!(told.starts_with(&found), "{name}: {found:?} is told as {told:?}");
    }
    machine.sh(&format!("systemctl reload {}", names.join(" "))).ok();
    let at_reload = |name: &str| machine.sh(&format!("cat /run/seen/{name}-reload")).text().trim().to_owned();
    assert_eq!(at_reload("sandbox"), "none");
    assert_eq!(at_reload("seen0"), if is_old { value("key") } else { "none".into() });
    machine.sh(&format!("systemctl stop {}; rm -r /run/seen", names.join(" "))).ok();
}
