//! Signals that come while requests wait.

use serde_json::json;

use crate::crowd::Crowd;
use crate::machine::Machine;
use crate::opnix::*;

/// Signals that do not end the service, in bursts as fast as they go. Those that it handles interrupt system calls; the others,
/// which cost it nothing, leave it the time to get to a call; the pauses leave some to all else on a machine with one processor.
const SIGNALS: &str = r"
import os, signal, sys, time
pid = int(sys.argv[1])
status = dict(line.split(':', 1) for line in open('/proc/%d/status' % pid))
caught, blocked = (int(status[field], 16) for field in ('SigCgt', 'SigBlk'))
has = lambda mask, number: mask >> (number - 1) & 1
harmless = [signal.SIGCONT, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH]
handled = [one for one in harmless + [signal.SIGUSR1, signal.SIGUSR2] if has(caught & ~blocked, one)]
# Only when both run at the same time does a signal arrive during a call, also on a busy machine.
for process in (0, pid):
    os.setpriority(os.PRIO_PROCESS, process, -15)
open(sys.argv[2], 'w').write(' '.join(one.name for one in handled))
while True:
    for one in (handled + harmless) * 50:
        os.kill(pid, one)
    time.sleep(0.002)
";

/// A signal during a look at a connection is no hang-up.
pub fn signals_while_requests_wait_make_no_empty_answer(machine: &Machine) {
    const COUNT: usize = 2_000;
    set_up(machine, &[], &[("key", value("key"))], "30s");
    let config = json!({
        "provider": {"kind": "local", "path": "/run/opnix-vault/vault.json"},
        "secrets": [{"name": "key", "reference": "op://Vault/key/value", "units": ["cold@*.service"], "cache": "never"}],
    });
    machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
    machine.sh("rm -f /run/handled; systemctl start opnix.service").ok();
    let flood = machine.spawn(&["python3", "-c", SIGNALS, &worker(machine), "/run/handled"]);
    machine.wait("the flood", || machine.run(&["test", "-e", "/run/handled"]).code == Some(0), LONG);
    let crowd = Crowd::stream(machine, "cold", "key", COUNT);
    assert_eq!(crowd.answers(), [(value("key"), COUNT)].into());
    drop(flood);
    assert_eq!(machine.show("opnix.service", "NRestarts"), "0");
    assert_ne!(
        machine.run(&["cat", "/run/handled"]).ok(),
        "",
        "signals that it handles, or none could interrupt its calls"
    );
}
