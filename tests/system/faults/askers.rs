//! Who asks is looked at, and not only the name.

use super::{DropIn, ask, client, said};
use crate::machine::Machine;
use crate::opnix::*;

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
