//! `/run/secrets`: what owners read there, nobody but root writes.

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::opnix::*;

const MEMORY: &str = "/run/opnix-files/memory";

fn begin(machine: &Machine) {
    forget_files(machine);
    machine.sh("id reader >/dev/null 2>&1 || useradd --system reader").ok();
    set_up(machine, &[], &[("mine", value("mine")), ("other", value("other"))], "5s");
    configured(machine, "");
    machine.systemctl(&["start", "opnix-control.socket"]).ok();
}

fn configured(machine: &Machine, suffix: &str) {
    let file = |name: &str, owner: &str| -> Value {
        json!({"name": name, "reference": format!("op://Vault/{name}/value"), "path": format!("{name}{suffix}"), "owner": owner, "mode": "0600"})
    };
    let config = json!({"provider": {"kind": "local", "path": VAULT}, "deadline": "5s",
        "secrets": [file("mine", "reader"), file("other", "root")]});
    machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
}

fn as_reader(machine: &Machine, script: &str) -> crate::command::Output {
    machine.run(&["setpriv", "--reuid=reader", "--regid=reader", "--clear-groups", "sh", "-euc", script])
}

pub fn an_owner_reads_his_file_and_cannot_fill_the_memory_of_all(machine: &Machine) {
    begin(machine);
    // A service with a view of its own, which is older than the mount.
    machine.unit(
        "older.service",
        "[Service]\nUser=reader\nProtectSystem=strict\nPrivateTmp=yes\nReadWritePaths=/run\nExecStart=sleep infinity\n",
    );
    machine.systemctl(&["start", "older.service"]).ok();
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    let pid = machine.show("older.service", "MainPID");
    let within = |script: &str| {
        machine.sh(&format!("nsenter --target={pid} --mount setpriv --reuid=reader --regid=reader --clear-groups sh -euc '{script}'"))
    };
    for place in ["here", "there"] {
        let run = |script: &str| if place == "here" { as_reader(machine, script) } else { within(script) };
        assert_eq!(run("cat /run/secrets/mine").ok(), value("mine"), "{place}");
        for script in [
            "echo more >>/run/secrets/mine",
            "chmod 0666 /run/secrets/mine",
            "head -c 1M /dev/zero >/run/secrets/mine",
            "truncate -s 0 /run/secrets/mine",
            "ls /run/opnix-files",
            "cat /run/opnix-files/memory/mine",
            "cat /run/secrets/other",
        ] {
            assert_ne!(run(script).code, Some(0), "{place}: {script}");
        }
    }
    let options = machine.sh("findmnt -no OPTIONS /run/secrets").ok();
    assert!(options.starts_with("ro,nosuid,nodev,noexec"), "{options}");
    assert_eq!(machine.sh("findmnt -no OPTIONS /run/opnix-files/read-only || echo none").ok(), "none");
    // What changes shows at once, in both.
    write_vault(machine, &[("mine", value("new")), ("other", value("other"))]);
    machine.run(&["opnix", "refresh"]).ok();
    machine.wait("the new value", || within("cat /run/secrets/mine").text() == value("new"), LONG);
    // Whichever of the two mounts is taken away comes back with all files.
    for taken in [format!("umount {MEMORY}"), format!("umount /run/secrets {MEMORY}")] {
        machine.sh(&taken).ok();
        let is_back = || {
            as_reader(machine, "cat /run/secrets/mine").text() == value("new")
                && machine
                    .sh(&format!("mountpoint -q {MEMORY} && touch {MEMORY}/probe && rm {MEMORY}/probe"))
                    .code
                    == Some(0)
        };
        machine.wait(&taken, is_back, 2 * LONG);
        assert_ne!(as_reader(machine, "echo more >>/run/secrets/mine").code, Some(0), "{taken}");
    }
    machine.sh("systemctl stop older.service").ok();
}

pub fn the_mount_of_an_older_opnix_is_taken_over_and_no_file_is_missing_for_a_moment(machine: &Machine) {
    begin(machine);
    machine.sh("mkdir -p /run/secrets; mount -t tmpfs -o mode=0751,size=64m,noswap,nosuid,nodev,noexec opnix /run/secrets; \
                echo older >/run/secrets/theirs; chown reader /run/secrets/theirs").ok();
    let watch = "n=0; while ! test -e /run/taken-over; do cat /run/secrets/theirs >/dev/null || exit 1; n=$((n + 1)); done; test $n -gt 10";
    machine.sh("rm -f /run/taken-over").ok();
    let watching = machine.spawn(&["sh", "-c", watch]);
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    machine.sh("touch /run/taken-over").ok();
    assert_eq!(watching.wait().code, Some(0), "a file was missing");
    assert_eq!(machine.sh("cat /run/secrets/theirs").ok(), "older");
    assert_eq!(as_reader(machine, "cat /run/secrets/mine").ok(), value("mine"));
    assert_ne!(as_reader(machine, "echo more >>/run/secrets/theirs").code, Some(0));
    // And what is full makes room by what leaves.
    machine.sh(&format!("dd if=/dev/zero of={MEMORY}/fill bs=4k 2>&1 | grep 'No space left'")).ok();
    configured(machine, "-renamed");
    machine.systemctl(&["reload", "opnix-mirror.service"]).ok();
    assert_eq!(as_reader(machine, "cat /run/secrets/mine-renamed").ok(), value("mine"));
    forget_files(machine);
}
