//! Many askers at once, from inside their units: what they got.

use std::collections::BTreeMap;

use crate::machine::Machine;
use crate::opnix::{Ended, LONG};

/// Asks as systemd does, from the unit's own cgroup, `count` times, of them `at_once` at the same time. Answers are read
/// from when the file `go` exists. Then prints how often which answer came; a refusal is called so.
const ASKERS: &str = r"
import collections, json, os, selectors, socket, sys, time
unit, credential, count, at_once, go = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
waiting, got, asked, may_read = selectors.DefaultSelector(), collections.Counter(), 0, False
while asked < count or waiting.get_map():
    while asked < count and len(waiting.get_map()) < at_once:
        asker = socket.socket(socket.AF_UNIX)
        asker.bind('\0%016x/unit/%s/%s' % (asked, unit, credential))
        asker.connect('/run/opnix/creds.sock')
        asker.shutdown(socket.SHUT_WR)
        waiting.register(asker, selectors.EVENT_READ, [])
        asked += 1
    while not may_read:
        may_read = os.path.exists(go)
        time.sleep(0 if may_read else 0.02)
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

/// Askers at work, in units of their own: `NAME@1.service` and so on. They end with it.
pub struct Crowd<'a> {
    machine: &'a Machine,
    name: &'static str,
    _ended: Ended<'a>,
}

impl<'a> Crowd<'a> {
    /// `units` units, each of which asks `each` times at once. They read what comes.
    pub fn gather(
        machine: &'a Machine,
        name: &'static str,
        credential: &str,
        units: usize,
        each: usize,
    ) -> Self {
        let crowd = Self::prepare(machine, name, &asks(machine, credential, each, each, "/run"));
        crowd.start(units);
        crowd
    }

    /// Units that are not started yet (see [`Crowd::start`]), and read nothing before [`Crowd::listen`].
    pub fn deaf(machine: &'a Machine, name: &'static str, credential: &str, each: usize) -> Self {
        machine.run(&["rm", "-f", &go(name)]).ok();
        Self::prepare(machine, name, &asks(machine, credential, each, each, &go(name)))
    }

    /// One unit that asks `count` times, a few at a time.
    pub fn stream(machine: &'a Machine, name: &'static str, credential: &str, count: usize) -> Self {
        let crowd = Self::prepare(machine, name, &asks(machine, credential, count, 32, "/run"));
        crowd.start(1);
        crowd
    }

    fn prepare(machine: &'a Machine, name: &'static str, asks: &str) -> Self {
        let answers = answers(name);
        machine.sh(&format!("rm -rf {answers}; mkdir {answers}")).ok();
        machine.unit(
            &format!("{name}@.service"),
            &format!(
                "[Service]\nType=oneshot\nTimeoutStartSec=infinity\nLimitNOFILE=16384\n\
                 StandardOutput=truncate:{answers}/%i\n{asks}"
            ),
        );
        Crowd { machine, name, _ended: Ended::with(machine, format!("{name}@*.service")) }
    }

    pub fn start(&self, units: usize) {
        let names = format!("$(printf '{}@%s.service ' $(seq {units}))", self.name);
        self.machine.sh(&format!("systemctl start --no-block {names}")).ok();
    }

    pub fn listen(&self) {
        self.machine.write(&go(self.name), "", "0644");
    }

    /// When all have their answer: how often which came.
    #[track_caller]
    pub fn answers(self) -> BTreeMap<String, usize> {
        let pattern = format!("{}@*.service", self.name);
        let at_work =
            || self.machine.systemctl(&["list-units", "--state=activating", "--no-legend", &pattern]).ok();
        self.machine.wait("all askers to have their answer", || at_work().is_empty(), 2 * LONG);
        // A unit that failed printed nothing, and is missed in the sum.
        sum(&self.machine.sh(&format!("cat {}/*", answers(self.name))).ok())
    }
}

/// The line of a unit that makes it ask like that. What it got is on its standard output: see [`sum`].
pub fn asks(machine: &Machine, credential: &str, count: usize, at_once: usize, go: &str) -> String {
    machine.write("/run/askers.py", ASKERS, "0644");
    format!("ExecStart=python3 /run/askers.py %n {credential} {count} {at_once} {go}\n")
}

/// How often which answer came to all that printed these lines.
#[track_caller]
pub fn sum(lines: &str) -> BTreeMap<String, usize> {
    let mut sum = BTreeMap::new();
    for line in lines.lines() {
        let got: BTreeMap<String, usize> = serde_json::from_str(line).expect("the askers print JSON");
        for (answer, count) in got {
            *sum.entry(answer).or_default() += count;
        }
    }
    sum
}

fn answers(name: &str) -> String {
    format!("/run/answers-{name}")
}

fn go(name: &str) -> String {
    format!("/run/{name}.go")
}
