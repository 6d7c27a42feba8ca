//! Files in /run/secrets, templates, and units that pick up a changed secret.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::opnix::*;

/// A file of the mirror whose value is `value(name)`.
fn file(name: &str, more: Value) -> Value {
    let mut entry = json!({"name": name, "reference": format!("op://Vault/{name}/value"), "path": name});
    entry.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    entry
}

/// opnix with this configuration and vault, and no files yet.
fn start(machine: &Machine, config: &Value, values: &[(&str, String)]) {
    forget_files(machine);
    machine
        .sh("for user in opencode caddy; do id $user >/dev/null 2>&1 || useradd --system $user; done")
        .ok();
    set_up(machine, &[], values, "5s");
    let provider = json!({"kind": "local", "path": "/run/opnix-vault/vault.json"});
    let mut config = config.clone();
    let members = config.as_object_mut().expect("an object");
    members.insert("provider".into(), provider);
    members.insert("deadline".into(), json!("5s"));
    machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
    machine.systemctl(&["start", "opnix-control.socket"]).ok();
}

fn stat(machine: &Machine, path: &str) -> String {
    machine.run(&["stat", "-c", "%a %U %G %F", path]).ok()
}

pub fn five_files_are_there_with_their_owners_before_what_comes_after_the_mirror(machine: &Machine) {
    let names = ["openai-api-key", "datadog-api-key", "cloudflare-token"];
    let mut values: Vec<(&str, String)> = names.map(|name| (name, value(name))).to_vec();
    let backblaze = format!("{{\"key\": \"{CANARY}\"}}\n");
    values.push(("backblaze-credentials.json", backblaze.clone()));
    let config = json!({
        "secrets": [
            file("openai-api-key", json!({"owner": "opencode", "mode": "0400"})),
            file("datadog-api-key", json!({"owner": "root", "mode": "0400"})),
            file("cloudflare-token", json!({"owner": "caddy", "group": "caddy", "mode": "0440"})),
            file("backblaze-credentials.json", json!({"path": "deep/down/backblaze-credentials.json",
                "symlinks": ["/run/secrets/link.json"]})),
        ],
        "templates": [{"name": "opencode-env", "path": "opencode.env", "owner": "opencode", "mode": "0400",
            "template": "OPENAI_API_KEY={{ op://Vault/openai-api-key/value | env }}\nPLAIN={{ op://Vault/datadog-api-key/value }}\n"}],
    });
    start(machine, &config, &values);
    machine.unit(
        "consumer.service",
        "[Unit]\nRequires=opnix-mirror.service\nAfter=opnix-mirror.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\nUser=opencode\n\
         EnvironmentFile=/run/secrets/opencode.env\nExecStart=sh -c 'echo \"$OPENAI_API_KEY\"; cat /run/secrets/openai-api-key'\nStandardOutput=truncate:/run/consumer\n",
    );
    let started = machine.systemctl(&["start", "consumer.service"]);
    assert_eq!(started.code, Some(0), "{}", machine.sh("findmnt; journalctl -u opnix-mirror.service").text());
    let expected = value("openai-api-key");
    assert_eq!(machine.run(&["cat", "/run/consumer"]).ok(), format!("{expected}\n{expected}"));
    for (path, expected) in [
        ("/run/secrets", "751 root root directory"),
        ("/run/secrets/openai-api-key", "400 opencode root regular file"),
        ("/run/secrets/datadog-api-key", "400 root root regular file"),
        ("/run/secrets/cloudflare-token", "440 caddy caddy regular file"),
        ("/run/secrets/deep/down", "751 root root directory"),
        ("/run/secrets/deep/down/backblaze-credentials.json", "600 root root regular file"),
        ("/run/secrets/link.json", "777 root root symbolic link"),
        ("/run/secrets/opencode.env", "400 opencode root regular file"),
    ] {
        assert_eq!(stat(machine, path), expected, "{path}");
    }
    assert_eq!(machine.run(&["cat", "/run/secrets/link.json"]).stdout, backblaze.into_bytes());
    let mount = machine.sh("findmnt -no FSTYPE,OPTIONS /run/secrets").ok();
    assert!(mount.contains("nosuid,nodev,noexec"), "{mount}");
    assert!(mount.starts_with("ramfs") || mount.contains("noswap"), "{mount}");
    machine
        .run(&["setpriv", "--reuid=daemon", "--clear-groups", "cat", "/run/secrets/openai-api-key"])
        .fails();
    machine.sh("! find /run/secrets -name '*.opnix-new' | grep .").ok();
    assert!(!machine.journal_text().contains(CANARY));
    // A file that leaves the configuration goes, and so does its link.
    let less = json!({"secrets": [file("openai-api-key", json!({"owner": "opencode", "mode": "0400"}))]});
    let mut less = less;
    less["provider"] = json!({"kind": "local", "path": "/run/opnix-vault/vault.json"});
    machine.write("/etc/opnix/secrets.json", less.to_string(), "0644");
    machine.systemctl(&["reload", "opnix.service"]).ok();
    let gone = || machine.sh("find /run/secrets -type f -o -type l").ok() == "/run/secrets/openai-api-key";
    machine.wait("the others to go", gone, LONG);
    machine.systemctl(&["stop", "consumer.service", "opnix-mirror.service"]).ok();
}

