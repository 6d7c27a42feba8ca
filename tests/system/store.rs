//! systemd's descriptor store: when it is full, and when something in it is not as it should be.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::crowd::Crowd;
use crate::machine::Machine;
use crate::opnix::*;

/// `FileDescriptorStoreMax=` of opnix.service, and what of it requests may fill that wait for their value.
const STORE: usize = 4096;
const WAITING: usize = STORE - STORE / 4;

fn recovered(machine: &Machine, unit: &str) {
    stored(machine, 0);
    machine.systemctl(&["restart", unit]).ok();
    assert_eq!(found(machine, unit), value("slow").into_bytes());
    machine.sh(&format!("systemctl stop {unit}; rm -rf /run/got /run/got-*")).ok();
}

fn counts<const N: usize>(answers: [(String, usize); N]) -> BTreeMap<String, usize> {
    answers.into()
}

pub fn what_finds_no_place_to_wait_is_refused_and_the_service_recovers(machine: &Machine) {
    const TOO_MANY: usize = 100;
    let units = ["crowd.service", "late.service"];
    set_up(machine, &[secret("slow", &units)], &[("slow", value("slow"))], "60s");
    consumer(machine, "late.service", "slow", "");
    let vault = slow_vault(machine);
    let crowd = Crowd::gather(machine, "crowd.service", "slow", WAITING + TOO_MANY);
    let refused = || machine.journal(&["OPNIX_UNIT=crowd.service", "OPNIX_CHECK=park"]).len();
    machine.wait("the first refusals", || refused() == TOO_MANY, LONG);
    stored(machine, WAITING);
    machine.systemctl(&["start", "late.service"]).fails();
    assert_refused(machine, "late.service", "slow", "park");
    drop(vault);
    assert_eq!(crowd.answers(), counts([("refused".into(), TOO_MANY), (value("slow"), WAITING)]));
    recovered(machine, "late.service");
}

pub fn when_no_place_is_left_even_for_refusals_units_wait_in_the_backlog(machine: &Machine) {
    let units = ["crowd.service", "late.service"];
    set_up(machine, &[secret("slow", &units)], &[("slow", value("slow"))], "60s");
    consumer(machine, "late.service", "slow", "");
    let vault = slow_vault(machine);
    let crowd = Crowd::gather(machine, "crowd.service", "slow", WAITING);
    stored(machine, WAITING);
    // Nobody of these reads the refusal.
    let deaf = Crowd::gather_deaf(machine, "deaf.service", "slow", STORE - WAITING + 1);
    stored(machine, STORE);
    machine.systemctl(&["start", "--no-block", "late.service"]).ok();
    let asks = || machine.run(&["grep", "-q", "/unit/late.service/slow", "/proc/net/unix"]).code == Some(0);
    machine.wait("the last one to ask", asks, LONG);
    // Several times as long as opnix takes to see that there is a place.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(machine.show("late.service", "ActiveState"), "activating");
    assert_eq!(machine.journal(&["OPNIX_UNIT=late.service"]).len(), 0, "nobody has looked at it");
    drop(vault);
    assert_eq!(crowd.answers(), counts([(value("slow"), WAITING)]));
    machine.wait("its start", || machine.show("late.service", "ActiveState") == "active", LONG);
    assert_eq!(found(machine, "late.service"), value("slow").into_bytes());
    deaf.listen(machine);
    assert_eq!(deaf.answers(), counts([("refused".into(), STORE - WAITING + 1)]));
    recovered(machine, "late.service");
}

pub fn a_full_store_survives_a_kill(machine: &Machine) {
    let units = ["crowd.service", "late.service"];
    set_up(machine, &[secret("slow", &units)], &[("slow", value("slow"))], "60s");
    consumer(machine, "late.service", "slow", "");
    let vault = slow_vault(machine);
    let crowd = Crowd::gather(machine, "crowd.service", "slow", WAITING);
    stored(machine, WAITING);
    machine.sh("systemctl kill --signal=KILL opnix.service").ok();
    machine.wait("the next instance", || machine.show("opnix.service", "NRestarts") == "1", LONG);
    machine.wait("it to run", || machine.show("opnix.service", "SubState") == "running", LONG);
    let found = machine.journal(&["MESSAGE_ID=8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c07"]);
    assert_eq!(found[0]["MESSAGE"], format!("found {WAITING} waiting requests in the store"));
    machine.systemctl(&["start", "late.service"]).fails();
    assert_refused(machine, "late.service", "slow", "park");
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

pub fn what_others_left_in_the_store_is_dropped_and_what_went_away_is_refused(machine: &Machine) {
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
    let records =
        machine.journal(&["OPNIX_UNIT=gone.service", &format!("MESSAGE_ID={REFUSED}"), "OPNIX_CHECK=peer"]);
    assert_eq!(records.len(), 1, "{records:?}");
    drop(vault);
    machine.unit("opnix.service.d/60-more.conf", "");
    machine.systemctl(&["reset-failed"]).ok();
}
