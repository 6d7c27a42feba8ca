//! Who may be at the other end of the socket: units, forgers, other clients than the service manager; and no one's
//! behaviour holds up another unit's start. Also all sockets that systemd may pass, and the wrong one.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::crowd::Crowd;
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

/// More than the store has places, and none of them ever reads.
fn deaf_peers_hold_up_nobody(machine: &Machine, address: &str) {
    const TOO_MANY: usize = 4200;
    cached(machine);
    let deaf = Client::start(machine, "deaf", &CONFINED, (address, TOO_MANY, "/run/never"));
    deaf.is_connected();
    starts_soon(machine, "quick.service", &value("key"));
    // And one whose secret must be fetched, which needs a place to wait.
    starts_soon(machine, "new@1.service", &value("new"));
    drop(deaf);
    stored(machine, 0);
    starts_soon(machine, "quick.service", &value("key"));
    assert_eq!(machine.show("opnix.service", "NRestarts"), "0");
}

pub fn a_crowd_with_forged_names_that_does_not_read_holds_up_no_start(machine: &Machine) {
    deaf_peers_hold_up_nobody(machine, "/unit/victim.service/key");
}

pub fn a_crowd_from_other_addresses_that_does_not_read_holds_up_no_start(machine: &Machine) {
    deaf_peers_hold_up_nobody(machine, "");
}

/// What it has read so far would be a valid credential: so it must be sure that it is no unit's own request that is closed.
pub fn a_forger_that_does_not_read_is_closed_on_record_and_a_users_unit_never(machine: &Machine) {
    const TIME_TO_READ: Duration = Duration::from_secs(10);
    cached(machine);
    // A unit of root's own service manager: it has uid 0, and a name that no system unit has.
    machine.write("/run/client.py", CLIENT, "0644");
    machine.write(
        "/run/systemd/user/holder.service",
        "[Service]\nStandardOutput=truncate:/run/said-holder\n\
         ExecStart=python3 /run/client.py /unit/holder.service/key 1 /run/holder.go\n",
        "0644",
    );
    let user = |verb: &str| {
        format!(
            "XDG_RUNTIME_DIR=/run/user/0 systemctl --user daemon-reload; XDG_RUNTIME_DIR=/run/user/0 systemctl --user {verb} holder.service"
        )
    };
    machine.sh("rm -f /run/said-holder /run/holder.go; systemctl start user@0.service").ok();
    machine.sh(&user("start")).ok();
    let holder = || machine.sh("cat /run/said-holder || true").text();
    machine.wait("the user's unit to connect", || holder().contains("connected"), LONG);

    let forger = Client::start(machine, "forger", &[], ("/unit/victim.service/key", 1, "/run/never"));
    machine.wait("the forger's connection to be closed", || !forger.ended().is_empty(), 2 * TIME_TO_READ);
    let (bytes, seconds) = forger.ended()[0];
    assert!(bytes < REFUSAL, "it read nothing of it in time: {bytes}");
    assert!(seconds > TIME_TO_READ.as_secs_f64() / 2.0, "it had time to read: {seconds}");
    let closed = machine.journal(&[&kind("12")]);
    assert_eq!(closed.len(), 1, "{closed:?}");
    assert!(closed[0]["OPNIX_REASON"].as_str().is_some_and(|reason| !reason.is_empty()), "{closed:?}");
    // The other one has had as long as that, and a little longer.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(holder(), "connected 1");
    machine.write("/run/holder.go", "", "0644");
    machine.wait("the end of its refusal", || !ends(&holder()).is_empty(), LONG);
    assert_eq!(ends(&holder())[0].0, REFUSAL);
    machine.sh(&user("stop")).ok();
    machine.systemctl(&["stop", "user@0.service"]).ok();
}

