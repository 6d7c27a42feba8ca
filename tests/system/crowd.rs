//! Many askers at once, from inside one unit: what each of them got.

use std::collections::BTreeMap;

use crate::command::Running;
use crate::machine::Machine;

/// Asks as systemd does, from the unit's own cgroup, `count` times at once. Answers are read from when the file `go`
/// exists. Then prints how often which answer came; a refusal is called so.
const ASKERS: &str = r"
import collections, json, os, selectors, socket, sys, time
unit, credential, count, go = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
waiting, got = selectors.DefaultSelector(), collections.Counter()
for number in range(count):
    asker = socket.socket(socket.AF_UNIX)
    asker.bind('\0%016x/unit/%s/%s' % (number, unit, credential))
    asker.connect('/run/opnix/creds.sock')
    asker.shutdown(socket.SHUT_WR)
    waiting.register(asker, selectors.EVENT_READ, [])
while not os.path.exists(go):
    time.sleep(0.02)
while waiting.get_map():
    for key, _ in waiting.select():
        part = key.fileobj.recv(1 << 20)
        if part:
            key.data.append(part)
            continue
        answer = b''.join(key.data)
        refused = len(answer) == (1 << 20) + 1 and not answer.strip(b'\0')
        got['refused' if refused else answer.decode()] += 1
        waiting.unregister(key.fileobj)
        key.fileobj.close()
print(json.dumps(got))
";

/// Askers at work. Their unit must not be known to systemd otherwise.
pub struct Crowd {
    unit: &'static str,
    run: Running,
}

impl Crowd {
    /// They read what comes.
    pub fn gather(machine: &Machine, unit: &'static str, credential: &str, count: usize) -> Crowd {
        Crowd::start(machine, unit, credential, count, "/run")
    }

    /// They read nothing before [`Crowd::listen`].
    pub fn gather_deaf(machine: &Machine, unit: &'static str, credential: &str, count: usize) -> Crowd {
        let go = go(unit);
        machine.run(&["rm", "-f", &go]).ok();
        Crowd::start(machine, unit, credential, count, &go)
    }

    fn start(machine: &Machine, unit: &'static str, credential: &str, count: usize, go: &str) -> Crowd {
        machine.write("/run/askers.py", ASKERS, "0644");
        let as_unit = format!("--unit={unit}");
        let run = machine.spawn(&[
            "systemd-run",
            "--quiet",
            "--wait",
            "--pipe",
            "--collect",
            "--property=LimitNOFILE=16384",
            &as_unit,
            "python3",
            "/run/askers.py",
            unit,
            credential,
            &count.to_string(),
            go,
        ]);
        Crowd { unit, run }
    }

    pub fn listen(&self, machine: &Machine) {
        machine.write(&go(self.unit), "", "0644");
    }

    /// When all have their answer: how often which came.
    #[track_caller]
    pub fn answers(self) -> BTreeMap<String, usize> {
        serde_json::from_str(&self.run.wait().ok()).expect("the askers print JSON")
    }
}

fn go(unit: &str) -> String {
    format!("/run/{unit}.go")
}
