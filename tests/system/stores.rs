//! Nothing old comes back: two stores after a reload, a disk that stalls or is full, and a cache that is put back.

use std::time::Duration;

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::opnix::*;
use crate::strace::Strace;

const STATE: &str = "/var/lib/private/opnix";

/// A unit of its own each time, so that each start asks.
fn start(machine: &Machine, number: usize) -> (Option<String>, bool) {
    let unit = format!("stores@{number}.service");
    let started = machine.systemctl(&["start", &unit]).code == Some(0);
    let text = machine.sh(&format!("journalctl -b -u opnix.service --sync; journalctl -o cat -u opnix.service | grep -F 'from the cache' | grep -cF {unit} || true")).ok();
    let value = started.then(|| String::from_utf8(found(machine, &unit)).expect("text"));
    (value, text.trim() != "0")
}

fn changed_to(machine: &Machine, values: &[(&str, &str)]) {
    let values: Vec<(&str, String)> = values.iter().map(|(name, of)| (*name, value(of))).collect();
    write_vault(machine, &values);
}

fn two() -> [Value; 2] {
    [secret("key", &["stores@*.service"]), secret("leaves", &["leaver@*.service"])]
}

fn is_saved(machine: &Machine) -> bool {
    machine.sh(&format!("test -e {STATE}/cache && ! test -e /run/private/opnix-missed/unsaved")).code
        == Some(0)
}

/// Each call of a write takes long, as on a disk that stalls, while the service is reloaded and values change.
pub fn what_an_older_store_writes_late_never_comes_back(machine: &Machine) {
    let mut number = 0;
    let mut start = |machine: &Machine| {
        number += 1;
        start(machine, number)
    };
    for (call, at_once) in [("renameat", true), ("fsync", true), ("fchmod", false), ("renameat", false)] {
        set_up(machine, &two(), &[("key", value("1")), ("leaves", value("leaves"))], "5s");
        consumer(machine, "stores@.service", "key", "");
        consumer(machine, "leaver@.service", "leaves", "");
        assert_eq!(start(machine).0, Some(value("1")));
        machine.sh("systemctl start leaver@1.service").ok();
        machine.wait("the cache", || is_saved(machine), LONG);
        {
            let stalls = format!("inject={call}:delay_enter=1500000");
            let _stall: Vec<Strace> = machine
                .processes("opnix.service")
                .into_iter()
                .map(|pid| Strace::process(pid, &stalls))
                .collect();
            changed_to(machine, &[("key", "2"), ("leaves", "leaves")]);
            let _writes = machine.spawn(&["opnix", "refresh"]);
            std::thread::sleep(Duration::from_millis(500));
            // The older store is in the middle of its write.
            configure(machine, &[secret("key", &["stores@*.service"])], "5s");
            machine.systemctl(&["reload", "opnix.service"]).ok();
            changed_to(machine, &[("key", "3")]);
            assert_eq!(start(machine).0, Some(value("3")), "a reload asks what is true now");
            if !at_once {
                machine.wait("it to be written", || is_saved(machine), LONG);
            }
            machine.sh(&format!("systemctl kill --signal=KILL opnix.service; rm {VAULT}")).ok();
        }
        let (got, as_old) = start(machine);
        if at_once {
            // The disk may not have it; but then nobody takes for fresh what it has.
            assert!(got == Some(value("3")) || as_old, "{call}: {got:?} was served as fresh");
        } else {
            assert_eq!((got, as_old), (Some(value("3")), false), "{call}");
        }
        // What left the configuration left the disk with it, also when it comes back.
        machine.systemctl(&["stop", "opnix-mirror.service", "opnix.service"]).ok();
        configure(machine, &two(), "1s");
        machine.systemctl(&["start", "opnix.socket"]).ok();
        if !at_once {
            machine.sh("systemctl start leaver@2.service").fails();
        }
        machine.sh("systemctl stop 'stores@*' 'leaver@*'; systemctl reset-failed").ok();
    }
}

/// The provider that hangs is replaced by another one: what it says in the end is nothing to that one's cache.
pub fn a_provider_that_answers_after_it_was_replaced_leaves_the_cache_alone(machine: &Machine) {
    set_up(machine, &[secret("key", &["stores@*.service"])], &[("key", value("of-a"))], "5s");
    consumer(machine, "stores@.service", "key", "");
    assert_eq!(start(machine, 101).0, Some(value("of-a")));
    machine.wait("the cache", || is_saved(machine), LONG);
    let hangs = slow_vault(machine);
    let _asks = machine.spawn(&["opnix", "refresh"]);
    machine.wait("the question", || hangs.is_awaited(), LONG);
    let b = "/run/opnix-vault/b.json";
    let vault = json!({"vaults": [{"name": "Vault", "items": [
        {"title": "key", "fields": [{"label": "value", "value": value("of-b")}]}]}]});
    machine.write(b, vault.to_string(), "0640");
    machine.sh(&format!("chgrp opnix-vault {b}")).ok();
    let other = json!({"provider": {"kind": "local", "path": b}, "deadline": "5s",
        "secrets": [secret("key", &["stores@*.service"])]});
    machine.write("/etc/opnix/secrets.json", other.to_string(), "0644");
    machine.systemctl(&["reload", "opnix.service"]).ok();
    assert_eq!(start(machine, 102).0, Some(value("of-b")));
    machine.wait("the cache", || is_saved(machine), LONG);
    drop(hangs);
    std::thread::sleep(Duration::from_secs(2));
    machine.sh("systemctl kill --signal=KILL opnix.service; rm /run/opnix-vault/*").ok();
    assert_eq!(start(machine, 103), (Some(value("of-b")), false));
    machine.sh("systemctl stop 'stores@*'").ok();
}

