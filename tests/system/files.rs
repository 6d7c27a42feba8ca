//! The files of the mirror are what the configuration says, whatever others do with them, and nothing of others is touched.

use std::time::Duration;

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::opnix::*;

/// In a directory of the user `app`.
const HIS: &str = "/srv/app";
/// How long it may take until something is noticed that nobody tells of.
const NOTICED: Duration = Duration::from_secs(40);

fn file(name: &str, path: &str, more: Value) -> Value {
    let mut entry = json!({"name": name, "reference": format!("op://Vault/{name}/value"), "path": path});
    entry.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    entry
}

/// The service, and no files yet.
fn begin(machine: &Machine, names: &[&str]) {
    forget_files(machine);
    machine
        .sh(&format!(
            "systemctl stop reader.service || true; id app >/dev/null 2>&1 || useradd --system app; rm -rf {HIS}; mkdir -p {HIS}; chown app:app {HIS}; rm -f /run/acts-*"
        ))
        .ok();
    let values: Vec<(&str, String)> = names.iter().map(|name| (*name, value(name))).collect();
    set_up(machine, &[], &values, "5s");
    machine.systemctl(&["start", "opnix-control.socket"]).ok();
}

fn configured(machine: &Machine, files: &[Value]) {
    configured_with(machine, files, json!({}));
}

fn configured_with(machine: &Machine, files: &[Value], more: Value) {
    let mut config =
        json!({"provider": {"kind": "local", "path": VAULT}, "deadline": "5s", "secrets": files});
    config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
}

fn status(machine: &Machine) -> String {
    machine.show("opnix-mirror.service", "StatusText")
}

/// Mode, owner, group and content.
fn found(machine: &Machine, path: &str) -> String {
    machine
        .sh(&format!("stat -c '%a %u %g %F' {path}; timeout 2 cat {path}"))
        .text()
        .replace('\n', " ")
        .trim()
        .to_owned()
}

pub fn a_file_that_others_changed_is_put_back_and_its_service_told_once(machine: &Machine) {
    let changes = [
        ("emptied", "chmod 0666 PATH; : >PATH"),
        ("linked", "rm -f PATH; ln -s /etc/shadow PATH"),
        ("same-size", "chmod 0600 PATH; tr a-z A-Z <PATH >PATH-; cat PATH- >PATH; rm PATH-; chmod 0400 PATH"),
        ("removed", "rm -f PATH"),
        ("pipe", "rm -f PATH; mkfifo PATH"),
        ("unlinked", "ln -sf /etc/shadow PATH-link"),
    ];
    let names: Vec<&str> = changes.iter().map(|(name, _)| *name).collect();
    begin(machine, &names);
    let path = |name: &str| format!("{HIS}/{name}");
    let of_app = |name: &str, more: Value| {
        let mut file = file(name, &path(name), more);
        file["owner"] = json!("app");
        file
    };
    let files = |mode: &str| -> Vec<Value> {
        let first = of_app(names[0], json!({"mode": mode, "services": ["reader"]}));
        let more =
            |name: &&str| of_app(name, json!({"mode": "0400", "symlinks": [format!("{HIS}/{name}-link")]}));
        std::iter::once(first).chain(names[1..].iter().map(more)).collect()
    };
    machine.unit(
        "reader.service",
        "[Service]\nExecStart=sh -c 'echo start >>/run/acts-reader; exec sleep infinity'\n",
    );
    configured(machine, &files("0400"));
    machine.systemctl(&["start", "opnix-mirror.service", "reader.service"]).ok();
    let uid = machine.sh("id -u app").ok();
    let right = |name: &str, mode: &str, uid: &str| format!("{mode} {uid} 0 regular file {}", value(name));
    let are_right = || {
        names.iter().all(|name| found(machine, &path(name)) == right(name, "400", &uid))
            && names[1..]
                .iter()
                .all(|name| machine.sh(&format!("cat {HIS}/{name}-link")).text() == value(name))
    };
    assert!(are_right());
    let starts = || machine.sh("cat /run/acts-reader 2>/dev/null || true").ok().lines().count();
    let as_app = |script: &str| {
        machine.run(&["setpriv", "--reuid=app", "--regid=app", "--clear-groups", "sh", "-euc", script]).ok();
    };
    for _ in 0..2 {
        for (name, change) in &changes {
            as_app(&change.replace("PATH", &path(name)));
        }
        machine.wait("all of them", are_right, NOTICED);
        machine.wait("the restart", || starts() == 2, LONG);
    }
    let journal = machine.journal_text();
    assert!(journal.contains("/srv/app/emptied was changed by somebody else, and is put back"), "{journal}");
    // A reload looks at once. A directory cannot be replaced: it is said.
    machine.sh("cd /srv/app; chown 0:app linked; chmod 0440 same-size; rm removed; mkdir removed").ok();
    machine.systemctl(&["reload", "opnix-mirror.service"]).fails();
    for name in ["linked", "same-size"] {
        assert_eq!(found(machine, &path(name)), right(name, "400", &uid));
    }
    let said = status(machine);
    assert!(said.contains("/srv/app/removed: there is a directory of that name: move it away"), "{said}");
    machine.sh("rmdir /srv/app/removed").ok();
    machine.wait("the file", are_right, NOTICED);
    // What a user is called counts, not a number that somebody else has by now. So does another mode.
    machine.sh("usermod --uid 4711 app").ok();
    machine.systemctl(&["reload", "opnix-mirror.service"]).ok();
    assert_eq!(found(machine, &path("emptied")), right("emptied", "400", "4711"));
    machine.wait("the restart", || starts() == 3, LONG);
    configured(machine, &files("0600"));
    machine.systemctl(&["reload", "opnix-mirror.service"]).ok();
    assert_eq!(found(machine, &path("emptied")), right("emptied", "600", "4711"));
    machine.wait("the restart", || starts() == 4, LONG);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(starts(), 4);
    machine.sh(&format!("systemctl stop reader.service opnix-mirror.service; usermod --uid {uid} app")).ok();
}

