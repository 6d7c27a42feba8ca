//! `opnix purge`: nothing of opnix's secrets is left on the machine, and it says so only if that is true.

use serde_json::json;

use crate::machine::Machine;
use crate::opnix::*;

const MARK: &str = "/etc/opnix/purged";
const KEY: &str = "/etc/credstore.encrypted/opnix.cache-key";

/// What a purge leaves, taken back when the test is over, whether it passed or not.
struct Closed<'m>(&'m Machine);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        let units = "purge-holder.service purge-next.service purge-reader.service";
        let script = format!(
            "for unit in {units}; do systemctl stop $unit || true; done; systemctl reset-failed {units}; rm -rf {MARK} /etc/opnix/token /srv/purge; systemctl restart opnix-setup.service"
        );
        let _ = self.0.sh(&format!("({script}) || true"));
    }
}

/// Values in memory, in files here and elsewhere, in the sealed cache, and with a unit that runs.
fn begin(machine: &Machine) -> Closed<'_> {
    forget_files(machine);
    machine.sh("rm -rf /srv/purge; mkdir -p /srv/purge").ok();
    // Who was given something in other tests, and still has it, is none of these.
    machine.sh("for unit in $(ls /run/credentials); do case $unit in opnix*|systemd-*) ;; *) systemctl stop $unit;; esac; done").ok();
    let names = ["purge-held", "purge-memory", "purge-here", "purge-changed"];
    let values: Vec<(&str, String)> = names.iter().map(|name| (*name, value(name))).collect();
    set_up(machine, &[], &values, "5s");
    let file = |name: &str, path: &str| json!({"name": name, "reference": format!("op://Vault/{name}/value"), "path": path});
    let mut linked = file("purge-here", "/srv/purge/here");
    linked["symlinks"] = json!(["/srv/purge/link"]);
    let config = json!({"provider": {"kind": "local", "path": VAULT}, "deadline": "5s",
        "secrets": [secret("purge-held", &["purge-holder.service", "purge-next.service"]), file("purge-memory", "memory"), linked,
            file("purge-changed", "/srv/purge/changed")]});
    machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
    machine.write("/etc/opnix/token", "made-up-token", "0600");
    let holder = "[Unit]\nWants=opnix-mirror.service\nAfter=opnix-mirror.service\n[Service]\nType=exec\n\
                  LoadCredential=purge-held:/run/opnix/creds.sock\nExecStart=sleep infinity\n";
    machine.unit("purge-holder.service", holder);
    machine.unit("purge-next.service", holder);
    machine.sh("systemctl restart opnix-setup.service; systemctl start opnix-control.socket purge-holder.service").ok();
    machine.wait(
        "the cache",
        || machine.run(&["test", "-s", "/var/lib/private/opnix/cache"]).code == Some(0),
        LONG,
    );
    assert_eq!(
        machine.sh("cat /run/secrets/memory /srv/purge/link").ok(),
        format!("{}{}", value("purge-memory"), value("purge-here"))
    );
    Closed(machine)
}

/// Where a value of these tests is to be found on this machine, in the clear, but for their vault. What units of other tests
/// wrote down is theirs.
fn found_anywhere(machine: &Machine) -> String {
    machine
        .sh(&format!(
            "grep -rlsI --exclude-dir=opnix-vault --exclude-dir=journal {CANARY}-purge- \
             /run /var/lib /etc /srv /tmp || true"
        ))
        .ok()
}