pub fn what_is_missing_is_told_and_the_others_are_delivered(machine: &Machine) {
    let config = json!({"secrets": [
        file("there", json!({})),
        file("gone", json!({})),
        file("optional", json!({"optional": true})),
        file("nobody", json!({"owner": "no-such-user"})),
    ]});
    start(machine, &config, &[("there", value("there")), ("nobody", value("nobody"))]);
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    assert_eq!(machine.run(&["cat", "/run/secrets/there"]).ok(), value("there"));
    let (journal, status) = (machine.journal_text(), machine.show("opnix-mirror.service", "StatusText"));
    for told in [&journal, &status] {
        assert!(told.contains("/run/secrets/gone"), "{told}");
        assert!(told.contains("there is no user \"no-such-user\" (/etc/opnix/secrets.json:1:"), "{told}");
    }
    assert!(status.starts_with("1 of 3 files are in place.") && !status.contains("optional"), "{status}");
    machine.systemctl(&["stop", "opnix-mirror.service"]).ok();
}

pub fn a_changed_secret_acts_on_the_units_that_use_it_once(machine: &Machine) {
    let config = json!({"secrets": [
        file("one", json!({"services": ["restarted"], "units": [{"unit": "reloaded.service", "on_change": "reload"}]})),
        file("two", json!({"services": ["restarted"]})),
        {"name": "three", "reference": "op://Vault/three/value",
         "units": [{"unit": "signalled.service", "on_change": {"signal": "SIGUSR1"}}, {"unit": "idle.service", "on_change": "restart"}]},
        file("other", json!({"services": ["untouched"]})),
    ]});
    let values = |version: &str| -> Vec<(&'static str, String)> {
        ["one", "two", "three", "other"]
            .map(|name| {
                (name, value(&if name == "other" { name.to_owned() } else { format!("{name}-{version}") }))
            })
            .to_vec()
    };
    start(machine, &config, &values("1"));
    let unit = |name: &str, more: &str| {
        let text = format!(
            "[Service]\nExecStart=sh -c 'echo start >>/run/acts-%n; trap \"echo signal >>/run/acts-%n\" USR1; while :; do sleep 0.1; done'\n\
             ExecReload=sh -c 'echo reload >>/run/acts-%n'\n{more}\n"
        );
        machine.unit(name, &text);
    };
    machine.sh("rm -f /run/acts-*").ok();
    unit("restarted.service", "");
    unit("untouched.service", "");
    unit("idle.service", "");
    unit("reloaded.service", "");
    unit("signalled.service", "");
    machine.sh("systemctl start opnix-mirror.service restarted.service untouched.service reloaded.service signalled.service").ok();
    let acts =
        |unit: &str| machine.sh(&format!("cat /run/acts-{unit} 2>/dev/null || true")).ok().replace('\n', " ");
    machine.wait("them to run", || acts("signalled.service") == "start", LONG);

    write_vault(machine, &values("2"));
    machine.run(&["opnix", "refresh"]).ok();
    machine.wait("the restart", || acts("restarted.service") == "start start", LONG);
    machine.wait("the reload", || acts("reloaded.service") == "start reload", LONG);
    machine.wait("the signal", || acts("signalled.service") == "start signal", LONG);
    assert_eq!(machine.run(&["cat", "/run/secrets/one"]).ok(), value("one-2"));
    // A restart of the service or of the mirror, and an outage, change nothing.
    machine.sh("systemctl restart opnix.service").ok();
    machine.sh("systemctl restart opnix-mirror.service").ok();
    machine.sh("rm /run/opnix-vault/vault.json; opnix refresh || true").ok();
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(acts("restarted.service"), "start start");
    assert_eq!(acts("reloaded.service"), "start reload");
    assert_eq!(acts("signalled.service"), "start signal");
    assert_eq!((acts("untouched.service"), acts("idle.service")), ("start".to_owned(), String::new()));
    // What changed while the mirror was down is noticed when it is back.
    machine.systemctl(&["stop", "opnix-mirror.service"]).ok();
    write_vault(machine, &values("3"));
    machine.run(&["opnix", "refresh"]).ok();
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    machine.wait("the restart", || acts("restarted.service") == "start start start", LONG);
    machine.sh("systemctl stop restarted untouched reloaded signalled opnix-mirror").ok();
}