pub fn what_left_the_configuration_is_removed_if_it_is_still_ours_even_after_a_reboot(machine: &Machine) {
    let names = ["gone", "changed", "taken", "stays"];
    begin(machine, &names);
    let all: Vec<Value> = names
        .iter()
        .map(|name| file(name, &format!("{HIS}/{name}"), json!({"symlinks": [format!("{HIS}/{name}-link")]})))
        .collect();
    let write = || {
        configured(machine, &all);
        machine.systemctl(&["restart", "opnix-mirror.service"]).ok();
        for name in names {
            assert_eq!(machine.sh(&format!("cat {HIS}/{name}-link")).ok(), value(name));
        }
    };
    let leave = || configured(machine, &all[3..]);
    let take = "rm /srv/app/taken /srv/app/taken-link; echo mine >/srv/app/taken; ln -s elsewhere /srv/app/taken-link; \
                echo mine >/srv/app/changed; ln -sfn elsewhere /srv/app/changed-link";
    for reboots in [false, true] {
        write();
        let remembered = machine.sh("cat /var/lib/opnix-mirror/files.json").ok();
        assert!(remembered.contains("/srv/app/gone") && !remembered.contains(CANARY), "{remembered}");
        machine.systemctl(&["stop", "opnix-mirror.service"]).ok();
        if reboots {
            // What a reboot takes with it.
            machine.sh("systemctl stop opnix-mount.service; rm -rf /run/opnix-mirror").ok();
            forget_memory(machine);
        }
        machine.sh(take).ok();
        leave();
        machine.systemctl(&["start", "opnix-mirror.service"]).ok();
        let left =
            machine.sh(&format!("cd {HIS}; ls; cat taken changed; readlink taken-link changed-link")).ok();
        assert_eq!(
            left,
            "changed\nchanged-link\nstays\nstays-link\ntaken\ntaken-link\nmine\nmine\nelsewhere\nelsewhere",
            "reboots: {reboots}"
        );
        let journal = machine.journal_text();
        for path in ["taken", "taken-link", "changed", "changed-link"] {
            assert!(
                journal.contains(&format!("{HIS}/{path} left the configuration and stays")),
                "{path}: {journal}"
            );
        }
        assert_eq!(machine.sh(&format!("cat {HIS}/stays-link")).ok(), value("stays"));
        assert!(status(machine).starts_with("All 1 files are in place."), "{}", status(machine));
        machine.sh(&format!("rm -f {HIS}/taken* {HIS}/changed*")).ok();
    }
    machine.systemctl(&["stop", "opnix-mirror.service"]).ok();
}

fn forget_memory(machine: &Machine) {
    machine
        .sh("for mount in /run/secrets /run/opnix-files/memory; do while mountpoint -q $mount; do umount $mount; done; done; rm -rf /run/opnix-files")
        .ok();
}