pub fn a_purge_takes_everything_says_who_still_holds_something_and_keeps_opnix_closed(machine: &Machine) {
    let _closed = begin(machine);
    // A look changes nothing, nor does who is not there to be asked.
    let listed = machine.run(&["opnix", "purge", "--dry-run"]).ok();
    let stays = ["leaves the token, /etc/opnix/token", "leaves the configuration, /etc/opnix/secrets.json"];
    let goes = [
        "stops opnix.socket",
        "stops opnix.service",
        "stops opnix-mount.service",
        "unmounts /run/secrets",
        "removes /srv/purge/here",
        "removes /srv/purge/link",
        KEY,
        "removes /var/lib/private/opnix",
        "systemctl stop purge-holder.service",
    ];
    for words in goes.iter().chain(&stays) {
        assert!(listed.contains(words), "{words}: {listed}");
    }
    assert!(!listed.contains(CANARY), "{listed}");
    assert_eq!(machine.run(&["opnix", "purge"]).code, Some(64));
    machine.sh(&format!("test ! -e {MARK}; systemctl is-active opnix.service opnix-mirror.service")).ok();
    // Whoever changed a file has it.
    machine.sh("systemctl stop opnix-mirror.service; echo theirs >/srv/purge/theirs; mv /srv/purge/theirs /srv/purge/changed").ok();
    let purged = machine.run(&["opnix", "purge", "--yes"]);
    assert_eq!(purged.code, Some(69), "{purged}");
    for words in [
        "systemctl stop purge-holder.service",
        "left /srv/purge/changed: it is not what opnix wrote",
        "to have opnix back: rm",
    ] {
        assert!(purged.text().contains(words), "{words}: {purged}");
    }
    assert_eq!(found_anywhere(machine), "/run/credentials/purge-holder.service/purge-held");
    assert_eq!(machine.sh("cat /srv/purge/changed; ls /srv/purge").ok(), "theirs\nchanged");
    machine.sh("test ! -e /run/secrets && test ! -e /run/opnix && test ! -e /var/lib/private/opnix && test ! -L /var/lib/opnix").ok();
    machine.sh(&format!("test ! -e {KEY} && test -e /etc/opnix/token && test ! -e /run/opnix-files")).ok();
    // Nothing brings it back, not what wants it, nor its sockets, nor a reload of systemd.
    machine.systemctl(&["daemon-reload"]).ok();
    machine.systemctl(&["start", "purge-next.service"]).fails();
    for unit in [
        "opnix.socket",
        "opnix-control.socket",
        "opnix.service",
        "opnix-mirror.service",
        "opnix-mount.service",
        "opnix-setup.service",
    ] {
        machine.systemctl(&["start", unit]).fails();
        assert_eq!(machine.show(unit, "ActiveState"), "inactive", "{unit}");
    }
    machine.sh("test ! -e /run/opnix/creds.sock; test ! -e /run/secrets").ok();
    // What asks says why.
    for command in [&["opnix", "status"][..], &["opnix", "doctor", "--offline"]] {
        let said = machine.run(command);
        assert_eq!(said.code, Some(69), "{said}");
        assert!(format!("{said}").contains(&format!("rm {MARK}")), "{said}");
    }
    // The rest, and once more.
    machine.systemctl(&["stop", "purge-holder.service"]).ok();
    for _ in 0..2 {
        let purged = machine.run(&["opnix", "purge", "--yes", "--token"]).ok();
        assert!(purged.contains("nothing is left"), "{purged}");
        machine.run(&["test", "-e", "/etc/opnix/token"]).fails();
        assert_eq!(found_anywhere(machine), "");
    }
    // And back, as it says.
    machine
        .sh(&format!("rm {MARK}; systemctl start opnix.socket opnix-control.socket opnix-mirror.service"))
        .ok();
    machine.systemctl(&["start", "purge-next.service"]).ok();
    assert_eq!(machine.sh("cat /run/secrets/memory").ok(), value("purge-memory"));
}

pub fn a_purge_ends_although_the_service_hangs_or_it_was_killed_in_the_middle(machine: &Machine) {
    let _closed = begin(machine);
    let _soon = Lines::of(machine, "opnix.service", "[Service]\nTimeoutStopSec=2s\nTimeoutAbortSec=2s\n");
    machine.systemctl(&["daemon-reload"]).ok();
    machine.sh("systemctl stop purge-holder.service").ok();
    let halfway = machine.spawn(&["opnix", "purge", "--yes"]);
    machine.wait("it is closed", || machine.run(&["test", "-e", MARK]).code == Some(0), LONG);
    drop(halfway);
    // It is not as it was, and what is missing is none of the next one's business.
    machine.sh(&format!("rm -f {MARK}; systemctl start opnix.socket opnix-control.socket opnix-mirror.service opnix.service")).ok();
    machine.sh("systemctl kill --signal=STOP --kill-whom=all opnix.service; rm -rf /run/opnix-missed /var/lib/opnix").ok();
    let purged = machine.run(&["opnix", "purge", "--yes", "--token"]);
    assert_eq!(purged.code, Some(0), "{purged}");
    assert_eq!(found_anywhere(machine), "");
}

