//! opnix starts wherever systemd does: with a key that does not open, without user namespaces, with the cgroups of long ago.

use serde_json::json;

use crate::boot::Kind;
use crate::machine::Machine;
use crate::opnix::*;

const KEY: &str = "/etc/credstore.encrypted/opnix.cache-key";
const CACHE: &str = "/var/lib/private/opnix/cache";
/// As opnix-key.service holds it.
const OPENED: &str = "/run/credentials/opnix-key.service/opnix.cache-key";
const IN_MEMORY: &str = "in memory only: there is no key, or it does not open";

fn status(machine: &Machine) -> String {
    machine.sh("opnix status || true").text()
}

pub fn a_key_that_does_not_open_fails_only_the_unit_that_opens_it(machine: &Machine) {
    set_up(machine, &[secret("key", &["keyed@*.service"])], &[("key", value("key"))], "30s");
    consumer(machine, "keyed@.service", "key", "");
    machine.sh(&format!("rm -f {KEY}* {CACHE}*; systemctl restart opnix-setup.service")).ok();
    machine.systemctl(&["start", "keyed@1.service"]).ok();
    machine.wait("it to be on disk", || status(machine).contains("1 sealed on disk"), LONG);
    let opened = machine.sh(&format!("sha256sum <{OPENED}")).ok();
    // Nothing of it goes to disk, and the mirror, which is root, does not see it.
    let system = machine.sh(&format!("findmnt --noheadings --output FSTYPE,OPTIONS --target {OPENED}")).ok();
    assert!(system.starts_with("ramfs") || system.contains("noswap"), "{system}");
    machine.wait("the mirror", || machine.show("opnix-mirror.service", "ActiveState") == "active", LONG);
    let of_mirror = "nsenter --mount --target $(systemctl show --value -p MainPID opnix-mirror.service) --";
    machine
        .sh(&format!("test -e {OPENED}; {of_mirror} test -e /run/opnix; ! {of_mirror} test -e {OPENED}"))
        .ok();

    // It cannot be opened, and no other can be written in its place.
    let lines = Lines::of(machine, "opnix-setup.service", "[Service]\nReadOnlyPaths=/etc\n");
    machine.sh(&format!("echo bm90IGEga2V5 >{KEY}")).ok();
    machine.systemctl(&["restart", "opnix-setup.service"]).fails();
    let stays = format!("{KEY} cannot be set aside, and stays");
    assert!(machine.journal_text().contains(&stays), "{}", machine.journal_text());
    machine.sh(&format!("test -e {CACHE}; ! test -e {CACHE}.aside-1")).ok();
    machine.systemctl(&["restart", "opnix.service"]).ok();
    assert_eq!(machine.show("opnix-key.service", "ActiveState"), "failed");
    machine.systemctl(&["start", "keyed@2.service"]).ok();
    assert_eq!(found(machine, "keyed@2.service"), value("key").into_bytes());
    assert_eq!(machine.show("opnix.service", "NRestarts"), "0");
    assert!(status(machine).contains(IN_MEMORY), "{}", status(machine));
    assert!(machine.journal_text().contains(&format!("values are kept {IN_MEMORY}")));
    let doctor = machine.sh("opnix doctor || true").text();
    assert!(doctor.contains(&format!("warning  cache: values are {IN_MEMORY}")), "{doctor}");
    drop(lines);

    // What status says to do.
    let mend = "systemctl restart opnix-setup.service opnix.service";
    assert!(status(machine).contains(mend), "{}", status(machine));
    let is_mended = || {
        machine.sh(mend).ok();
        assert_eq!(machine.show("opnix-key.service", "ActiveState"), "active");
        assert!(!status(machine).contains(IN_MEMORY), "{}", status(machine));
    };
    is_mended();
    assert_ne!(machine.sh(&format!("sha256sum <{OPENED}")).ok(), opened);

    // The host key is another one, while the machine runs: what made the key ran at the boot.
    machine.sh("rm /var/lib/systemd/credential.secret; systemctl restart opnix.service").ok();
    assert_eq!(machine.show("opnix-setup.service", "ActiveState"), "active");
    machine.systemctl(&["start", "keyed@3.service"]).ok();
    assert!(status(machine).contains(IN_MEMORY), "{}", status(machine));
    is_mended();

    // One that may open yet stays, and so does its cache.
    machine.systemctl(&["start", "keyed@5.service"]).ok();
    machine.systemctl(&["stop", "opnix-mirror.service", "opnix.service"]).ok();
    let sums = || machine.sh(&format!("sha256sum {KEY} {CACHE}; ls {KEY}* {CACHE}*")).ok();
    let before = sums();
    machine.sh("chmod 0600 /var/lib/systemd/credential.secret").ok();
    machine.systemctl(&["restart", "opnix-setup.service"]).fails();
    assert_eq!(machine.show("opnix-setup.service", "ExecMainStatus"), "71");
    let told = format!(
        "the key {KEY} does not open now: systemd-creds: /var/lib/systemd/credential.secret has permissive access mode"
    );
    assert!(machine.journal_text().contains(&told), "{}", machine.journal_text());
    assert_eq!(sums(), before);
    machine.sh("chmod 0400 /var/lib/systemd/credential.secret").ok();
    is_mended();

    // What is to open it does not answer, as a TPM may do. A socket stands for that.
    machine.unit("mute.socket", "[Socket]\nListenStream=/run/mute.sock\n");
    machine.unit("mute.service", "[Service]\nExecStart=sleep infinity\n");
    machine.systemctl(&["start", "mute.socket"]).ok();
    let mute = "[Service]\nTimeoutStartSec=2s\nLoadCredentialEncrypted=\nLoadCredentialEncrypted=opnix.cache-key:/run/mute.sock\n";
    let lines = Lines::of(machine, "opnix-key.service", mute);
    machine.systemctl(&["restart", "opnix.service"]).ok();
    assert_eq!(machine.show("opnix-key.service", "Result"), "timeout");
    machine.systemctl(&["start", "keyed@4.service"]).ok();
    assert!(status(machine).contains(IN_MEMORY), "{}", status(machine));
    drop(lines);
    is_mended();

    // However often it is restarted or killed, it has its key.
    for _ in 0..6 {
        machine.systemctl(&["restart", "opnix.service"]).ok();
    }
    let instance = machine.show("opnix.service", "InvocationID");
    machine.systemctl(&["kill", "--signal=KILL", "opnix.service"]).ok();
    let is_another = || {
        machine.show("opnix.service", "InvocationID") != instance
            && machine.show("opnix.service", "ActiveState") == "active"
    };
    machine.wait("the next instance", is_another, LONG);
    assert!(!status(machine).contains(IN_MEMORY), "{}", status(machine));
    // And it is put away with the service.
    stop(machine);
    machine.run(&["test", "-e", OPENED]).fails();
    machine.sh(&format!("rm -f {KEY}.aside-* {CACHE}.aside-*")).ok();
}

