//! Each of these tests goes red when one safeguard is taken out of the program or of its unit files.

use std::path::Component;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::machine::Machine;
use crate::onepassword::{account, entry};
use crate::opnix::*;
use crate::simulators::connect::{self, Connect};

const GRANTED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c01";
const ABANDONED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c03";
const TOKEN: &str = "/etc/opnix/token";

/// Asks as systemd does, for the unit and credential that it is given, and says what systemd would make of the answer.
const ASK: &str = r"
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind('\0%016x/unit/%s/%s' % (os.getpid(), sys.argv[1], sys.argv[2]))
s.connect('/run/opnix/creds.sock')
s.shutdown(socket.SHUT_WR)
answer = b''
while part := s.recv(1 << 20):
    answer += part
print(os.getpid(), 'refused' if len(answer) > 1 << 20 else answer.decode())
";

/// Asks like that from inside the unit, with these properties besides. The asker's PID, and what it was answered.
fn ask(machine: &Machine, unit: &str, credential: &str, properties: &[&str]) -> (String, String) {
    machine.write("/run/ask-as.py", ASK, "0644");
    let unit_option = format!("--unit={unit}");
    let start = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", &unit_option];
    let program = ["python3", "/run/ask-as.py", unit, credential];
    let said = machine.run(&[&start[..], properties, &program].concat()).ok();
    let (pid, answer) = said.split_once(' ').expect("a PID and an answer");
    (pid.to_owned(), answer.to_owned())
}

/// Starts a client inside the unit, in the background; what it says is read with [`said`].
fn client(machine: &Machine, unit: &str, program: &str) {
    machine.write(&format!("/run/{unit}.py"), program, "0644");
    machine.sh(&format!("rm -f /run/said-{unit} /run/{unit}.go")).ok();
    let output = format!("--property=StandardOutput=truncate:/run/said-{unit}");
    let script = format!("/run/{unit}.py");
    let unit = format!("--unit={unit}");
    machine.run(&["systemd-run", "--quiet", "--collect", &unit, &output, "python3", "-u", &script]).ok();
}

fn said(machine: &Machine, unit: &str) -> String {
    machine.run(&["cat", &format!("/run/said-{unit}")]).text()
}

/// Further lines of a unit, for as long as this lives. The unit is stopped at both ends: a socket gets its mode when it
/// is made.
struct DropIn<'m> {
    machine: &'m Machine,
    unit: &'static str,
}

impl<'m> DropIn<'m> {
    fn new(machine: &'m Machine, unit: &'static str, lines: &str) -> Self {
        machine.systemctl(&["stop", "opnix.service", unit]).ok();
        machine.unit(&format!("{unit}.d/70-fault.conf"), lines);
        Self { machine, unit }
    }
}

impl Drop for DropIn<'_> {
    fn drop(&mut self) {
        let Self { machine, unit } = self;
        let clean = format!(
            "systemctl stop opnix.service {unit}; rm -rf /run/systemd/system/{unit}.d; systemctl daemon-reload"
        );
        // The test may have failed already, and a second panic would hide why.
        let _ = machine.sh(&clean);
    }
}