/// As docs/recovery.md once said it: stop, remove, unmount.
pub fn nothing_is_written_beside_the_memory_whoever_unmounted_it(machine: &Machine) {
    let _closed = begin(machine);
    let by_hand = "systemctl stop opnix.service opnix-mirror.service; rm -rf /var/lib/private/opnix; umount /run/secrets /run/opnix-files/memory";
    machine.sh(by_hand).ok();
    assert_eq!(
        machine.show("opnix-mount.service", "ActiveState"),
        "active",
        "it believes that it is mounted"
    );
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    let options =
        machine.sh("findmnt -no OPTIONS /run/secrets; findmnt -no OPTIONS /run/opnix-files/memory").ok();
    assert!(options.starts_with("ro,nosuid,nodev,noexec"), "{options}");
    assert_eq!(machine.sh("cat /run/secrets/memory").ok(), value("purge-memory"));
    // Where it cannot be mounted, nothing is written, and doctor and status say so.
    machine
        .sh(&format!(
            "{by_hand}; systemctl mask --runtime opnix-mount.service; systemctl start opnix-mirror.service"
        ))
        .ok();
    assert_eq!(machine.sh("find /run/secrets /run/opnix-files -type f").text(), "");
    let said = machine.run(&["opnix", "doctor", "--offline", "--json"]);
    assert!(said.text().contains("memory-missing") && said.code == Some(69), "{said}");
    assert_eq!(machine.run(&["opnix", "status"]).code, Some(69));
    // As doctor says, once what kept it from that is gone.
    machine.sh("systemctl unmask --runtime opnix-mount.service; systemctl restart opnix-mount.service opnix-mirror.service").ok();
    assert_eq!(machine.sh("cat /run/secrets/memory").ok(), value("purge-memory"));
}

pub fn a_purge_names_copies_older_unit_files_and_who_was_given_a_file(machine: &Machine) {
    let _closed = begin(machine);
    machine.sh("systemctl stop purge-holder.service").ok();
    machine.unit(
        "purge-reader.service",
        "[Service]\nType=exec\nLoadCredential=x:/run/secrets/memory\nExecStart=sleep infinity\n",
    );
    machine.systemctl(&["start", "purge-reader.service"]).ok();
    // Written anew by somebody, with the same in it, while the mirror does not look.
    machine.sh("systemctl stop opnix-mirror.service; cp /srv/purge/here /srv/purge/copy; mv /srv/purge/copy /srv/purge/here").ok();
    let purged = {
        let _older = Lines::of(machine, "opnix-key.service", "[Unit]\nAssertPathExists=\n");
        machine.run(&["opnix", "purge", "--yes"])
    };
    assert_eq!(purged.code, Some(69), "{purged}");
    for words in [
        "left /srv/purge/here: somebody else wrote it, and the secret is in it",
        "nothing keeps systemd from starting opnix-key.service again",
        "systemctl stop purge-reader.service",
    ] {
        assert!(format!("{purged}").contains(words), "{words}: {purged}");
    }
    // What it remembers of that file is still there, and so the next one knows of it.
    machine.sh("systemctl stop purge-reader.service").ok();
    let again = machine.run(&["opnix", "purge", "--yes"]);
    assert!(again.code == Some(69) && again.stderr.contains("/srv/purge/here"), "{again}");
    machine.sh("rm /srv/purge/here").ok();
    let purged = machine.run(&["opnix", "purge", "--yes"]).ok();
    assert!(purged.contains("nothing is left"), "{purged}");
    assert_eq!(found_anywhere(machine), "");
}

/// The end of a connection that systemd keeps is an empty secret: nobody who waits is started by a purge.
pub fn a_purge_starts_nobody_who_waits_for_a_service_that_does_not_run(machine: &Machine) {
    let _closed = begin(machine);
    let config = json!({"provider": {"kind": "connect", "host": "http://127.0.0.1:1"}, "deadline": "5m",
        "secrets": [secret("miss", &["purge-waits.service"])]});
    machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
    machine.systemctl(&["restart", "opnix.service"]).ok();
    let waits = "[Service]\nType=exec\nTimeoutStartSec=infinity\nLoadCredential=miss:/run/opnix/creds.sock\n\
                 ExecStart=sh -c 'touch /run/purge-waits.started; exec sleep infinity'\n";
    machine.unit("purge-waits.service", waits);
    machine.systemctl(&["start", "--no-block", "purge-waits.service"]).ok();
    let stored = || machine.show("opnix.service", "NFileDescriptorStore").parse::<u32>().unwrap_or(0);
    let before = stored();
    machine.wait("the request in the store", || stored() > before.min(1), LONG);
    machine.unit("opnix.service.d/zz-dead.conf", "[Service]\nExecStart=\nExecStart=/bin/false\n");
    machine.sh("systemctl restart --no-block opnix.service").ok();
    machine.wait(
        "its end",
        || machine.show("opnix.service", "NRestarts").parse::<u32>().is_ok_and(|times| times > 1),
        LONG,
    );
    let purged = machine.run(&["opnix", "purge", "--yes"]);
    machine.sh("rm /run/systemd/system/opnix.service.d/zz-dead.conf; systemctl daemon-reload").ok();
    assert!(purged.text().contains("stopping purge-waits.service, which waits for its secret"), "{purged}");
    assert_eq!(machine.run(&["test", "-e", "/run/purge-waits.started"]).code, Some(1), "{purged}");
    assert_ne!(machine.show("purge-waits.service", "ActiveState"), "active");
}