/// A reload gives a unit its new credentials from systemd 260 on, if it says so; a signal never does. Such a unit is restarted after that.
pub fn whoever_is_to_be_reloaded_has_the_new_value_of_its_credential(machine: &Machine) {
    let units: Value = ["refreshed", "plain", "either", "signalled", "reader", "merged@*", "checks"]
        .iter()
        .map(|name| {
            let action = match *name {
                "either" => json!("reload-or-restart"),
                "signalled" => json!({"signal": "SIGUSR1"}),
                _ => json!("reload"),
            };
            json!({"unit": format!("{name}.service"), "on_change": action})
        })
        .collect();
    // That one is meant by its name as a reader of the file as well.
    let services = json!({"merged@a": {"on_change": "reload-or-restart"}});
    let config =
        json!({"secrets": [file("key", json!({"mode": "0444", "units": units, "services": services}))]});
    start(machine, &config, &[("key", value("1"))]);
    machine.sh("rm -f /run/has-*").ok();
    let unit = |name: &str, more: &str, directory: &str| {
        let text = format!(
            "[Service]\n{more}\nExecReload=touch /run/has-reloaded-%N\nExecStart=sh -c 'trap : USR1; while :; do cat {directory}/key >/run/has-%N; sleep 0.2; done'\n"
        );
        machine.unit(&format!("{name}.service"), &text);
    };
    const ASKS: &str = "LoadCredential=key:/run/opnix/creds.sock";
    unit("refreshed", &format!("{ASKS}\nRefreshOnReload=credentials"), "$CREDENTIALS_DIRECTORY");
    for name in ["plain", "either", "signalled"] {
        unit(name, ASKS, "$CREDENTIALS_DIRECTORY");
    }
    unit("merged@", ASKS, "$CREDENTIALS_DIRECTORY");
    // As one that sees no credential when it is reloaded, and needs it.
    unit("checks", &format!("{ASKS}\nExecReload=false"), "$CREDENTIALS_DIRECTORY");
    // It is told of the file in the same way, and may be reloaded.
    unit("reader", "", "/run/secrets");
    let all = ["refreshed", "plain", "either", "signalled", "reader", "merged@a", "checks"];
    machine.sh(&format!("systemctl start opnix-mirror.service {}", all.join(" "))).ok();
    let has = |name: &str| machine.sh(&format!("cat /run/has-{name} 2>/dev/null || true")).ok();
    for name in all {
        machine.wait(&format!("the first value of {name}"), || has(name) == value("1"), LONG);
    }
    let processes = all.map(|name| machine.show(&format!("{name}.service"), "MainPID"));
    let status = |name: &str| machine.run(&["opnix", "status", name]).ok();
    assert!(status("plain.service").contains("and the newest value"), "{}", status("plain.service"));
    // While nobody acts on them, it is told who goes on with what is old; also by a service that was started anew.
    machine.systemctl(&["stop", "opnix-mirror.service"]).ok();
    write_vault(machine, &[("key", value("2"))]);
    machine.run(&["opnix", "refresh"]).ok();
    for _ in 0..2 {
        // With 69, because the mirror does not run.
        let told = machine.run(&["opnix", "status"]).text();
        for name in ["refreshed", "plain", "either", "signalled"] {
            let what = format!("{name}.service goes on with an older value of \"key\", given ");
            assert!(told.contains(&what), "{name}: {told}");
        }
        assert!(!told.contains("reader.service"), "{told}");
        assert!(
            status("plain.service").contains("OLDER than the newest value"),
            "{}",
            status("plain.service")
        );
        machine.systemctl(&["restart", "opnix.service"]).ok();
    }
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    for name in all {
        machine.wait(&format!("the new value of {name}"), || has(name) == value("2"), LONG);
    }
    let is_new = machine.systemd_version() >= 260;
    for (name, before) in all.iter().zip(&processes) {
        let stays = *name == "reader" || *name == "refreshed" && is_new;
        let same = machine.show(&format!("{name}.service"), "MainPID") == *before;
        assert_eq!(same, stays, "{name}");
    }
    let told = machine.run(&["opnix", "status"]).ok();
    assert!(!told.contains("outdated"), "{told}");
    let record = |word: &str, name: &str| {
        let text = format!("systemctl {word} {name}.service is done");
        machine.wait(&text.clone(), || machine.journal_text().contains(&text), LONG);
    };
    record("try-restart", "plain");
    // What is configured is done all the same.
    for name in ["plain", "either", "refreshed", "reader"] {
        machine.run(&["test", "-e", &format!("/run/has-reloaded-{name}")]).ok();
    }
    record("reload", "reader");
    assert!(!machine.journal_text().contains("reload checks.service failed ("));
    machine.sh(&format!("systemctl stop opnix-mirror.service {}", all.join(" "))).ok();
    let over = status("plain");
    assert!(over.contains("to what does not run any more"), "{over}");
}

