//! What lies in systemd's descriptor store: too much of it, things of others, and answers that were cut off.

use std::time::Duration;

use crate::machine::Machine;
use crate::opnix::*;

/// `opnix.service` with these lines, from the next start on.
fn drop_in(machine: &Machine, lines: &str) {
    machine.unit("opnix.service.d/60-parked.conf", &format!("[Service]\n{lines}"));
}

fn undo(machine: &Machine) {
    machine.systemctl(&["stop", "opnix.service", "opnix.socket"]).ok();
    machine.sh("rm -f /run/systemd/system/opnix.service.d/60-parked.conf; systemctl daemon-reload; systemctl reset-failed").ok();
}

fn stored(machine: &Machine) -> String {
    machine.show("opnix.service", "NFileDescriptorStore")
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
    machine.wait("an empty store", || stored(machine) == "0", LONG);
    undo(machine);
}

pub fn a_full_store_refuses_what_it_cannot_protect(machine: &Machine) {
    const PLACES: usize = 3072;
    const CLIENTS: usize = 3200;
    set_up(machine, &[secret("slow", &["flood.service", "late.service"])], &[("slow", value("slow"))], "60s");
    let vault = slow_vault(machine);
    // Each refusal is far larger than any secret; what else arrives is noted as wrong.
    let program = format!(
        "import selectors, socket\n\
        clients = {{}}; poll = selectors.DefaultSelector(); refused = whole = wrong = 0\n\
        for n in range({CLIENTS}):\n    s = socket.socket(socket.AF_UNIX); s.bind('\\0%016x/unit/flood.service/slow' % n)\n\
        \x20   s.connect('/run/opnix/creds.sock'); s.shutdown(socket.SHUT_WR); clients[s] = 0; poll.register(s, selectors.EVENT_READ)\n\
        while clients:\n    for key, _ in poll.select():\n        part = key.fileobj.recv(1 << 20)\n\
        \x20       if part: clients[key.fileobj] += len(part); continue\n\
        \x20       size = clients.pop(key.fileobj); poll.unregister(key.fileobj)\n\
        \x20       if size > 1 << 20: refused += 1\n        elif size == {}: whole += 1\n        else: wrong += 1\n\
        \x20       print(refused, whole, wrong, flush=True)\n",
        value("slow").len()
    );
    client(machine, "flood", &program);
    let last = || said(machine, "flood").lines().last().unwrap_or_default().to_owned();
    let refused = format!("{} 0 0", CLIENTS - PLACES);
    machine.wait("the refusals", || last() == refused, LONG);
    consumer(machine, "late.service", "slow", "");
    machine.systemctl(&["start", "late.service"]).fails();
    assert_refused(machine, "late.service", "slow", "park");
    // Then all that waited get the whole value, and there is room again.
    drop(vault);
    machine.wait("the others", || last() == format!("{} {PLACES} 0", CLIENTS - PLACES), LONG);
    machine.wait("an empty store", || stored(machine) == "0", LONG);
    machine.systemctl(&["start", "late.service"]).ok();
    assert_eq!(found(machine, "late.service"), value("slow").into_bytes());
    undo(machine);
}

pub fn what_others_left_in_the_store_is_dropped_and_what_went_away_is_refused(machine: &Machine) {
    set_up(machine, &[secret("slow", &["gone.service"])], &[("slow", value("slow"))], "60s");
    let foreign = "import os, socket\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(os.environ['NOTIFY_SOCKET'])\n\
        for name in [b'foreign', b'request-1']:\n    socket.send_fds(s, [b'FDSTORE=1\\nFDPOLL=0\\nFDNAME=' + name], [os.pipe()[0]])\n";
    machine.write("/run/foreign.py", foreign, "0644");
    drop_in(machine, "NotifyAccess=all\nRestartSec=2s\nExecStartPre=+python3 /run/foreign.py\n");
    let vault = slow_vault(machine);
    consumer(machine, "gone.service", "slow", "");
    machine.systemctl(&["start", "--no-block", "gone.service"]).ok();
    machine.wait("the request in the store", || stored(machine) == "1", LONG);
    let dropped = || machine.journal_text().matches("dropped a descriptor of unknown kind").count();
    assert_eq!(dropped(), 2, "a pipe under a foreign name, and one under ours");
    // The unit gives up while no instance is there.
    machine.sh("systemctl kill --signal=KILL opnix.service; systemctl stop gone.service").ok();
    machine.wait("the next instance", || machine.show("opnix.service", "SubState") == "running", LONG);
    machine.wait("an empty store", || stored(machine) == "0", Duration::from_secs(10));
    let records =
        machine.journal(&["OPNIX_UNIT=gone.service", &format!("MESSAGE_ID={REFUSED}"), "OPNIX_CHECK=peer"]);
    assert_eq!(records.len(), 1, "{records:?}");
    drop(vault);
    undo(machine);
}

pub fn a_service_that_hangs_is_replaced_and_what_waits_gets_its_secret(machine: &Machine) {
    set_up(machine, &[secret("slow", &["patient.service"])], &[("slow", value("slow"))], "60s");
    drop_in(machine, "WatchdogSec=2s\n");
    let vault = slow_vault(machine);
    consumer(machine, "patient.service", "slow", "");
    machine.systemctl(&["start", "--no-block", "patient.service"]).ok();
    machine.wait("the request in the store", || stored(machine) == "1", LONG);
    machine.sh("systemctl kill --signal=STOP opnix.service").ok();
    machine.wait("the watchdog", || machine.show("opnix.service", "NRestarts") != "0", LONG);
    drop(vault);
    machine.wait("the unit", || machine.show("patient.service", "ActiveState") == "active", LONG);
    assert_eq!(found(machine, "patient.service"), value("slow").into_bytes());
    undo(machine);
}