/// Whoever is asked whether a directory may be opened does not answer, as a server that is gone, or a file system of the user's own.
const HANGS: &str = "
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
fan = libc.fanotify_init(4, 0)
for path in sys.argv[1:]:
    assert libc.fanotify_mark(fan, 1, ctypes.c_uint64(0x10000 | 0x40000000 | 0x08000000), -100, path.encode()) == 0, os.strerror(ctypes.get_errno())
print('hangs', flush=True)
time.sleep(600)
";

pub fn a_directory_that_answers_nobody_keeps_no_other_file_waiting(machine: &Machine) {
    begin(machine, &["hung", "beside", "plain", "leaves"]);
    machine.sh(&format!("mkdir {HIS}/hung {HIS}/well; chown app: {HIS}/*")).ok();
    let hung = format!("{HIS}/hung/key");
    let files = [
        file("hung", &hung, json!({"owner": "app"})),
        file(
            "beside",
            &format!("{HIS}/well/key"),
            json!({"owner": "app", "symlinks": [format!("{HIS}/hung/link")]}),
        ),
        file("plain", "plain", json!({})),
    ];
    let leaves = file("leaves", &format!("{HIS}/hung/leaves"), json!({}));
    configured(machine, &[&files[..], &[leaves]].concat());
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    assert!(status(machine).starts_with("All 4 files are in place."), "{}", status(machine));
    machine.write("/run/hangs.py", HANGS, "0644");
    let hangs = machine.spawn(&["sh", "-c", &format!("python3 /run/hangs.py {HIS}/hung >/run/hangs")]);
    machine.wait("it to hang", || machine.sh("cat /run/hangs").text().trim() == "hangs", LONG);
    configured(machine, &files);
    let new: Vec<(&str, String)> =
        ["hung", "beside", "plain"].map(|name| (name, value(&format!("{name}-new")))).to_vec();
    write_vault(machine, &new);
    machine.run(&["opnix", "refresh"]).text();
    machine.wait(
        "the others",
        || {
            machine.sh(&format!("cat {HIS}/well/key /run/secrets/plain")).text()
                == format!("{}{}", value("beside-new"), value("plain-new"))
        },
        LONG,
    );
    let is_said = || {
        let said = status(machine);
        let troubles = [
            format!("{hung}: its directory, or that of a link to it, does not answer"),
            format!("{HIS}/well/key: its directory, or that of a link to it, does not answer"),
            format!(
                "{HIS}/hung/leaves left the configuration and cannot be removed: its directory does not answer"
            ),
        ];
        said.starts_with("1 of 3 files are in place.")
            && troubles.iter().all(|trouble| said.contains(trouble))
    };
    machine.wait("the trouble", is_said, NOTICED);
    // It goes on: changes, reloads and a restart.
    for number in 0..3 {
        write_vault(machine, &[&new[..2], &[("plain", value(&format!("plain-{number}")))]].concat());
        machine.run(&["opnix", "refresh"]).text();
        // It ends, and says what is not as it is to be.
        let reloaded = machine.sh("timeout 60 systemctl reload opnix-mirror.service");
        assert_eq!(reloaded.code, Some(1), "{reloaded}");
        assert_eq!(machine.sh("cat /run/secrets/plain").ok(), value(&format!("plain-{number}")));
    }
    machine.sh("timeout 80 systemctl restart opnix-mirror.service").ok();
    assert!(is_said(), "{}", status(machine));
    let threads =
        machine.sh("ls /proc/$(systemctl show --value -p MainPID opnix-mirror.service)/task | wc -l").ok();
    assert!(threads.trim().parse::<usize>().expect("a number") < 20, "{threads}");
    drop(hangs);
    let is_over = || {
        found(machine, &hung).ends_with(&value("hung-new"))
            && machine.sh(&format!("cat {HIS}/hung/link")).text() == value("beside-new")
            && machine.sh(&format!("test -e {HIS}/hung/leaves")).code == Some(1)
            && status(machine).starts_with("All 3 files are in place.")
    };
    machine.wait("the rest", is_over, 3 * LONG);
    machine.systemctl(&["stop", "opnix-mirror.service"]).ok();
}