/// For systemd-nspawn and systemd-cryptsetup the overrun is a value like any other, and so is an end without a byte.
pub fn who_asks_from_another_address_is_held_through_kills_and_restarts(machine: &Machine) {
    cached(machine);
    let clients = [("container", ""), ("volume", "/cryptsetup/data")]
        .map(|(unit, address)| Client::start(machine, unit, &[], (address, 1, AT_ONCE)));
    let records = || machine.journal(&[&kind("11")]);
    let known = || records().len() == 2 || clients.iter().any(|client| !client.ended().is_empty());
    machine.wait("both to be held, or to hear something", known, LONG);
    let held = |when: &str| clients.iter().for_each(|client| client.is_held(when));
    held("after it asked");
    // What to write instead.
    for record in records() {
        assert!(record.to_string().contains("LoadCredential="), "{record}");
    }
    for (number, again) in
        ["systemctl kill --signal=KILL opnix.service", "systemctl restart opnix.service"].iter().enumerate()
    {
        let before = machine.show("opnix.service", "MainPID");
        machine.sh(again).ok();
        let follows = || {
            machine.show("opnix.service", "SubState") == "running"
                && machine.show("opnix.service", "MainPID") != before
        };
        machine.wait("the next instance", follows, LONG);
        // It answers others after it has looked at what it found.
        starts_soon(machine, &format!("new@{number}.service"), &value("new"));
        held(again);
    }
    drop(clients);
    stored(machine, 0);
}

/// It reads its credentials before it looks at anything else.
pub fn systemd_nspawn_gets_nothing_for_a_credential(machine: &Machine) {
    if machine.sh("command -v systemd-nspawn").code != Some(0) {
        return eprintln!("no systemd-nspawn in this root: the real one was not tried");
    }
    cached(machine);
    machine.sh("mkdir -p /run/no-root").ok();
    let _ended = Ended::with(machine, "nspawn.service");
    machine
        .sh("systemd-run --quiet --unit=nspawn systemd-nspawn --load-credential=key:/run/opnix/creds.sock \
             --directory=/run/no-root true")
        .ok();
    let running = || machine.show("nspawn.service", "SubState") == "running";
    let known = || machine.journal(&[&kind("11")]).len() == 1 || !running();
    machine.wait("it to be held, or to go on", known, LONG);
    let said = machine.journal(&["_SYSTEMD_UNIT=nspawn.service"]);
    assert!(running(), "it went on: {:?}", said.iter().map(|record| &record["MESSAGE"]).collect::<Vec<_>>());
    starts_soon(machine, "quick.service", &value("key"));
    assert!(running());
}

/// At the bound a newcomer of that unit goes, on record, never one that is held.
pub fn of_one_unit_only_so_many_are_held_and_others_find_their_place(machine: &Machine) {
    const PLACES: usize = 16;
    const TOO_MANY: usize = 4;
    cached(machine);
    let greedy = Client::start(machine, "greedy", &CONFINED, ("", PLACES + TOO_MANY, AT_ONCE));
    machine.wait("what is too many to end", || greedy.ended().len() >= TOO_MANY, LONG);
    let modest = Client::start(machine, "modest", &[], ("", 1, AT_ONCE));
    machine.wait("the other one's record", || machine.journal(&[&kind("11")]).len() > 1, LONG);
    starts_soon(machine, "quick.service", &value("key"));
    modest.is_held("beside the greedy one");
    let ended = greedy.ended();
    assert_eq!(ended.iter().map(|(bytes, _)| *bytes).collect::<Vec<_>>(), [0; TOO_MANY]);
    let closed = machine.journal(&[&kind("12")]);
    assert!(!closed.is_empty(), "on record");
    assert!(closed.iter().all(|record| record["OPNIX_REASON"].is_string()), "{closed:?}");
}

/// A drop-in may open the socket to others.
pub fn another_user_is_refused_or_closed(machine: &Machine) {
    cached(machine);
    let _open = Lines::of(machine, "opnix.socket", "[Socket]\nSocketMode=0666\n");
    stop(machine);
    machine.systemctl(&["start", "opnix.socket"]).ok();
    let nobody = ["User=nobody"];
    let named = Client::start(machine, "named", &nobody, ("/unit/victim.service/key", 1, AT_ONCE));
    let unnamed = Client::start(machine, "unnamed", &nobody, ("", 1, AT_ONCE));
    for (client, bytes) in [(&named, REFUSAL), (&unnamed, 0)] {
        machine.wait("its end", || !client.ended().is_empty(), LONG);
        assert_eq!(client.ended()[0].0, bytes, "{}", client.unit);
    }
}

