//! systemd's descriptor store: when it is full, and when something in it is not as it should be.

use std::collections::BTreeMap;

use crate::crowd::{Crowd, asks, sum};
use crate::machine::Machine;
use crate::opnix::*;

/// How many requests of one unit may wait at a time, and how many of all units together. The rest of systemd's store
/// (`FileDescriptorStoreMax=`, 4,096) is for refusals and for what is held.
const EACH: usize = 64;
const WAITING: usize = 2560;
const UNITS: usize = WAITING / EACH;

fn recovered(machine: &Machine, unit: &str) {
    stored(machine, 0);
    machine.systemctl(&["restart", unit]).ok();
    assert_eq!(found(machine, unit), value("slow").into_bytes());
    machine.sh(&format!("systemctl stop {unit}; rm -rf /run/got /run/got-*")).ok();
}

fn counts<const N: usize>(answers: [(String, usize); N]) -> BTreeMap<String, usize> {
    answers.into()
}

pub fn one_unit_takes_no_more_than_its_places_and_others_find_theirs(machine: &Machine) {
    const TOO_MANY: usize = 10;
    set_up(
        machine,
        &[secret("slow", &["greedy@*.service", "modest.service"])],
        &[("slow", value("slow"))],
        "60s",
    );
    consumer(machine, "modest.service", "slow", "");
    let vault = slow_vault(machine);
    let greedy = Crowd::gather(machine, "greedy", "slow", 1, EACH + TOO_MANY);
    let refused = || machine.journal(&["OPNIX_UNIT=greedy@1.service", "OPNIX_CHECK=places"]).len();
    machine.wait("the refusals of what is too many", || refused() == TOO_MANY, LONG);
    stored(machine, EACH);
    machine.systemctl(&["start", "--no-block", "modest.service"]).ok();
    stored(machine, EACH + 1);
    drop(vault);
    assert_eq!(greedy.answers(), counts([("refused".into(), TOO_MANY), (value("slow"), EACH)]));
    machine.wait("its start", || machine.show("modest.service", "ActiveState") == "active", LONG);
    assert_eq!(found(machine, "modest.service"), value("slow").into_bytes());
    recovered(machine, "modest.service");
}

/// Those who do not read their refusal take its places, and nothing else.
pub fn a_unit_is_refused_although_all_places_for_refusals_are_taken(machine: &Machine) {
    const REFUSALS: usize = 512;
    const DEAF_UNITS: usize = REFUSALS / EACH + 2;
    set_up(machine, &[secret("key", &["other.service"])], &[("key", value("key"))], "30s");
    let deaf = Crowd::deaf(machine, "deaf", "key", EACH);
    asks_once(machine, "denied.service", "key");
    deaf.start(DEAF_UNITS);
    let refused = || machine.journal(&[&kind("02"), "OPNIX_CHECK=policy"]).len();
    machine.wait("their refusals", || refused() == DEAF_UNITS * EACH, LONG);
    machine.systemctl(&["start", "denied.service"]).fails();
    assert_eq!(machine.show("denied.service", "ExecMainStatus"), "243");
    deaf.listen();
    assert_eq!(deaf.answers(), counts([("refused".into(), DEAF_UNITS * EACH)]));
    machine.systemctl(&["reset-failed"]).ok();
}