pub fn nothing_is_mounted_over_what_another_tool_keeps_and_both_live_side_by_side(machine: &Machine) {
    begin(machine, &["key"]);
    let key = [file("key", "key", json!({}))];
    machine
        .sh("rmdir /run/secrets || true; mkdir -p /run/secrets.d/1; echo theirs >/run/secrets.d/1/other")
        .ok();
    let holders = [
        (
            "ln -s /run/secrets.d/1 /run/secrets",
            "rm /run/secrets",
            "/run/secrets is a symlink to /run/secrets.d/1",
        ),
        (
            "mkdir /run/secrets; mount --bind /run/secrets.d/1 /run/secrets",
            "umount /run/secrets; rmdir /run/secrets",
            "what is mounted at /run/secrets is not opnix's",
        ),
        (
            "mkdir /run/secrets; mount -t tmpfs -o mode=0755 tmpfs /run/secrets; echo theirs >/run/secrets/other",
            "umount /run/secrets; rmdir /run/secrets",
            "what is mounted at /run/secrets is not opnix's",
        ),
        (
            "cp -r /run/secrets.d/1 /run/secrets",
            "rm -r /run/secrets",
            "/run/secrets holds what opnix did not put there",
        ),
        (
            "mkdir -m 0777 /run/secrets; touch /run/secrets/other; chmod 0777 /run/secrets; echo theirs >/run/secrets/other",
            "rm -r /run/secrets",
            "/run/secrets is no directory that only root can write to",
        ),
    ];
    for (make, undo, why) in holders {
        machine.sh(make).ok();
        configured(machine, &key);
        machine.systemctl(&["restart", "opnix-mirror.service"]).ok();
        assert!(status(machine).contains(why), "{make}: {}", status(machine));
        assert!(status(machine).contains("\"mirror_root\" in secrets.json"), "{}", status(machine));
        let prepared = machine.run(&["opnix", "mirror", "--prepare"]);
        assert!(prepared.code != Some(0) && prepared.stderr.contains(why), "{make}: {prepared}");
        assert_eq!(machine.sh("cat /run/secrets/other; ls /run/secrets").ok(), "theirs\nother", "{make}");
        // Side by side: a place of its own.
        configured_with(machine, &key, json!({"mirror_root": "/run/opnix-secrets"}));
        machine.systemctl(&["reload", "opnix-mirror.service"]).ok();
        assert_eq!(machine.sh("cat /run/opnix-secrets/key").ok(), value("key"), "{make}");
        assert!(status(machine).starts_with("All 1 files are in place."), "{make}: {}", status(machine));
        machine.sh("findmnt -no OPTIONS /run/opnix-secrets | grep -q ^ro,").ok();
        assert_eq!(machine.sh("cat /run/secrets/other").ok(), "theirs", "{make}");
        machine.sh(undo).ok();
        // And back: what was at the other place is gone.
        configured(machine, &key);
        machine.systemctl(&["reload", "opnix-mirror.service"]).ok();
        assert_eq!(
            machine.sh("cat /run/secrets/key; ls /run/secrets").ok(),
            format!("{}key", value("key")),
            "{make}"
        );
        machine.sh("! test -e /run/opnix-secrets").ok();
        forget_files(machine);
        machine.sh("rmdir /run/secrets || true").ok();
    }
    machine.sh("rm -r /run/secrets.d").ok();
    // A place that cannot be taken costs no file of the place before.
    configured(machine, &key);
    machine.systemctl(&["restart", "opnix-mirror.service"]).ok();
    machine.sh("mkdir -p /run/taken-place/by/others").ok();
    configured_with(machine, &key, json!({"mirror_root": "/run/taken-place"}));
    machine.systemctl(&["reload", "opnix-mirror.service"]).fails();
    assert!(
        status(machine).contains("/run/taken-place holds what opnix did not put there"),
        "{}",
        status(machine)
    );
    machine.sh("! opnix mirror --prepare").ok();
    assert_eq!(machine.sh("cat /run/secrets/key").ok(), value("key"));
    // Nor does it matter whether one is above the other.
    machine.sh("rm -r /run/taken-place").ok();
    for root in ["/run/taken-place/below", "/run/taken-place"] {
        configured_with(machine, &key, json!({"mirror_root": root}));
        machine.systemctl(&["reload", "opnix-mirror.service"]).ok();
        assert_eq!(
            machine.sh(&format!("cat {root}/key; ls -A {root}")).ok(),
            format!("{}key", value("key")),
            "{}",
            status(machine)
        );
    }
    machine.sh("! test -e /run/secrets/key").ok();
    machine.sh("systemctl stop opnix-mirror.service; umount /run/taken-place; rmdir /run/taken-place").ok();
    forget_files(machine);
}

