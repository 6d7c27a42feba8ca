//! Requests end well whatever happens to systemd, and to the instance that had them.

use std::path::Component;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{ASK, ask, client, said};
use crate::machine::Machine;
use crate::opnix::*;

/// PID 1 of the machine, which does nothing while this lives.
struct Frozen(Pid);

impl Frozen {
    fn systemd(machine: &Machine) -> Self {
        let path = machine.path("/");
        let names = path.components().filter_map(|component| match component {
            Component::Normal(name) => name.to_str(),
            _ => None,
        });
        let pid = names.filter_map(|name| name.parse().ok()).next().expect("/proc/PID/root");
        let pid = Pid::from_raw(pid);
        kill(pid, Signal::SIGSTOP).expect("it is there");
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

pub fn a_request_from_the_store_has_its_whole_answer_although_systemd_itself_is_held_up(machine: &Machine) {
    set_up(machine, &[secret("slow", &["held.service"])], &[("slow", value("slow"))], "60s");
    let vault = slow_vault(machine);
    client(machine, "held", &ASK.replace("sys.argv[1], sys.argv[2]", "'held.service', 'slow'"));
    stored(machine, 1);
    let systemd = Frozen::systemd(machine);
    drop(vault);
    // systemd holds the connection too: only a shutdown tells the peer that this was all.
    // (Not `Machine::wait`, which would ask systemd about its jobs.)
    let end = Instant::now() + LONG;
    while !said(machine, "held").ends_with(&value("slow")) {
        assert!(Instant::now() < end, "the peer was never told that its answer is complete");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(systemd);
    stored(machine, 0);
}

pub fn a_request_whose_value_is_at_hand_when_the_next_instance_finds_it_is_ended_as_any_other(
    machine: &Machine,
) {
    set_up(machine, &[secret("kept", &["kept.service"])], &[("kept", value("kept"))], "60s");
    machine.run(&["opnix", "setup"]).ok();
    assert_eq!(ask(machine, "kept.service", "kept", &[]).1, value("kept"));
    const CACHE: &str = "/var/lib/private/opnix/cache";
    machine.wait("the sealed cache", || machine.run(&["test", "-s", CACHE]).code == Some(0), LONG);
    // Without it the next instance has to wait for the vault.
    machine.systemctl(&["stop", "opnix-mirror.service", "opnix.service"]).ok();
    machine.sh(&format!("mv {CACHE} /run/kept-cache")).ok();
    let vault = slow_vault(machine);
    client(machine, "kept", &ASK.replace("sys.argv[1], sys.argv[2]", "'kept.service', 'kept'"));
    stored(machine, 1);
    // And with it, the one after that does not.
    machine.sh(&format!("cp -p /run/kept-cache {CACHE}")).ok();
    machine.systemctl(&["kill", "--signal=KILL", "opnix.service"]).ok();
    machine.wait("the whole answer", || said(machine, "kept").ends_with(&value("kept")), LONG);
    stored(machine, 0);
    drop(vault);
}

pub fn only_the_services_main_process_speaks_to_systemd_for_it(machine: &Machine) {
    set_up(machine, &[secret("key", &["any.service"])], &[("key", value("key"))], "30s");
    machine.systemctl(&["start", "opnix.service"]).ok();
    let main = machine.show("opnix.service", "MainPID");
    // As what asks 1Password could, whose code is not ours: it is in the service's cgroup.
    let program = r"
import os, socket, sys
with open('/sys/fs/cgroup' + sys.argv[1] + '/cgroup.procs', 'w') as procs:
    procs.write('0')
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect('/run/systemd/notify')
socket.send_fds(s, [b'FDSTORE=1\nFDPOLL=0\nFDNAME=request-1'], [os.pipe()[0]])
s.send(b'STATUS=Not said by the service.')
s.send(b'MAINPID=%d' % os.getpid())
# What it has heard of whom is asked while this one is still there to be looked up.
sys.stdin.read()
";
    machine.write("/run/talker.py", program, "0644");
    let cgroup = machine.show("opnix.service", "ControlGroup");
    let talk = format!("(sleep 1; echo) | python3 /run/talker.py {cgroup}");
    machine.sh(&talk).ok();
    stored(machine, 0);
    assert_eq!(machine.show("opnix.service", "MainPID"), main);
    assert_ne!(machine.show("opnix.service", "StatusText"), "Not said by the service.");
}

/// As if that thread hung: in a lock, in a system call. Whatever it is for, units start.
pub fn whichever_thread_hangs_a_unit_has_its_secret_soon(machine: &Machine) {
    set_up(machine, &[secret("key", &["unhurried.service"])], &[("key", value("key"))], "60s");
    machine.unit("opnix.service.d/60-more.conf", "[Service]\nWatchdogSec=2s\n");
    assert_eq!(ask(machine, "unhurried.service", "key", &[]).1, value("key"));
    machine.sh("systemd-run --quiet --collect --unit=unhurried sleep infinity").ok();
    let cgroup = machine.show("unhurried.service", "ControlGroup");
    // Seized by a debugger, one thread stands still and the others run on.
    let program = r"
import ctypes, os, socket, sys, time
cgroup, thread = sys.argv[1], int(sys.argv[2])
with open('/sys/fs/cgroup' + cgroup + '/cgroup.procs', 'w') as procs:
    procs.write('0')
libc = ctypes.CDLL(None, use_errno=True)
for request in [0x4206, 0x4207]: # PTRACE_SEIZE, PTRACE_INTERRUPT
    assert libc.ptrace(request, thread, None, None) == 0, os.strerror(ctypes.get_errno())
os.waitpid(thread, 0x40000000) # __WALL
s = socket.socket(socket.AF_UNIX)
s.settimeout(0.1)
s.bind('\0%016x/unit/unhurried.service/key' % thread)
s.connect('/run/opnix/creds.sock')
s.shutdown(socket.SHUT_WR)
answer, part, end = b'', b'?', time.monotonic() + 20
while part:
    assert time.monotonic() < end, 'no answer'
    try:
        part = s.recv(1 << 20)
        answer += part
    except TimeoutError:
        # When it is killed, it is gone only when its debugger has heard of it.
        try:
            os.waitpid(thread, 0x40000000 | os.WNOHANG)
        except ChildProcessError:
            pass
print('refused' if len(answer) > 1 << 20 else answer.decode())
";
    machine.write("/run/debugger.py", program, "0644");
    let threads = || machine.run(&["ls", &format!("/proc/{}/task", worker(machine))]).ok();
    let count = threads().lines().count();
    assert!(count > 1, "{count}");
    // By number, as the instance may be another one each time.
    for number in 0..count {
        machine.wait("it to run", || machine.show("opnix.service", "SubState") == "running", LONG);
        let threads = threads();
        let Some(thread) = threads.lines().nth(number) else { continue };
        let said = machine.run(&["python3", "/run/debugger.py", &cgroup, thread]);
        assert_eq!(said.text(), value("key"), "thread {number} of {count}: {said}");
    }
    machine.sh("systemctl stop unhurried.service; systemctl reset-failed").ok();
}