pub fn in_a_container_that_may_make_no_user_namespace_units_get_their_secrets(_: &Machine) {
    let machine = Machine::boot_as(Kind::Unprivileged);
    machine.begin();
    machine.run(&["systemd-run", "--quiet", "--wait", "--property=PrivateUsers=yes", "true"]).fails();
    set_up(&machine, &[secret("key", &["app.service"])], &[("key", value("key"))], "30s");
    let config = json!({"provider": {"kind": "local", "path": VAULT}, "secrets": [
        {"name": "key", "reference": "op://Vault/key/value", "units": ["app.service"], "path": "key"}]});
    machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
    consumer(&machine, "app.service", "key", "");
    machine.systemctl(&["start", "app.service"]).ok();
    assert_eq!(found(&machine, "app.service"), value("key").into_bytes());
    machine.wait("it to be on disk", || status(&machine).contains("1 sealed on disk"), LONG);
    // The mirror as well.
    machine.wait("its file", || machine.run(&["cat", "/run/secrets/key"]).text() == value("key"), LONG);
}

pub fn with_the_legacy_cgroup_hierarchy_each_refusal_and_the_administrator_are_told_so(usual: &Machine) {
    // Later ones do not boot with it.
    if usual.systemd_version() > 257 {
        return;
    }
    let machine = Machine::boot_as(Kind::Legacy);
    machine.begin();
    let units = ["a.service", "b.service"];
    set_up(&machine, &[secret("key", &units)], &[("key", value("key"))], "30s");
    let why = "this machine has the legacy cgroup hierarchy only";
    let remedy = "boot it with systemd.unified_cgroup_hierarchy=1";
    let doctor = || machine.sh("opnix doctor || true").text();
    assert!(doctor().contains(&format!("fault    machine: {why}")), "before it runs: {}", doctor());
    machine.systemctl(&["start", "opnix-control.socket"]).ok();
    for unit in units {
        consumer(&machine, unit, "key", "");
        machine.systemctl(&["start", unit]).fails();
        assert_refused(&machine, unit, "key", "hierarchy");
    }
    let told = machine.journal(&[&kind("16")]);
    let message = told[0]["MESSAGE"].as_str().unwrap_or_default();
    assert!(told.len() == 1 && message.contains(why) && message.contains(remedy), "{told:?}");
    let status = machine.sh("opnix status");
    assert_eq!(status.code, Some(69), "{status}");
    assert!(status.text().contains(&format!("obstacle   every request is refused: {why}")), "{status}");
    assert!(machine.systemctl(&["status", "opnix.service"]).text().contains("Refusing every request"));
    assert!(
        doctor().contains(&format!("fault    machine: {why}")) && doctor().contains(remedy),
        "{}",
        doctor()
    );
    assert!(!machine.journal_text().contains("forged"));
}