/// Nobody may fill the journal through us.
pub fn forged_requests_in_a_loop_are_a_few_records_and_a_count(machine: &Machine) {
    const COUNT: usize = 5_000;
    cached(machine);
    let forger = format!(
        "import socket\n\
         for number in range({COUNT}):\n\
         \x20   s = socket.socket(socket.AF_UNIX); s.bind('\\0%016x/unit/victim.service/key' % number)\n\
         \x20   s.connect('/run/opnix/creds.sock'); s.shutdown(socket.SHUT_WR)\n\
         \x20   assert s.recv(1) == b'\\0'; s.close()\n"
    );
    machine.write("/run/forger.py", forger, "0644");
    machine.sh("systemd-run --quiet --wait --pipe --collect --unit=forger python3 /run/forger.py").ok();
    let records = || machine.journal(&[&kind("02"), "OPNIX_UNIT=victim.service", "OPNIX_CHECK=peer"]);
    // A record that was written by now is in the journal before that of a later start.
    starts_soon(machine, "new@1.service", &value("new"));
    machine.wait(
        "the later start",
        || !machine.journal(&[&kind("01"), "OPNIX_UNIT=new@1.service"]).is_empty(),
        LONG,
    );
    let said = records();
    assert!((1..=5).contains(&said.len()), "{} records", said.len());
    let reason = said[0]["OPNIX_REASON"].as_str().unwrap_or_default();
    assert!(reason.contains("/system.slice/forger.service"), "{reason}");
    // The rest is told when the minute is over, or when the service ends.
    machine.systemctl(&["restart", "opnix.service"]).ok();
    let repeated = || {
        let count = |record: &serde_json::Value| record["OPNIX_REPEATED"].as_str()?.parse::<usize>().ok();
        machine.journal(&[]).iter().filter_map(count).sum::<usize>()
    };
    machine.wait("the count", || repeated() >= COUNT - 5, LONG);
    assert!(repeated() <= COUNT, "{}", repeated());
}

pub fn every_socket_of_a_socket_unit_is_served(machine: &Machine) {
    cached(machine);
    let _second = Lines::of(machine, "opnix.socket", "[Socket]\nListenStream=/run/opnix/second.sock\n");
    stop(machine);
    machine.systemctl(&["start", "opnix.socket"]).ok();
    machine.unit(
        "victim.service",
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nLoadCredential=key:/run/opnix/second.sock\n\
         ExecStart=sh -c 'cat $CREDENTIALS_DIRECTORY/key'\nStandardOutput=truncate:/run/got-%n\n",
    );
    starts_soon(machine, "victim.service", &value("key"));
    starts_soon(machine, "quick.service", &value("key"));
    // Also by an instance that follows another one.
    machine.systemctl(&["restart", "opnix.service"]).ok();
    starts_soon(machine, "quick.service", &value("key"));
    starts_soon(machine, "victim.service", &value("key"));
}

pub fn every_control_socket_is_served(machine: &Machine) {
    cached(machine);
    let second =
        Lines::of(machine, "opnix-control.socket", "[Socket]\nListenStream=/run/opnix/control-2.sock\n");
    machine
        .sh("systemctl stop opnix.service opnix-control.socket; systemctl start opnix-control.socket")
        .ok();
    let asks = |path: &str| machine.run(&["timeout", "10", "opnix", "status", "--json", "--control", path]);
    let answers = ["/run/opnix/control-2.sock", "/run/opnix/control.sock"].map(|path| asks(path).code);
    drop(second);
    machine.sh("systemctl stop opnix.service opnix-control.socket").ok();
    assert_eq!(answers, [Some(0); 2]);
}

