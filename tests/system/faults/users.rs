//! Other users of the machine get nothing, and see nothing.

use serde_json::json;

use super::{DropIn, TOKEN, ask};
use crate::machine::Machine;
use crate::onepassword::{account, entry};
use crate::opnix::*;
use crate::simulators::connect::{self, Connect};

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
    machine
        .systemctl(&["stop", "opnix-mirror.service", "opnix.service", "opnix.socket", "opnix-control.socket"])
        .ok();
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