/// It asks for 256 values at once, for itself, and for as many more after a restart.
pub fn the_mirror_has_more_places_than_a_unit(machine: &Machine) {
    const PLACES: usize = 512;
    const TOO_MANY: usize = 10;
    set_up(machine, &[secret("slow", &["opnix-mirror.service"])], &[("slow", value("slow"))], "60s");
    let asks = asks(machine, "slow", PLACES + TOO_MANY, PLACES + TOO_MANY, "/run");
    let lines = format!(
        "[Service]\nType=oneshot\nRestart=no\nExecStart=\n{asks}StandardOutput=truncate:/run/mirror-got\n"
    );
    let _lines = Lines::of(machine, "opnix-mirror.service", &lines);
    // Before its lines are, so that it is never the mirror that ends.
    let _ended = Ended::with(machine, "opnix-mirror.service");
    let vault = slow_vault(machine);
    machine.systemctl(&["start", "--no-block", "opnix-mirror.service"]).ok();
    let refused = || machine.journal(&["OPNIX_UNIT=opnix-mirror.service", "OPNIX_CHECK=places"]).len();
    machine.wait("the refusals of what is too many", || refused() == TOO_MANY, LONG);
    stored(machine, PLACES);
    drop(vault);
    let done = || machine.show("opnix-mirror.service", "ActiveState") != "activating";
    machine.wait("the mirror's answers", done, LONG);
    let got = sum(&machine.run(&["cat", "/run/mirror-got"]).ok());
    assert_eq!(got, counts([("refused".into(), TOO_MANY), (value("slow"), PLACES)]));
    stored(machine, 0);
}

/// With every place taken in which a request can wait.
fn full_store(machine: &Machine) -> (crate::lease::Lease, Crowd<'_>) {
    let units = ["crowd@*.service", "late.service"];
    set_up(
        machine,
        &[secret("slow", &units), secret("quick", &["quick.service"])],
        &[("slow", value("slow")), ("quick", value("quick"))],
        "60s",
    );
    consumer(machine, "late.service", "slow", "");
    consumer(machine, "quick.service", "quick", "");
    machine.systemctl(&["restart", "quick.service"]).ok();
    let vault = slow_vault(machine);
    let crowd = Crowd::gather(machine, "crowd", "slow", UNITS, EACH);
    stored(machine, WAITING);
    (vault, crowd)
}

fn late_one_is_refused(machine: &Machine) {
    machine.systemctl(&["start", "late.service"]).fails();
    assert_refused(machine, "late.service", "slow", "places");
}

pub fn what_finds_no_place_to_wait_is_refused_and_the_service_recovers(machine: &Machine) {
    // They may have nothing, and do not read that. (systemd is slow to read unit files anew with a full store.)
    let deaf = Crowd::deaf(machine, "deaf", "slow", EACH);
    let (vault, crowd) = full_store(machine);
    deaf.start(1);
    let refused = || machine.journal(&["OPNIX_UNIT=deaf@1.service", "OPNIX_CHECK=policy"]).len();
    machine.wait("their refusals", || refused() == EACH, LONG);
    late_one_is_refused(machine);
    // What is in memory needs no place.
    machine.systemctl(&["restart", "quick.service"]).ok();
    assert_eq!(found(machine, "quick.service"), value("quick").into_bytes());
    drop(vault);
    assert_eq!(crowd.answers(), counts([(value("slow"), WAITING)]));
    deaf.listen();
    assert_eq!(deaf.answers(), counts([("refused".into(), EACH)]));
    recovered(machine, "late.service");
}

pub fn a_full_store_survives_a_kill(machine: &Machine) {
    let (vault, crowd) = full_store(machine);
    machine.sh("systemctl kill --signal=KILL opnix.service").ok();
    machine.wait("the next instance", || machine.show("opnix.service", "NRestarts") == "1", LONG);
    machine.wait("it to run", || machine.show("opnix.service", "SubState") == "running", LONG);
    let found = machine.journal(&["MESSAGE_ID=8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c07"]);
    assert_eq!(found[0]["MESSAGE"], format!("found {WAITING} waiting requests in the store"));
    // It answers others while it takes on what it found. (And one more waited for its value at first.)
    let taken_on = || machine.journal(&[&kind("0e")]).len() > 2 * WAITING;
    machine.wait("all of them to wait again", taken_on, LONG);
    late_one_is_refused(machine);
    drop(vault);
    assert_eq!(crowd.answers(), counts([(value("slow"), WAITING)]));
    recovered(machine, "late.service");
}

