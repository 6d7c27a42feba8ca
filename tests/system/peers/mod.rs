//! Who may be at the other end of the socket: units, forgers, other clients than the service manager; and no one's
//! behaviour holds up another unit's start. Also all sockets that systemd may pass, and the wrong one.

mod addresses;
mod crowds;
mod forgers;
mod signals;
mod sockets;

pub use addresses::*;
pub use crowds::*;
pub use forgers::*;
pub use signals::*;
pub use sockets::*;

use std::time::{Duration, Instant};

use crate::machine::Machine;
use crate::opnix::*;

/// What a refusal is made of.
const REFUSAL: usize = (1 << 20) + 1;
/// A start of a unit whose secret is in memory takes a fraction of this, also on a slow machine.
const SOON: Duration = Duration::from_secs(10);

/// Connects `count` times from `address` (with a number before it; from none if it is empty), and says when that is done, when
/// a first byte came, and how each connection ended. Reads from when the file `go` exists.
const CLIENT: &str = r"
import os, select, socket, sys, time
address, count, go = sys.argv[1], int(sys.argv[2]), sys.argv[3]
began, poll, clients = time.monotonic(), select.poll(), {}
for number in range(count):
    client = socket.socket(socket.AF_UNIX)
    if address:
        client.bind('\0%016x%s' % (number, address))
    client.connect('/run/opnix/creds.sock')
    client.shutdown(socket.SHUT_WR)
    clients[client.fileno()] = [client, 0]
    poll.register(client, select.POLLRDHUP)
print('connected', count, flush=True)
reads = False
while clients:
    if not reads and os.path.exists(go):
        reads = True
        for fd in clients:
            poll.modify(fd, select.POLLRDHUP | select.POLLIN)
    for fd, event in poll.poll(None if reads else 50):
        client, before = clients[fd]
        part = client.recv(1 << 20)
        clients[fd][1] += len(part)
        if part and not before and event == select.POLLIN:
            print('bytes', flush=True)
        if not part:
            print('ended', clients[fd][1], 'after', time.monotonic() - began, flush=True)
            poll.unregister(fd)
            del clients[fd]
time.sleep(3600)
";

/// A client at work in a unit of its own, until it is dropped.
struct Client<'a> {
    machine: &'a Machine,
    unit: &'static str,
    _ended: Ended<'a>,
}

/// What root has nothing left of but its number.
const CONFINED: [&str; 3] = ["CapabilityBoundingSet=", "NoNewPrivileges=yes", "PrivateDevices=yes"];
/// The file that makes a client read is there from the beginning.
const AT_ONCE: &str = "/run";

impl<'a> Client<'a> {
    fn start(
        machine: &'a Machine,
        unit: &'static str,
        properties: &[&str],
        (address, count, go): (&str, usize, &str),
    ) -> Self {
        machine.write("/run/client.py", CLIENT, "0644");
        machine.sh(&format!("systemctl reset-failed {unit} || true; rm -f /run/said-{unit}")).ok();
        let properties: String = properties.iter().map(|one| format!(" --property={one}")).collect();
        let command = format!(
            "systemd-run --quiet --collect --unit={unit} --property=LimitNOFILE=16384 \
             --property=StandardOutput=truncate:/run/said-{unit}{properties} \
             python3 /run/client.py '{address}' {count} {go}"
        );
        let ended = Ended::with(machine, format!("{unit}.service"));
        machine.sh(&command).ok();
        Client { machine, unit, _ended: ended }
    }

    fn said(&self) -> String {
        self.machine.sh(&format!("cat /run/said-{} || true", self.unit)).text()
    }

    #[track_caller]
    fn is_connected(&self) {
        self.machine.wait("the client to connect", || self.said().contains("connected"), LONG);
    }

    /// How many bytes each connection got that has ended, and when that was, in seconds.
    fn ended(&self) -> Vec<(usize, f64)> {
        ends(&self.said())
    }

    /// Has connected, and heard nothing since: not a byte, no end.
    #[track_caller]
    fn is_held(&self, when: &str) {
        assert_eq!(self.said(), "connected 1", "{} {when}", self.unit);
    }
}

fn ends(said: &str) -> Vec<(usize, f64)> {
    let end = |line: &str| {
        let (bytes, seconds) = line.strip_prefix("ended ")?.split_once(" after ")?;
        Some((bytes.parse().ok()?, seconds.parse().ok()?))
    };
    said.lines().filter_map(end).collect()
}

/// A service whose values are in memory, with these further secrets.
fn cached(machine: &Machine) {
    set_up(
        machine,
        &[secret("key", &["quick.service", "victim.service"]), secret("new", &["new@*.service"])],
        &[("key", value("key")), ("new", value("new"))],
        "30s",
    );
    asks_once(machine, "quick.service", "key");
    asks_once(machine, "new@.service", "new");
    machine.systemctl(&["restart", "quick.service"]).ok();
}

#[track_caller]
fn starts_soon(machine: &Machine, unit: &str, expected: &str) {
    let began = Instant::now();
    let limit = SOON.as_secs().to_string();
    let started = machine.run(&["timeout", &limit, "systemctl", "restart", unit]);
    if started.code != Some(0) {
        let _ = machine.systemctl(&["stop", "--no-block", unit]);
        panic!("{unit} did not start within {:?}:\n{started}", began.elapsed());
    }
    assert_eq!(String::from_utf8_lossy(&found(machine, unit)), expected, "{unit}");
}
