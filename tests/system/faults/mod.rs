//! Each of these tests goes red when one safeguard is taken out of the program or of its unit files.

mod askers;
mod records;
mod store;
mod users;

pub use askers::*;
pub use records::*;
pub use store::*;
pub use users::*;

use crate::machine::Machine;

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
        machine.systemctl(&["stop", "opnix-mirror.service", "opnix.service", unit]).ok();
        machine.unit(&format!("{unit}.d/70-fault.conf"), lines);
        Self { machine, unit }
    }
}

impl Drop for DropIn<'_> {
    fn drop(&mut self) {
        let Self { machine, unit } = self;
        let clean = format!(
            "systemctl stop opnix-mirror.service opnix.service {unit}; rm -rf /run/systemd/system/{unit}.d; systemctl daemon-reload"
        );
        // The test may have failed already, and a second panic would hide why.
        let _ = machine.sh(&clean);
    }
}
