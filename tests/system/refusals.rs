//! Whatever goes wrong: the unit does not start, and one record says why.

use crate::machine::Machine;
use crate::opnix::*;

fn refused(machine: &Machine, unit: &str, credential: &str, check: &str) {
    consumer(machine, unit, credential, "");
    machine.systemctl(&["start", unit]).fails();
    assert_refused(machine, unit, credential, check);
}

pub fn an_unmapped_credential_or_unit_is_refused(machine: &Machine) {
    set_up(machine, &[secret("key", &["good.service"])], &[("key", value("key"))], "30s");
    refused(machine, "no-such.service", "other", "policy");
    refused(machine, "not-mine.service", "key", "policy");
}

pub fn faults_of_the_vault_are_refused(machine: &Machine) {
    let secrets = [secret("missing", &["missing.service"]), secret("empty", &["empty.service"])];
    set_up(machine, &secrets, &[("empty", String::new())], "30s");
    refused(machine, "missing.service", "missing", "provider");
    refused(machine, "empty.service", "empty", "provider");
    machine.sh("rm /run/opnix-vault/vault.json").ok();
    set_up(machine, &[secret("gone", &["gone.service"])], &[("x", value("x"))], "30s");
    machine.sh("rm /run/opnix-vault/vault.json").ok();
    refused(machine, "gone.service", "gone", "provider");
}

pub fn an_oversized_value_is_refused_and_named(machine: &Machine) {
    let too_big = "x".repeat((1 << 20) - "big".len() + 1);
    set_up(machine, &[secret("big", &["too-big.service"])], &[("big", too_big)], "30s");
    refused(machine, "too-big.service", "big", "size");
}

pub fn a_vault_that_does_not_answer_in_time_is_refused(machine: &Machine) {
    set_up(machine, &[secret("slow", &["slow.service", "simple.service"])], &[("slow", value("slow"))], "1s");
    let vault = slow_vault(machine);
    refused(machine, "slow.service", "slow", "deadline");
    // Type=simple counts as started at once: it must fail as well, not wait for ever.
    machine.unit(
        "simple.service",
        "[Service]\nLoadCredential=slow:/run/opnix/creds.sock\nExecStart=sh -c 'echo started >/run/got/simple.service.started; sleep 60'\n",
    );
    // From some version on, systemd notices before it counts it as started; both are right.
    let _ = machine.systemctl(&["start", "simple.service"]);
    machine.wait("its failure", || machine.show("simple.service", "ActiveState") == "failed", LONG);
    assert_refused(machine, "simple.service", "slow", "deadline");
    drop(vault);
}

pub fn a_forged_name_is_refused(machine: &Machine) {
    set_up(machine, &[secret("key", &["victim.service"])], &[("key", value("key"))], "30s");
    let forger = "import socket\n\
        s = socket.socket(socket.AF_UNIX); s.bind('\\0' + '1' * 16 + '/unit/victim.service/key')\n\
        s.connect('/run/opnix/creds.sock'); s.shutdown(socket.SHUT_WR)\n\
        data = b''\n\
        while True:\n    part = s.recv(65536)\n    if not part: break\n    data += part\n\
        print(len(data), data.strip(b'\\0'))\n";
    machine.write("/run/forger.py", forger, "0644");
    let run = "systemd-run --quiet --wait --pipe --unit=forger python3 /run/forger.py";
    assert_eq!(machine.sh(run).ok(), "1048577 b''");
    let records =
        machine.journal(&[&format!("MESSAGE_ID={REFUSED}"), "OPNIX_UNIT=victim.service", "OPNIX_CHECK=peer"]);
    assert_eq!(records.len(), 1, "{records:?}");
    assert!(
        records[0]["OPNIX_REASON"]
            .as_str()
            .is_some_and(|reason| reason.contains("/system.slice/forger.service"))
    );
}

pub fn a_client_that_does_not_read_holds_up_nobody(machine: &Machine) {
    set_up(machine, &[secret("key", &["quick.service"])], &[("key", value("key"))], "30s");
    let deaf = "import socket, time\n\
        deaf = []\n\
        for n in range(200):\n    s = socket.socket(socket.AF_UNIX); s.bind('\\0%016x/unit/deaf.service/key' % n)\n\
        \x20   s.connect('/run/opnix/creds.sock'); s.shutdown(socket.SHUT_WR); deaf.append(s)\n\
        print('deaf', flush=True); time.sleep(60)\n";
    machine.write("/run/deaf.py", deaf, "0644");
    let clients = machine.spawn(&["python3", "/run/deaf.py"]);
    // What repeats is on record once, and counted.
    let told = || !machine.journal(&["OPNIX_UNIT=deaf.service"]).is_empty();
    machine.wait("the refusals", told, LONG);
    consumer(machine, "quick.service", "key", "");
    machine.systemctl(&["start", "quick.service"]).ok();
    assert_eq!(found(machine, "quick.service"), value("key").into_bytes());
    drop(clients);
    stored(machine, 0);
}