/// By an administrator, or a backup: it opens, and 1Password is asked before any of it counts.
pub fn an_old_cache_that_is_put_back_is_confirmed_before_it_is_served_as_fresh(machine: &Machine) {
    set_up(machine, &[secret("key", &["stores@*.service"])], &[("key", value("old"))], "5s");
    consumer(machine, "stores@.service", "key", "");
    assert_eq!(start(machine, 201).0, Some(value("old")));
    machine.wait("the cache", || is_saved(machine), LONG);
    machine.sh(&format!("cp -p {STATE}/cache /run/cache.old")).ok();
    changed_to(machine, &[("key", "new")]);
    machine.run(&["opnix", "refresh"]).ok();
    let put_back = format!(
        "systemctl stop opnix-mirror.service opnix.service; cp -p /run/cache.old {STATE}/cache; systemctl start opnix.service"
    );
    machine.sh(&put_back).ok();
    assert_eq!(start(machine, 202), (Some(value("new")), false), "it was asked");
    // Where nobody can be asked it is better than nothing, and is told; through restarts.
    machine.sh(&put_back).ok();
    machine.sh(&format!("rm {VAULT}")).ok();
    for number in [203, 204] {
        assert_eq!(start(machine, number), (Some(value("old")), true));
        machine.sh("systemctl kill --signal=KILL opnix.service").ok();
    }
    assert!(machine.journal_text().contains("may not have the newest values"));
    machine.sh("systemctl stop 'stores@*'").ok();
}

pub fn a_disk_that_is_full_or_read_only_keeps_the_old_file_and_holds_up_no_start(machine: &Machine) {
    let config = [secret("key", &["stores@*.service"])];
    set_up(machine, &config, &[("key", value("1"))], "5s");
    consumer(machine, "stores@.service", "key", "");
    stop(machine);
    // The service has its own mount of it, which a remount of another one leaves as it is.
    let disk = "/run/stores-disk";
    let mount = format!(
        "mkdir -p {disk} {STATE}; mount -t tmpfs -o size=64k,mode=0700 opnix-disk {disk}; mount --bind {disk} {STATE}"
    );
    machine.sh(&mount).ok();
    machine.systemctl(&["start", "opnix.socket"]).ok();
    assert_eq!(start(machine, 301).0, Some(value("1")));
    machine.wait("the cache", || is_saved(machine), LONG);
    let fill = format!("dd if=/dev/zero of={STATE}/fill bs=4k 2>&1 | grep 'No space left'");
    let cannot = [
        (fill, format!("rm {STATE}/fill"), "No space left on device"),
        (
            format!("mount -o remount,ro,size=64k {disk}"),
            format!("mount -o remount,rw,size=64k {disk}"),
            "Read-only file system",
        ),
    ];
    for (number, (breaks, mends, why)) in cannot.into_iter().enumerate() {
        machine.sh(&breaks).ok();
        let before = machine.sh(&format!("sha256sum {STATE}/cache")).ok();
        let new = format!("1{number}");
        changed_to(machine, &[("key", &new)]);
        let refreshed = machine.run(&["opnix", "refresh"]);
        let said = refreshed.to_string();
        assert!(
            refreshed.code == Some(69)
                && said.contains("changed")
                && said.contains("nothing can be written to disk"),
            "{said}"
        );
        assert_eq!(start(machine, 310 + number), (Some(value(&new)), false));
        let status = machine.run(&["opnix", "status"]).ok();
        assert!(status.contains("NOTHING CAN BE WRITTEN to disk since") && status.contains(why), "{status}");
        let doctor = machine.run(&["opnix", "doctor"]);
        assert!(
            doctor.code != Some(0) && doctor.to_string().contains("nothing can be written to disk"),
            "{doctor}"
        );
        assert_eq!(machine.sh(&format!("sha256sum {STATE}/cache")).ok(), before, "the old one is whole");
        // A crash now: the old one is known to be old.
        machine.sh(&format!("systemctl kill --signal=KILL opnix.service; mv {VAULT} {VAULT}.away")).ok();
        let (got, as_old) = start(machine, 320 + number);
        assert!(got.is_some() && as_old, "{got:?}");
        machine.sh(&format!("mv {VAULT}.away {VAULT}; opnix refresh || true")).ok();
        machine.sh(&mends).ok();
        machine.wait("it to be written again", || is_saved(machine), LONG);
        let status = machine.run(&["opnix", "status"]).ok();
        assert!(!status.contains("NOTHING CAN BE WRITTEN"), "{status}");
        let journal = machine.journal_text();
        assert!(journal.contains("can be written again"), "{journal}");
    }
    machine.sh("systemctl stop 'stores@*'").ok();
    stop(machine);
    machine.sh(&format!("umount {STATE} {disk}")).ok();
}