/// Who reads a file is told as the configuration says, has no right to the secret by that, and what fails is on record.
pub fn what_a_service_is_told_fails_on_record(machine: &Machine) {
    let config = json!({"secrets": [
        file("one", json!({"services": {
            "reloads": {"on_change": "reload"}, "cannot": {"on_change": "reload"}, "fails": {"on_change": "reload"}, "breaks": {"on_change": "restart"},
            "nobody-has-it": {"on_change": "reload"}, "other-name": {"on_change": "reload"}}})),
    ]});
    start(machine, &config, &[("one", value("1"))]);
    machine.sh("rm -f /run/acts-*").ok();
    let unit = |name: &str, more: &str| {
        let text = format!("[Service]\nExecStart=sleep infinity\n{more}\n");
        machine.unit(&format!("{name}.service"), &text);
    };
    unit("reloads", "ExecReload=sh -c 'echo reload >>/run/acts-%p'");
    unit("cannot", "");
    unit("fails", "ExecReload=sh -c 'test -e /run/acts-mended'");
    unit("breaks", "Type=exec\nExecStartPre=sh -c 'test ! -e /run/acts-broken'");
    unit("meant", "ExecReload=sh -c 'echo reload >>/run/acts-%p'");
    machine.sh("ln -sf meant.service /run/systemd/system/other-name.service; systemctl daemon-reload").ok();
    machine
        .sh("systemctl start opnix-mirror.service reloads cannot fails meant breaks; touch /run/acts-broken")
        .ok();
    write_vault(machine, &[("one", value("2"))]);
    machine.run(&["opnix", "refresh"]).ok();
    for name in ["reloads", "meant"] {
        let acts = || machine.sh(&format!("cat /run/acts-{name} 2>/dev/null || true")).ok();
        machine.wait(&format!("the reload of {name}"), || acts() == "reload", LONG);
    }
    for told in [
        "a secret changed, and systemctl reload fails.service failed (failed): it may go on with the old one",
        "a secret changed, and systemctl reload cannot.service failed (",
        "a secret changed, and systemctl try-restart breaks.service failed (failed)",
        "a secret changed, and there is no unit nobody-has-it.service to be told",
    ] {
        machine.wait(told, || machine.journal_text().contains(told), LONG);
    }
    for unit in ["fails", "cannot", "breaks"] {
        let own = machine.run(&["journalctl", "--output=cat", "--unit", unit]).text();
        assert!(own.contains(&format!("{unit}.service failed (")), "{own}");
    }
    let status = || machine.show("opnix-mirror.service", "StatusText");
    let failed = "A secret changed, and systemctl reload fails.service failed (failed)";
    machine.wait("the status to tell", || status().contains(failed), LONG);
    machine.run(&["opnix", "explain", "reloads.service", "one"]).fails();
    machine.sh("touch /run/acts-mended; systemctl reload fails.service").ok();
    machine.wait("the status to be content", || !status().contains(failed), LONG);
    machine.sh("systemctl stop opnix-mirror reloads cannot fails meant breaks; systemctl reset-failed breaks; rm /run/systemd/system/other-name.service; systemctl daemon-reload").ok();
}

