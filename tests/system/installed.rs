//! `systemd/install` on a machine that runs: wherever it puts opnix, what it says to do next works, an upgrade keeps what waits, and
//! what it removes is what it installed.

use std::path::Path;
use std::process::Command;

use crate::boot::Kind;
use crate::machine::Machine;
use crate::opnix::*;
use crate::simulators::account::Account;
use crate::simulators::service_account::ServiceAccount;

/// What a checkout has that is installed.
fn checkout(machine: &Machine) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tar = [
        "-C",
        root.to_str().expect("a path"),
        "-c",
        "systemd",
        "docs",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
    ];
    let packed = Command::new("tar").args(tar).output().expect("tar").stdout;
    machine.write("/root/checkout.tar", packed, "0600");
    machine.sh("mkdir /root/checkout; tar -C /root/checkout -xf /root/checkout.tar --no-same-owner; mkdir -p /root/checkout/target/release; \
                cp /usr/bin/opnix /root/checkout/target/release").ok();
}

fn install(machine: &Machine, arguments: &str) -> String {
    machine.sh(&format!("/root/checkout/systemd/install {arguments}")).ok()
}

/// All files of opnix's below these directories, but for the checkout's.
fn files(machine: &Machine) -> String {
    machine
        .sh("find /usr /opt /etc/systemd -name '*opnix*' ! -path '/usr/share/mime*' ! -path '/usr/src/*'")
        .ok()
}

/// Where nobody has written a configuration, whatever one looks at says so, and what to do.
fn says_how_to_begin(machine: &Machine, step: &str) {
    for (command, code) in [("opnix check", 78), ("opnix status", 69), ("opnix doctor --offline", 69)] {
        let said = machine.sh(command);
        assert!(format!("{said}").contains(step) && said.code == Some(code), "{said}");
        assert!(format!("{said}").contains("there is no configuration yet"), "{said}");
    }
    machine.systemctl(&["start", "opnix.service"]).ok();
    for command in ["systemctl status opnix.service", "opnix status"] {
        let said = machine.sh(command);
        assert!(said.text().contains(step), "{said}");
    }
    machine.sh("systemctl stop opnix-mirror.service opnix.service opnix.socket").ok();
}

pub fn what_is_installed_anywhere_works_as_it_says_and_is_removed_to_the_last_file(_: &Machine) {
    let machine = &Machine::boot_as(Kind::Fresh);
    checkout(machine);
    // An upgrade, while a unit waits.
    machine.sh("rm -rf /etc/opnix; mkdir /etc/opnix").ok();
    set_up(machine, &[secret("key", &["settled@*.service"])], &[("key", value("key"))], "50s");
    consumer(machine, "settled@.service", "key", "");
    machine.systemctl(&["start", "settled@1.service", "opnix-control.socket"]).ok();
    let (before, slow) = (machine.show("opnix.service", "MainPID"), slow_vault(machine));
    machine.systemctl(&["reload", "opnix.service"]).ok();
    machine.sh("rm -rf /var/lib/private/opnix/cache; systemctl restart opnix.service").ok();
    let waits = machine.spawn(&["systemctl", "start", "settled@2.service"]);
    stored(machine, 1);
    let said = install(machine, "");
    assert!(said.contains("were restarted"), "{said}");
    assert_ne!(machine.show("opnix.service", "MainPID"), before);
    drop(slow);
    waits.wait().ok();
    assert_eq!(found(machine, "settled@2.service"), value("key").into_bytes());
    let config = machine.sh("cat /etc/opnix/secrets.json").ok();
    let one_password = ServiceAccount::local(Account::empty());
    let token = one_password.token();
    for (number, prefix) in ["/usr", "/usr/local", "/opt/opnix/"].into_iter().enumerate() {
        if number > 0 {
            // Nothing is configured yet: each step that it names is done as it says, as far as there is a network.
            machine.sh("mv /etc/opnix/secrets.json /etc/opnix/before || true").ok();
            let said = install(machine, prefix);
            let steps: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("         ")).collect();
            assert_eq!(steps.len(), 5, "{said}");
            assert!(steps[2].starts_with("pip download onepassword-sdk=="), "{said}");
            says_how_to_begin(machine, steps[0]);
            machine.sh(&format!("{}; echo {token} | {}", steps[0], steps[1])).ok();
            assert_eq!(machine.run(&["opnix", "check"]).ok(), "valid: 1 credential, 0 files");
            machine.write("/etc/opnix/secrets.json", &config, "0644");
            machine.sh(steps[3]).ok();
            machine.sh("systemctl start opnix-setup.service").ok();
            let said = install(machine, prefix);
            assert!(!said.contains("Have systemd listen") && said.contains("opnix doctor"), "{said}");
        }
        let unit = format!("settled@{}.service", number + 3);
        machine.systemctl(&["start", &unit]).ok();
        assert_eq!(found(machine, &unit), value("key").into_bytes(), "{prefix}");
        let program =
            machine.sh("readlink /proc/$(systemctl show --value -p MainPID opnix.service)/exe").ok();
        assert_eq!(program, format!("{}/bin/opnix", prefix.trim_end_matches('/')));
        let listed = machine.sh("journalctl --list-catalog").ok();
        assert!(listed.contains("8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c02"), "{prefix}: {listed}");
        // Not while a user has one of that user's own, which may be another program by now.
        machine.write(
            "/run/users.json",
            r#"{"provider": {"kind": "local", "path": "/run/users-vault"}}"#,
            "0644",
        );
        let program = format!("{prefix}/bin/opnix");
        let serve = ["serve", "--user", "--socket", "/tmp/users.sock", "--config", "/run/users.json"];
        let as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", &program];
        let users = machine.spawn(&[&as_nobody[..], &serve].concat());
        machine.wait(
            "it to listen",
            || machine.run(&["test", "-S", "/tmp/users.sock"]).code == Some(0),
            LONG,
        );
        machine.sh(&format!("cp {program} {program}.other && mv {program}.other {program}")).ok();
        let refused = machine.sh(&format!("/root/checkout/systemd/install --uninstall {prefix}"));
        assert!(refused.code == Some(69) && refused.stderr.contains("of their own: nobody"), "{refused}");
        machine.sh(&format!("test -x {program}; systemctl is-active opnix.socket")).ok();
        drop(users);
        machine.sh("rm -f /tmp/users.sock /run/users.json").ok();
        let said = install(machine, &format!("--uninstall {prefix}"));
        for words in ["/etc/opnix\n", "opnix purge --token", "opnix.cache-key"] {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert_eq!(files(machine), "", "{prefix}");
        for unit in ["opnix.service", "opnix.socket", "opnix-mirror.service"] {
            assert_eq!(machine.show(unit, "LoadState"), "not-found", "{unit}");
            assert_eq!(machine.show(unit, "ActiveState"), "inactive", "{unit}");
        }
        machine.systemctl(&["start", &format!("settled@{}.service", number + 20)]).fails();
        let again = install(machine, &format!("--uninstall {prefix}"));
        assert!(again.contains("nothing was done"), "{again}");
        machine.sh("rm -f /etc/opnix/token; systemctl reset-failed").ok();
    }
    // What is left goes as it says, though opnix is gone.
    machine.sh("systemctl stop 'settled@*.service'").ok();
    let purged = machine.sh("/root/checkout/target/release/opnix purge --yes").ok();
    assert!(purged.contains("nothing is left"), "{purged}");
}
