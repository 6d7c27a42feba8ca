//! The same of the mirror's files, in memory and in a directory of a user.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::kills::points;
use crate::machine::Machine;
use crate::opnix::*;
use crate::strace::{Strace, Trace};

const UNIT: &str = "opnix-mirror.service";
/// What changes something: death before any other call is death before the next of these.
const CHANGES: [&str; 7] = ["unlinkat", "fchown", "write", "fremovexattr", "fchmod", "fsync", "renameat"];
/// The directories of the files, as the mirror names them, and who owns each file.
const PLACES: [(&str, &str); 2] = [("/run/opnix-files/memory", "root"), ("/srv/app", "app")];

pub fn a_mirror_killed_at_each_system_call_of_a_write_leaves_the_old_or_the_new_file(machine: &Machine) {
    forget_files(machine);
    machine.sh("id app >/dev/null 2>&1 || useradd --system app; rm -rf /srv/app; mkdir /srv/app; chown app:app /srv/app").ok();
    let mut number = 0;
    let mut values = || {
        number += 1;
        let new = value(&format!("key-{number}"));
        write_vault(machine, &[("key", new.clone())]);
        new
    };
    set_up(machine, &[], &[("key", value("key-0"))], "5s");
    let file = |path: &str, owner: &str| -> Value {
        json!({"name": format!("of-{owner}"), "reference": "op://Vault/key/value", "path": path, "owner": owner, "mode": "0640"})
    };
    let config = json!({"provider": {"kind": "local", "path": VAULT}, "deadline": "5s",
        "secrets": [file("key", "root"), file("/srv/app/key", "app")]});
    machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
    machine.systemctl(&["start", "opnix-control.socket", UNIT]).ok();
    for (directory, owner) in PLACES {
        let path = format!("{directory}/key");
        let content = || machine.sh(&format!("cat {path}")).ok();
        let mut before = content();
        let mut write = |what: &str| -> (Trace, String) {
            let new = values();
            machine.run(&["opnix", "refresh"]).ok();
            let pid = machine.processes(UNIT)[0];
            let names = [".key.opnix-new", "key"].map(|name| Path::new(directory).join(name));
            let paths: Vec<PathBuf> = std::iter::once(directory.into()).chain(names).collect();
            let strace = Strace::process_on(pid, what, &paths);
            machine.sh("systemctl kill --signal=HUP opnix-mirror.service || true").ok();
            let dies = what.starts_with("inject");
            if !dies {
                machine.wait("the new value", || content() == new, LONG);
            }
            (strace.end(dies), new)
        };
        let (trace, new) = write("trace=all");
        before.clone_from(&new);
        // Before it has its name it is nobody's to read, but for its owner at the end.
        let order: Vec<&str> = trace.calls.iter().map(|call| call.name.as_str()).collect();
        let at = |name: &str| {
            order.iter().rposition(|call| *call == name).unwrap_or_else(|| panic!("{name}: {order:?}"))
        };
        assert!(at("fchown") < at("write") && at("write") < at("fchmod"), "{order:?}");
        assert!(at("fchmod") < at("fsync") && at("fchmod") < at("renameat"), "{order:?}");
        let made = trace.text.lines().find(|line| line.contains("O_EXCL")).expect("a new file");
        assert!(made.contains("O_CREAT|O_EXCL") && made.contains(", 000)"), "{made}");
        let mut kills = 0;
        for (call, number) in points(&trace.calls).into_iter().filter(|(call, _)| CHANGES.contains(&&**call))
        {
            let (trace, new) = write(&format!("inject={call}:signal=SIGKILL:when={number}"));
            kills += usize::from(trace.killed);
            let found = content();
            assert!([&before, &new].contains(&&found), "{call} {number}: {found}");
            assert_eq!(
                machine.sh(&format!("stat -c '%a %U' {path}")).ok(),
                format!("640 {owner}"),
                "{call} {number}"
            );
            machine.systemctl(&["start", UNIT]).ok();
            machine.wait("the new value", || content() == new, LONG);
            assert_eq!(machine.sh(&format!("ls -A {directory}")).ok(), "key", "{call} {number}");
            before = new;
        }
        assert!(kills >= CHANGES.len(), "no more than {kills} kills of {order:?}");
    }
    machine.systemctl(&["stop", UNIT]).ok();
}