pub fn what_cannot_be_written_is_named_and_holds_up_nobody_least_of_all_where_it_is_optional(
    machine: &Machine,
) {
    begin(machine, &["plain", "optional", "linked"]);
    machine.sh(&format!("echo theirs >{HIS}/link")).ok();
    configured(
        machine,
        &[
            file("plain", "plain", json!({})),
            file("optional", "optional", json!({"owner": "no-such-user", "optional": true})),
            file("linked", "linked", json!({"symlinks": [format!("{HIS}/link")]})),
        ],
    );
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    let said = status(machine);
    assert!(said.starts_with("1 of 2 files are in place."), "{said}");
    assert!(
        said.contains(&format!(
            "/run/secrets/linked: its link {HIS}/link: it is there already and is not a symlink"
        )),
        "{said}"
    );
    assert!(said.contains("/run/secrets/optional: there is no user \"no-such-user\""), "{said}");
    assert!(machine.journal_text().contains("wrote 2 files"), "{}", machine.journal_text());
    assert_eq!(machine.sh(&format!("cat {HIS}/link; rm {HIS}/link")).ok(), "theirs");
    machine.wait("the link", || machine.sh(&format!("cat {HIS}/link")).text() == value("linked"), LONG);
    machine.systemctl(&["stop", "opnix-mirror.service"]).ok();
}

pub fn a_file_that_cannot_be_written_has_nobody_restarted_on_its_old_value(machine: &Machine) {
    begin(machine, &["key"]);
    let path = format!("{HIS}/key");
    let reader = format!(
        "[Service]\nExecStart=sh -c 'cat {path} >>/run/acts-reader; echo >>/run/acts-reader; exec sleep infinity'\n"
    );
    machine.unit("reader.service", &reader);
    configured(machine, &[file("key", &path, json!({"services": ["reader"]}))]);
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    machine.systemctl(&["start", "reader.service"]).ok();
    let read = || machine.sh("cat /run/acts-reader 2>/dev/null || true").ok().replace('\n', " ");
    machine.wait("the first value", || read().trim() == value("key"), LONG);
    // For writing there is no room; the file can be read.
    machine.sh(&format!("mkdir {HIS}/.key.opnix-new")).ok();
    write_vault(machine, &[("key", value("new"))]);
    machine.run(&["opnix", "refresh"]).ok();
    machine.wait("the trouble", || status(machine).starts_with("0 of 1 files"), LONG);
    machine.systemctl(&["restart", "opnix-mirror.service"]).ok();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(read().trim(), value("key"), "restarted on the old value");
    machine.sh(&format!("rmdir {HIS}/.key.opnix-new")).ok();
    machine.wait("the restart", || read().trim() == format!("{} {}", value("key"), value("new")), 2 * LONG);
    machine.sh("systemctl stop reader.service opnix-mirror.service").ok();
}

pub fn the_mirror_reads_no_token_and_no_cache(machine: &Machine) {
    begin(machine, &["key"]);
    configured(machine, &[file("key", "key", json!({}))]);
    machine.sh("echo made-up >/etc/opnix/token; mkdir -p /etc/credstore.encrypted; touch /etc/credstore.encrypted/made-up").ok();
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    machine.run(&["test", "-e", "/var/lib/private/opnix/cache"]).ok();
    let within = "nsenter --target=$(systemctl show --value -p MainPID opnix-mirror.service) --mount";
    for path in ["/etc/opnix/token", "/etc/credstore.encrypted/made-up", "/var/lib/private/opnix/cache"] {
        machine.sh(&format!("cat {path} >/dev/null")).ok();
        machine.sh(&format!("! {within} test -s {path}")).ok();
    }
    machine.sh(&format!("{within} test -s /etc/opnix/secrets.json")).ok();
    machine
        .sh("systemctl stop opnix-mirror.service; rm -f /etc/opnix/token /etc/credstore.encrypted/made-up")
        .ok();
}