pub fn a_refusal_that_a_crash_cut_off_stays_one_although_the_value_is_there_by_then(machine: &Machine) {
    set_up(machine, &[secret("late", &["cut.service"])], &[("other", value("other"))], "60s");
    let program = r"
import os, socket, time
s = socket.socket(socket.AF_UNIX)
s.bind('\0' + '4' * 16 + '/unit/cut.service/late')
s.connect('/run/opnix/creds.sock')
s.shutdown(socket.SHUT_WR)
answer = s.recv(1000)
print('begun', flush=True)
while not os.path.exists('/run/cut.go'):
    time.sleep(0.02)
while part := s.recv(1 << 16):
    answer += part
print('total', len(answer), flush=True)
";
    client(machine, "cut", program);
    machine.wait("the beginning of the refusal", || said(machine, "cut").contains("begun"), LONG);
    // From here on the next instance could serve what this one refuses.
    write_vault(machine, &[("late", value("late"))]);
    machine.systemctl(&["kill", "--signal=KILL", "opnix.service"]).ok();
    machine.wait("the next instance", || machine.show("opnix.service", "NRestarts") != "0", LONG);
    machine.wait("it to run", || machine.show("opnix.service", "SubState") == "running", LONG);
    machine.sh("touch /run/cut.go").ok();
    machine.wait("the end", || said(machine, "cut").contains("total"), LONG);
    let said = said(machine, "cut");
    let total: usize = said.rsplit(' ').next().and_then(|size| size.parse().ok()).expect("a size");
    assert!(total > 1 << 20, "{total} bytes, zeros and a value, would be taken for a secret");
    // What is asked anew is served: the refusal was of the one request.
    assert_eq!(ask(machine, "cut.service", "late", &[]).1, value("late"));
}

pub fn a_process_of_another_user_is_refused_even_in_the_units_own_cgroup(machine: &Machine) {
    let _open = DropIn::new(machine, "opnix.socket", "[Socket]\nSocketMode=0666\n");
    set_up(machine, &[secret("key", &["owner.service"])], &[("key", value("key"))], "30s");
    // As systemd asks, so that it is known to be the user that makes the difference.
    assert_eq!(ask(machine, "owner.service", "key", &[]).1, value("key"));
    let answer = ask(machine, "owner.service", "key", &["--property=User=daemon"]).1;
    assert_eq!(answer, "refused");
    let records =
        machine.journal(&[&format!("MESSAGE_ID={REFUSED}"), "OPNIX_UNIT=owner.service", "OPNIX_CHECK=peer"]);
    assert_eq!(records.len(), 1, "{records:?}");
}

/// Takes the kernel's SO_PEERPIDFD (Linux 6.5).
pub fn a_peer_that_is_gone_is_refused_although_its_pid_now_means_a_process_of_the_unit(machine: &Machine) {
    set_up(machine, &[secret("key", &["overtaken.service"])], &[("key", value("key"))], "30s");
    machine.systemctl(&["start", "opnix.service"]).ok();
    machine.sh("systemd-run --quiet --collect --unit=overtaken sleep infinity").ok();
    // It looks at the request when all of this is done.
    machine.systemctl(&["kill", "--signal=STOP", "opnix.service"]).ok();
    let worker = worker(machine);
    let stopped = || machine.sh(&format!("grep '^State:.T' /proc/{worker}/status || true")).ok() != "";
    machine.wait("it to stand still", stopped, LONG);
    let program = r"
import ctypes, os, signal, socket, struct, subprocess, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind('\0' + '6' * 16 + '/unit/overtaken.service/key')
peer = os.fork()
if peer == 0:
    s.connect('/run/opnix/creds.sock')
    s.shutdown(socket.SHUT_WR)
    os._exit(0)
os.waitpid(peer, 0)
# clone3() with its set_tid: the next process gets the PID of the one that connected. It joins the unit.
ids = (ctypes.c_int * 1)(peer)
arguments = struct.pack('<10Q', 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(ids), 1)
libc = ctypes.CDLL(None, use_errno=True)
again = libc.syscall(435, ctypes.create_string_buffer(arguments, len(arguments)), len(arguments))
if again == 0:
    with open('/sys/fs/cgroup' + sys.argv[1] + '/cgroup.procs', 'w') as procs:
        procs.write('0')
    s.close()
    time.sleep(60)
    os._exit(0)
assert again == peer, (again, peer, os.strerror(ctypes.get_errno()))
cgroup = lambda: open('/proc/%d/cgroup' % peer).read()
while not cgroup().endswith('/overtaken.service\n'):
    time.sleep(0.01)
subprocess.run(['systemctl', 'kill', '--signal=CONT', 'opnix.service'], check=True)
answer = b''
while part := s.recv(1 << 20):
    answer += part
assert cgroup().endswith('/overtaken.service\n')
os.kill(peer, signal.SIGKILL)
print('refused' if len(answer) > 1 << 20 else answer)
";
    machine.write("/run/reborn.py", program, "0644");
    let cgroup = machine.show("overtaken.service", "ControlGroup");
    assert_eq!(machine.run(&["python3", "/run/reborn.py", &cgroup]).ok(), "refused");
    let records = machine.journal(&[
        &format!("MESSAGE_ID={REFUSED}"),
        "OPNIX_UNIT=overtaken.service",
        "OPNIX_CHECK=peer",
    ]);
    assert_eq!(records.len(), 1, "{records:?}");
    machine.systemctl(&["stop", "overtaken.service"]).ok();
    // A peer that lives, at the same place, is the unit.
    assert_eq!(ask(machine, "overtaken.service", "key", &[]).1, value("key"));
}