pub fn readers_never_see_a_partial_file_however_often_it_is_rewritten_or_the_mirror_killed(
    machine: &Machine,
) {
    const LENGTH: usize = 200_000;
    let config = json!({"secrets": [file("big", json!({"mode": "0444"}))]});
    let big = |round: usize| format!("{CANARY}-{round:06}-").repeat(LENGTH / 20);
    start(machine, &config, &[("big", big(0))]);
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    let reader = "import os,sys\nseen=set()\nwhile not os.path.exists('/run/enough'):\n  text=open('/run/secrets/big').read()\n  part=text[:19]\n  assert len(text) > 100000 and text == part*(len(text)//19), (len(text), part)\n  seen.add(part)\nprint(len(seen))";
    machine.sh("rm -f /run/enough").ok();
    let readers: Vec<_> = (0..2).map(|_| machine.spawn(&["python3", "-c", reader])).collect();
    let end = Instant::now() + Duration::from_secs(20);
    let mut round = 0;
    while Instant::now() < end {
        round += 1;
        write_vault(machine, &[("big", big(round))]);
        machine.run(&["opnix", "refresh"]).ok();
        // Written at once, without the wait for what else may change.
        machine.sh("systemctl kill --signal=HUP opnix-mirror.service || true").ok();
        if round % 15 == 0 {
            machine.systemctl(&["kill", "--signal=KILL", "opnix-mirror.service"]).ok();
        }
    }
    machine.run(&["touch", "/run/enough"]).ok();
    for reader in readers {
        let seen: usize = reader.wait().ok().parse().expect("a number");
        assert!(seen > 5, "{seen} of {round}");
    }
    machine.systemctl(&["stop", "opnix-mirror.service"]).ok();
}

pub fn reloads_and_silent_connections_without_end_keep_no_secret_from_its_file(machine: &Machine) {
    start(machine, &json!({"secrets": [file("often", json!({}))]}), &[("often", value("often"))]);
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    let content = || machine.sh("cat /run/secrets/often").text();
    machine.wait("the file", || content() == value("often"), LONG);
    machine.sh("for n in $(seq 70); do systemctl reload opnix-mirror.service || exit 1; done").ok();
    let silent = "import socket, time\n\
                  silent = [socket.socket(socket.AF_UNIX) for _ in range(500)]\n\
                  for one in silent: one.connect('/run/opnix/control.sock')\n\
                  time.sleep(600)";
    let _silent = machine.spawn(&["python3", "-c", silent]);
    for number in 0..3 {
        let new = value(&format!("often-{number}"));
        write_vault(machine, &[("often", new.clone())]);
        assert_eq!(machine.run(&["opnix", "refresh"]).ok(), "often  changed");
        machine.wait("the new value in its file", || content() == new, LONG);
    }
    machine.run(&["opnix", "status"]).ok();
    let journal = machine.journal_text();
    assert!(!journal.contains("roken pipe") && !journal.contains("rror writing"), "{journal}");
}