pub fn a_link_that_cannot_be_made_keeps_no_change_from_those_who_read_the_file(machine: &Machine) {
    begin(machine, &["key"]);
    machine.unit(
        "reader.service",
        "[Service]\nExecStart=sh -c 'echo start >>/run/acts-reader; exec sleep infinity'\n",
    );
    // One of them leads into our memory, although the file is elsewhere.
    let links = json!([format!("{HIS}/link"), "/run/secrets/link"]);
    configured(machine, &[file("key", "/srv/plain/key", json!({"symlinks": links, "services": ["reader"]}))]);
    machine.systemctl(&["start", "opnix-mirror.service", "reader.service"]).ok();
    assert_eq!(
        machine.sh(&format!("cat /run/secrets/link {HIS}/link")).ok(),
        [value("key"), value("key")].concat()
    );
    assert_eq!(machine.sh("stat -c %a /run/opnix-files").ok(), "700");
    machine.sh(&format!("rm {HIS}/link; mkdir {HIS}/link; chown app: {HIS}/link")).ok();
    write_vault(machine, &[("key", value("new"))]);
    machine.run(&["opnix", "refresh"]).ok();
    let starts = || machine.sh("cat /run/acts-reader 2>/dev/null || true").ok().lines().count();
    machine.wait("the restart", || starts() == 2, LONG);
    assert_eq!(machine.sh("cat /run/secrets/link").ok(), value("new"));
    assert!(
        status(machine).contains(&format!("its link {HIS}/link: it is there already")),
        "{}",
        status(machine)
    );
    machine.sh(&format!("rmdir {HIS}/link")).ok();
    machine.wait("the link", || machine.sh(&format!("cat {HIS}/link")).text() == value("new"), 2 * LONG);
    machine.wait("the end of the trouble", || status(machine).starts_with("All 1 files"), LONG);
    assert_eq!(starts(), 2);
    machine.sh("systemctl stop reader.service opnix-mirror.service; rm -r /srv/plain").ok();
}

pub fn a_change_is_told_although_the_mirror_is_killed_in_the_middle(machine: &Machine) {
    begin(machine, &["key", "late"]);
    machine.unit(
        "reader.service",
        "[Service]\nExecStart=sh -c 'echo start >>/run/acts-reader; exec sleep infinity'\n",
    );
    configured(
        machine,
        &[file("key", "key", json!({"services": ["reader"]})), file("late", "late", json!({}))],
    );
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    machine.systemctl(&["start", "reader.service"]).ok();
    write_vault(machine, &[("key", value("new"))]);
    // One value has come, the other one not yet.
    machine.run(&["opnix", "refresh", "key"]).text();
    let kept =
        json!({"name": "late", "reference": "op://Vault/late/value", "path": "late", "always_fetch": true});
    configured(machine, &[file("key", "key", json!({"services": ["reader"]})), kept]);
    let vault = slow_vault(machine);
    machine.sh("systemctl reload opnix.service; systemctl kill --signal=HUP opnix-mirror.service").ok();
    machine.wait("the file", || machine.sh("cat /run/secrets/key").text() == value("new"), LONG);
    std::thread::sleep(Duration::from_millis(600));
    machine.sh("systemctl kill --signal=KILL opnix-mirror.service").ok();
    drop(vault);
    let starts = || machine.sh("cat /run/acts-reader 2>/dev/null || true").ok().lines().count();
    machine.wait("the restart", || starts() == 2, LONG);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(starts(), 2);
    machine.sh("systemctl stop reader.service opnix-mirror.service").ok();
}

pub fn paths_that_lead_elsewhere_are_told_and_nothing_is_left_of_what_they_were(machine: &Machine) {
    begin(machine, &["old", "new"]);
    machine.unit(
        "reader.service",
        &format!("[Service]\nExecStart=sh -c 'cat {HIS}/link >>/run/acts-reader; echo >>/run/acts-reader; exec sleep infinity'\n"),
    );
    let of = |name: &str, path: &str, link: &str| {
        file(
            name,
            &format!("{HIS}/{path}"),
            json!({"symlinks": [format!("{HIS}/{link}")], "services": ["reader"]}),
        )
    };
    let lists = || machine.sh(&format!("ls -A {HIS}")).ok().replace('\n', " ");
    configured(machine, &[of("old", "old", "link")]);
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    machine.systemctl(&["start", "reader.service"]).ok();
    // The entry is renamed: whoever reads the link reads another file.
    configured(machine, &[of("new", "new", "link")]);
    machine.sh("systemctl reload opnix.service; systemctl reload opnix-mirror.service").ok();
    let read = || machine.sh("cat /run/acts-reader 2>/dev/null || true").ok().replace('\n', " ");
    machine.wait("the restart", || read().trim() == format!("{} {}", value("old"), value("new")), LONG);
    assert_eq!(lists(), "link new");
    // The file becomes the link, and the link the file.
    configured(machine, &[of("new", "link", "new")]);
    machine.systemctl(&["reload", "opnix-mirror.service"]).ok();
    assert_eq!(
        machine.sh(&format!("cd {HIS}; cat link; readlink new")).ok(),
        format!("{}{HIS}/link", value("new"))
    );
    configured(machine, &[file("new", "elsewhere", json!({}))]);
    machine.systemctl(&["reload", "opnix-mirror.service"]).ok();
    assert_eq!(lists(), "");
    machine.sh("systemctl stop reader.service opnix-mirror.service").ok();
}