/// Says what a process of this user gets from the control socket.
fn status_for(machine: &Machine, user: &str) -> String {
    let program = r#"
import socket
s = socket.socket(socket.AF_UNIX)
s.connect('/run/opnix/control.sock')
answer = b''
try:
    s.sendall(b'{"method":"io.opnix.Status"}\0')
    while not answer.endswith(b'\0'):
        part = s.recv(1 << 16)
        if not part: break
        answer += part
except (BrokenPipeError, ConnectionResetError):
    pass
print(answer.decode().strip('\0') or 'nothing')
"#;
    machine.write("/run/ask-status.py", program, "0644");
    let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
    machine.run(&["setpriv", &uid, &gid, "--clear-groups", "python3", "/run/ask-status.py"]).ok()
}

pub fn the_control_socket_answers_no_other_user_even_where_its_mode_lets_everybody_in(machine: &Machine) {
    let _open = DropIn::new(machine, "opnix-control.socket", "[Socket]\nSocketMode=0666\n");
    set_up(machine, &[secret("key", &["any.service"])], &[("key", value("key"))], "30s");
    machine.systemctl(&["start", "opnix-control.socket", "opnix.service"]).ok();
    assert!(status_for(machine, "root").contains("\"secrets\""));
    assert_eq!(status_for(machine, "daemon"), "nothing");
}

pub fn as_installed_no_other_user_connects_to_either_socket(machine: &Machine) {
    set_up(machine, &[secret("key", &["any.service"])], &[("key", value("key"))], "30s");
    machine.systemctl(&["stop", "opnix.service", "opnix.socket", "opnix-control.socket"]).ok();
    machine.systemctl(&["start", "opnix.socket", "opnix-control.socket"]).ok();
    let program = r"
import errno, socket
for name in ['creds', 'control']:
    s = socket.socket(socket.AF_UNIX)
    try:
        s.connect('/run/opnix/%s.sock' % name)
        print(name, 'connected')
    except OSError as error:
        print(name, errno.errorcode[error.errno])
";
    machine.write("/run/knock.py", program, "0644");
    let as_user = ["setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups"];
    let said = machine.run(&[&as_user[..], &["python3", "/run/knock.py"]].concat()).ok();
    assert_eq!(said, "creds EACCES\ncontrol EACCES");
    // They are there. (Root's knock would start the service.)
    machine.sh("test -S /run/opnix/creds.sock && test -S /run/opnix/control.sock").ok();
}