/// A client inside a unit of this name, as systemd itself would be.
fn client(machine: &Machine, unit: &str, program: &str) {
    machine.write("/run/client.py", program, "0644");
    machine
        .sh(&format!(
            "systemd-run --quiet --unit={unit} --property=LimitNOFILE=8192 --property=StandardOutput=truncate:/run/said-{unit} \
             python3 -u /run/client.py"
        ))
        .ok();
}

fn said(machine: &Machine, unit: &str) -> String {
    machine.run(&["cat", &format!("/run/said-{unit}")]).ok()
}

pub fn an_answer_that_a_crash_cut_off_ends_as_a_refusal(machine: &Machine) {
    let big = "x".repeat(900_000);
    set_up(machine, &[secret("big", &["half.service"])], &[("big", big)], "60s");
    // Reads a little, and the rest only when it is told to.
    let program = "import os, socket, time\n\
        s = socket.socket(socket.AF_UNIX); s.bind('\\0' + '2' * 16 + '/unit/half.service/big')\n\
        s.connect('/run/opnix/creds.sock'); s.shutdown(socket.SHUT_WR)\n\
        data = s.recv(1000); print('begun', flush=True)\n\
        while not os.path.exists('/run/read-on'): time.sleep(0.02)\n\
        while True:\n    part = s.recv(65536)\n    if not part: break\n    data += part\n\
        print('total', len(data), flush=True)\n";
    client(machine, "half", program);
    machine.wait("the beginning", || said(machine, "half").contains("begun"), LONG);
    machine.sh("systemctl kill --signal=KILL opnix.service").ok();
    machine.wait("the next instance", || machine.show("opnix.service", "NRestarts") != "0", LONG);
    machine.sh("touch /run/read-on").ok();
    machine.wait("the end", || said(machine, "half").contains("total"), LONG);
    let total: usize =
        said(machine, "half").rsplit(' ').next().and_then(|size| size.parse().ok()).expect("a size");
    assert!(total > 1 << 20, "{total} bytes would be taken for a secret");
    let records = machine.journal(&[&format!("MESSAGE_ID={REFUSED}"), "OPNIX_CHECK=interrupted"]);
    assert_eq!(records.len(), 1, "{records:?}");
    stored(machine, 0);
}

pub fn what_others_left_in_the_store_is_dropped_and_what_went_away_is_on_record(machine: &Machine) {
    set_up(machine, &[secret("slow", &["gone.service"])], &[("slow", value("slow"))], "60s");
    let foreign = "import os, socket\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(os.environ['NOTIFY_SOCKET'])\n\
        for name in [b'foreign', b'request-1']:\n    socket.send_fds(s, [b'FDSTORE=1\\nFDPOLL=0\\nFDNAME=' + name], [os.pipe()[0]])\n";
    machine.write("/run/foreign.py", foreign, "0644");
    let lines = "[Service]\nNotifyAccess=all\nRestartSec=2s\nExecStartPre=+python3 /run/foreign.py\n";
    machine.unit("opnix.service.d/60-more.conf", lines);
    let vault = slow_vault(machine);
    consumer(machine, "gone.service", "slow", "");
    machine.systemctl(&["start", "--no-block", "gone.service"]).ok();
    // A pipe under a foreign name, and one under ours: only when they are gone does a number tell something.
    let dropped = || machine.journal_text().matches("dropped a descriptor of unknown kind").count();
    machine.wait("both to be dropped", || dropped() == 2, LONG);
    machine.wait("the request", || !machine.journal(&["OPNIX_UNIT=gone.service"]).is_empty(), LONG);
    stored(machine, 1);
    // The unit gives up while no instance is there.
    machine.sh("systemctl kill --signal=KILL opnix.service; systemctl stop gone.service").ok();
    machine.wait("the next instance", || machine.show("opnix.service", "SubState") == "running", LONG);
    stored(machine, 0);
    let records = machine.journal(&["OPNIX_UNIT=gone.service", &kind("03")]);
    assert_eq!(records.len(), 1, "{records:?}");
    drop(vault);
    machine.unit("opnix.service.d/60-more.conf", "");
    machine.systemctl(&["reset-failed"]).ok();
}