pub fn what_was_written_before_a_kill_is_removed_when_it_leaves(machine: &Machine) {
    begin(machine, &["elsewhere", "plain"]);
    let late = file("late", "late", json!({}));
    let files = [file("elsewhere", &format!("{HIS}/key"), json!({})), file("plain", "plain", json!({}))];
    configured(machine, &[&files[..], std::slice::from_ref(&late)].concat());
    machine.systemctl(&["start", "opnix.service", "opnix-mount.service"]).ok();
    machine.run(&["opnix", "refresh"]).text();
    let vault = slow_vault(machine);
    machine.run(&["systemctl", "start", "--no-block", "opnix-mirror.service"]).ok();
    let are_there = || {
        machine.sh(&format!("cat {HIS}/key /run/secrets/plain")).text()
            == [value("elsewhere"), value("plain")].concat()
    };
    machine.wait("the files", are_there, LONG);
    std::thread::sleep(Duration::from_millis(600));
    machine.sh("systemctl kill --signal=KILL opnix-mirror.service; systemctl stop opnix-mirror.service").ok();
    drop(vault);
    configured(machine, &[late]);
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    machine.sh(&format!("! ls {HIS}/key && ! ls /run/secrets/plain")).ok();
    machine.systemctl(&["stop", "opnix-mirror.service"]).ok();
}

pub fn each_file_is_written_when_its_value_is_there_and_changes_without_end_do_not_put_it_off(
    machine: &Machine,
) {
    begin(machine, &["kept"]);
    configured(machine, &[file("kept", "kept", json!({})), file("late", "late", json!({}))]);
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    assert_eq!(machine.sh("cat /run/secrets/kept").ok(), value("kept"));
    machine.sh("systemctl stop opnix-mirror.service; rm /run/opnix-files/memory/kept").ok();
    let vault = slow_vault(machine);
    machine.run(&["systemctl", "start", "--no-block", "opnix-mirror.service"]).ok();
    machine.wait(
        "the file whose value is kept",
        || machine.sh("cat /run/secrets/kept").text() == value("kept"),
        LONG,
    );
    assert_eq!(
        machine.show("opnix-mirror.service", "ActiveState"),
        "activating",
        "it waits for the other one"
    );
    drop(vault);
    machine.wait("the start", || machine.show("opnix-mirror.service", "ActiveState") == "active", LONG);
    // A change each second.
    let mut seen = Vec::new();
    for number in 0..25 {
        write_vault(machine, &[("kept", value(&format!("kept-{number}")))]);
        machine.run(&["opnix", "refresh"]).text();
        std::thread::sleep(Duration::from_millis(700));
        seen.push(machine.sh("cat /run/secrets/kept").ok());
    }
    assert!(seen[20..].iter().all(|seen| *seen != value("kept")), "{seen:?}");
    machine.systemctl(&["stop", "opnix-mirror.service"]).ok();
}

pub fn a_one_time_password_is_written_anew_and_nobody_is_told(machine: &Machine) {
    begin(machine, &["plain"]);
    machine.unit(
        "reader.service",
        "[Service]\nExecStart=sh -c 'echo start >>/run/acts-reader; exec sleep infinity'\n",
    );
    let mut code = file("code", "code", json!({"services": ["reader"]}));
    code["reference"] = json!("op://Vault/Login/code?attribute=otp");
    configured(machine, &[code, file("plain", "plain", json!({"services": ["reader"]}))]);
    let vault = |code: &str, plain: &str| {
        let vault = json!({"vaults": [{"name": "Vault", "items": [
            {"title": "Login", "fields": [{"label": "code", "value": "otpauth://totp/x", "totp": code}]},
            {"title": "plain", "fields": [{"label": "value", "value": plain}]}]}]});
        machine.write(VAULT, vault.to_string(), "0640");
        machine.sh(&format!("chgrp opnix-vault {VAULT}")).ok();
    };
    vault("111111", "one");
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    machine.systemctl(&["start", "reader.service"]).ok();
    assert_eq!(machine.sh("cat /run/secrets/code").ok(), "111111");
    let starts = || machine.sh("cat /run/acts-reader 2>/dev/null || true").ok().lines().count();
    for code in ["222222", "333333"] {
        vault(code, "one");
        machine.systemctl(&["reload", "opnix-mirror.service"]).ok();
        assert_eq!(machine.sh("cat /run/secrets/code").ok(), code);
    }
    machine.run(&["opnix", "refresh"]).text();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(starts(), 1);
    vault("444444", "two");
    machine.run(&["opnix", "refresh"]).text();
    machine.wait("the restart for the other one", || starts() == 2, LONG);
    machine.sh("systemctl stop reader.service opnix-mirror.service").ok();
}