/// Closed or shut down it would be of no use to whoever it is for; a listener that is shut down is so for PID 1 as well.
pub fn a_listener_of_another_name_is_reported_and_left_open(machine: &Machine) {
    const PATH: &str = "/run/opnix-foo.sock";
    cached(machine);
    stop(machine);
    machine.unit(
        "opnix-foo.socket",
        &format!(
            "[Socket]\nListenStream={PATH}\nFileDescriptorName=foo\nService=opnix.service\nRemoveOnStop=yes\n"
        ),
    );
    machine.systemctl(&["start", "opnix-foo.socket", "opnix.socket"]).ok();
    starts_soon(machine, "quick.service", &value("key"));
    // Of the sockets with this path the one that listens; those of its connections have the same.
    let listens = |path: &str| {
        let inode =
            machine.sh(&format!("awk '$8 == \"{path}\" && $4 == 10000 {{ print $7 }}' /proc/net/unix")).ok();
        machine.sh(&format!("ls -l /proc/{}/fd | grep -F 'socket:[{inode}]'", worker(machine)))
    };
    listens("/run/opnix/creds.sock").ok();
    let open = listens(PATH);
    let connects = machine.run(&[
        "python3",
        "-c",
        "import socket, sys\nsocket.socket(socket.AF_UNIX).connect(sys.argv[1])",
        PATH,
    ]);
    let said = machine.journal(&["_SYSTEMD_UNIT=opnix.service"]);
    let starts = machine.show("opnix.service", "NRestarts");
    // First of all, as the connection in its backlog would start the service again.
    machine.sh("systemctl stop opnix-foo.socket; rm /run/systemd/system/opnix-foo.socket; systemctl daemon-reload").ok();
    let names_it =
        |record: &serde_json::Value| record["MESSAGE"].as_str().is_some_and(|text| text.contains("foo"));
    assert!(said.iter().any(names_it), "{said:?}");
    connects.ok();
    open.ok();
    assert_eq!(starts, "0");
}

/// Two sockets lie in /run/opnix, and somebody names the wrong one.
pub fn the_control_socket_refuses_who_asks_for_a_credential(machine: &Machine) {
    set_up(machine, &[secret("app-key", &["app.service"])], &[("app-key", value("app-key"))], "30s");
    machine.systemctl(&["start", "opnix-control.socket"]).ok();
    consumer(machine, "app.service", "app-key", "LoadCredential=app-key:/run/opnix/control.sock");
    machine.sh("systemctl stop app.service; rm -f /run/got/app.service.started /run/got-app.service").ok();
    let start = machine.systemctl(&["start", "app.service"]);
    assert!(
        start.code != Some(0),
        "it started with {:?}",
        String::from_utf8_lossy(&found(machine, "app.service"))
    );
    assert_eq!(machine.show("app.service", "ExecMainStatus"), "243");
    machine.run(&["test", "-e", "/run/got/app.service.started"]).fails();
    let records = || machine.journal(&[&kind("02"), "OPNIX_UNIT=app.service", "OPNIX_CREDENTIAL=app-key"]);
    machine.wait("the record", || !records().is_empty(), LONG);
    let records = records();
    assert_eq!(records.len(), 1, "{records:?}");
    let said = records[0].to_string();
    assert!(
        said.contains("LoadCredential=") && said.contains(":/run/opnix/creds.sock"),
        "what to write: {said}"
    );
    // It goes on serving those that it is for.
    machine.run(&["opnix", "status"]).ok();
    machine.systemctl(&["reset-failed"]).ok();
}

/// Signals that do not end the service, as fast as they go. Those that it handles interrupt system calls; the others, which cost
/// it nothing, leave it the time to get to a call.
const SIGNALS: &str = r"
import os, signal, sys
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
    for one in handled + harmless:
        os.kill(pid, one)
";

/// A signal during a look at a connection is no hang-up.
pub fn signals_while_requests_wait_make_no_empty_answer(machine: &Machine) {
    const COUNT: usize = 3_000;
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
    if machine.run(&["cat", "/run/handled"]).ok().is_empty() {
        eprintln!("it handles none of these signals: none can interrupt its calls, and this shows nothing");
    }
}