pub fn nobody_but_root_looks_into_the_service_or_into_what_asks_1password(machine: &Machine) {
    let simulator = Connect::start(machine.listen(), None, account(&[("OpenAI", "credential")]));
    machine.write(TOKEN, connect::TOKEN, "0600");
    let config = json!({
        "provider": {"kind": "connect", "host": simulator.url()},
        "secrets": [entry("key", "OpenAI/credential", "looked.service")],
    });
    set_up_with(machine, &config);
    assert_eq!(ask(machine, "looked.service", "key", &[]).1, value("OpenAI"));
    // It is kept for a while, idle.
    let fetcher = "for pid in $(cat /sys/fs/cgroup$(systemctl show --value -p ControlGroup opnix.service)/cgroup.procs); do
        if tr '\\0' '\\n' </proc/$pid/cmdline | grep -qx fetch; then echo $pid; fi; done";
    let fetcher = machine.sh(fetcher).ok();
    for (who, pid) in [("service", worker(machine)), ("fetch", fetcher)] {
        let user = machine.sh(&format!("awk '/^Uid:/ {{print $2}}' /proc/{pid}/status")).ok();
        assert_ne!(user, "0", "{who}");
        // The kernel gives what may not be dumped or traced to root.
        let owner = machine.run(&["stat", "--format=%u", &format!("/proc/{pid}/environ")]).ok();
        assert_eq!(owner, "0", "{who}: its own user may look into it");
        for what in ["environ", "maps", "mem"] {
            let read = format!("head -c1 /proc/{pid}/{what}");
            let as_itself =
                machine.run(&["setpriv", &format!("--reuid={user}"), "--clear-groups", "sh", "-c", &read]);
            assert!(as_itself.stderr.contains("Permission denied"), "{who}: {what}: {as_itself}");
        }
        let limits = machine.sh(&format!("grep '^Max core file size' /proc/{pid}/limits")).ok();
        let limits: Vec<&str> = limits.split_whitespace().skip(4).take(2).collect();
        assert_eq!(limits, ["0", "0"], "{who}");
    }
}

pub fn each_value_that_is_served_is_on_record_once_with_who_got_what(machine: &Machine) {
    let mut secret = secret("inner-name", &[]);
    secret["units"] = json!([{"unit": "recorded.service", "credential": "outer-name"}]);
    set_up(machine, &[secret], &[("inner-name", value("inner-name"))], "30s");
    let granted = || machine.journal(&[&format!("MESSAGE_ID={GRANTED}")]);
    // The first time it is fetched, the second time it comes from memory.
    for count in 1..=2 {
        let (pid, answer) = ask(machine, "recorded.service", "outer-name", &[]);
        assert_eq!(answer, value("inner-name"));
        machine.wait("the record", || granted().len() >= count, LONG);
        let records = granted();
        assert_eq!(records.len(), count, "{records:?}");
        let record = &records[count - 1];
        assert_eq!(record["OPNIX_UNIT"], "recorded.service");
        assert_eq!(record["OPNIX_CREDENTIAL"], "outer-name");
        assert_eq!(record["OPNIX_SECRET"], "inner-name");
        assert_eq!(record["OPNIX_PEER_PID"], pid);
    }
    // And of a refusal it is not said that it was granted.
    assert_eq!(ask(machine, "unrecorded.service", "outer-name", &[]).1, "refused");
    let refused = || machine.journal(&[&format!("MESSAGE_ID={REFUSED}"), "OPNIX_UNIT=unrecorded.service"]);
    machine.wait("its record", || !refused().is_empty(), LONG);
    assert_eq!(granted().len(), 2);
}

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
    machine.systemctl(&["stop", "opnix.service"]).ok();
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

pub fn a_request_that_nobody_waits_for_any_more_gives_up_its_place_at_once_on_record(machine: &Machine) {
    set_up(machine, &[secret("slow", &["leaver.service"])], &[("slow", value("slow"))], "60s");
    let vault = slow_vault(machine);
    consumer(machine, "leaver.service", "slow", "");
    machine.systemctl(&["start", "--no-block", "leaver.service"]).ok();
    stored(machine, 1);
    machine.systemctl(&["stop", "leaver.service"]).ok();
    stored(machine, 0);
    let records = || machine.journal(&[&format!("MESSAGE_ID={ABANDONED}"), "OPNIX_UNIT=leaver.service"]);
    machine.wait("the record", || !records().is_empty(), LONG);
    assert_eq!(records().len(), 1, "{:?}", records());
    drop(vault);
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