pub fn a_unit_that_is_starting_when_its_secret_changes_is_told_when_it_can_hear(machine: &Machine) {
    begin(machine, &["key"]);
    let slow = |more: &str| {
        format!(
            "[Service]\nType=notify\nNotifyAccess=all\nExecReload=sh -c 'echo reload >>/run/acts-%n'\n\
             ExecStart=sh -c 'trap \"echo signal >>/run/acts-%n\" USR1; cat /run/secrets/key >>/run/acts-%n; echo >>/run/acts-%n; \
             while ! test -e /run/acts-go; do sleep 0.1; done; systemd-notify --ready; while :; do sleep 0.1; done'\n{more}\n"
        )
    };
    let actions = [
        ("reloads", json!("reload")),
        ("signals", json!({"signal": "SIGUSR1"})),
        ("restarts", json!("restart")),
    ];
    let units: Vec<Value> = actions
        .iter()
        .map(|(name, action)| json!({"unit": format!("{name}.service"), "on_change": action}))
        .collect();
    let between = json!({"unit": "between.service", "on_change": "restart"});
    // Named twice: what is to be done for its kind is not lost by what is to be done for itself.
    let twice = [
        json!({"unit": "twice@*.service", "on_change": "reload"}),
        json!({"unit": "twice@a.service", "on_change": {"signal": "SIGUSR1"}}),
    ];
    let units = [&units[..], &[between], &twice].concat();
    machine.unit("twice@.service", &slow(""));
    // Their units read the file: who has the credential is restarted.
    let key = json!({"name": "key", "reference": "op://Vault/key/value", "path": "key", "units": units});
    configured(machine, &[key]);
    for (name, _) in &actions {
        machine.unit(&format!("{name}.service"), &slow(""));
    }
    // It waits before it starts again, with a long pause.
    machine.unit(
        "between.service",
        "[Service]\nLoadCredential=key:/run/opnix/creds.sock\nExecStart=sh -c 'cat $CREDENTIALS_DIRECTORY/key >>/run/acts-%n; echo >>/run/acts-%n; grep -q new $CREDENTIALS_DIRECTORY/key && sleep infinity'\n\
         Restart=always\nRestartSec=1h\n",
    );
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    machine.sh("systemctl start --no-block reloads signals restarts between twice@a").ok();
    let acts =
        |name: &str| machine.sh(&format!("cat /run/acts-{name}.service")).text().trim().replace('\n', " ");
    let old = value("key");
    machine.wait(
        "their starts",
        || ["reloads", "signals", "restarts", "between", "twice@a"].iter().all(|name| acts(name) == old),
        LONG,
    );
    machine.wait("the pause", || machine.show("between.service", "SubState") == "auto-restart", LONG);
    write_vault(machine, &[("key", value("new"))]);
    machine.run(&["opnix", "refresh"]).ok();
    let new = format!("{old} {}", value("new"));
    machine.wait("the restarts", || acts("restarts") == new && acts("between") == new, NOTICED);
    assert_eq!((acts("reloads"), acts("signals")), (old.clone(), old.clone()));
    // The mirror is started anew meanwhile.
    machine.systemctl(&["restart", "opnix-mirror.service"]).ok();
    machine.run(&["touch", "/run/acts-go"]).ok();
    machine.wait("the reload", || acts("reloads") == format!("{old} reload"), NOTICED);
    machine.wait("the reload of the instance", || acts("twice@a") == format!("{old} reload"), NOTICED);
    machine.wait("the signal", || acts("signals") == format!("{old} signal"), NOTICED);
    let journal = machine.journal_text();
    assert!(
        journal
            .contains("a secret changed: systemctl kill --kill-whom=main --signal=SIGUSR1 signals.service"),
        "{journal}"
    );
    std::thread::sleep(Duration::from_secs(11));
    assert_eq!(acts("reloads"), format!("{old} reload"));
    assert_eq!((acts("restarts"), acts("between")), (new.clone(), new));
    machine
        .sh("systemctl stop reloads signals restarts between twice@a opnix-mirror; rm -f /run/acts-*")
        .ok();
}
