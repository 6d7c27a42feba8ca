//! Whoever owns a directory in which a secret is written reaches nothing by it but that secret: another user plays him against
//! the mirror as it is shipped.

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::opnix::*;

/// His directory.
const HIS: &str = "/srv/mallory";

/// Rounds of each race; in `tests/long/owners` more.
fn rounds() -> usize {
    std::env::var("OPNIX_RACES").ok().and_then(|count| count.parse().ok()).unwrap_or(1500)
}

fn file(name: &str, path: &str, more: Value) -> Value {
    let mut entry = json!({"name": name, "reference": "op://Vault/key/value", "path": path});
    entry.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    entry
}

/// The mirror with these files, and a directory of each of the two users.
fn begin(machine: &Machine, files: &[Value]) {
    machine.systemctl(&["stop", "opnix-mirror.service"]).ok();
    machine
        .sh(&format!(
            "rm -rf /run/opnix-mirror {HIS} /srv/victim; for user in mallory victim friend; do id $user >/dev/null 2>&1 || useradd --system $user; done; \
             mkdir -p {HIS} && chown mallory:mallory {HIS} && chmod 0755 {HIS}"
        ))
        .ok();
    set_up(machine, &[], &[("key", value("key"))], "5s");
    configured(machine, files);
    machine.systemctl(&["start", "opnix-control.socket"]).ok();
}

fn configured(machine: &Machine, files: &[Value]) {
    let config = json!({"provider": {"kind": "local", "path": VAULT}, "deadline": "5s", "secrets": files});
    machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
}

/// The other user's directory with a file of his own, which lies in the first one's.
fn victims(machine: &Machine, at: &str) {
    machine
        .sh(&format!("mkdir -m 0700 {at} && echo his >{at}/secret && chmod 0644 {at}/secret && chown -R victim:victim {at}"))
        .ok();
}

fn is_untouched(machine: &Machine, at: &str) {
    let found = machine.sh(&format!("stat -c '%a %U %G' {at}; cat {at}/secret; ls -A {at}")).ok();
    assert_eq!(found, "700 victim victim\nhis\nsecret", "{at}");
}

pub fn a_directory_of_somebody_else_that_an_owner_puts_in_the_way_is_left_alone(machine: &Machine) {
    let path = format!("{HIS}/app/secret");
    begin(machine, &[file("key", &path, json!({"owner": "mallory"})), file("other", "other", json!({}))]);
    victims(machine, &format!("{HIS}/app"));
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    let status = machine.show("opnix-mirror.service", "StatusText");
    assert!(status.contains("/srv/mallory/app belongs to user") && status.contains("chown"), "{status}");
    is_untouched(machine, &format!("{HIS}/app"));
    assert_eq!(machine.run(&["cat", "/run/secrets/other"]).ok(), value("key"), "others are not held up");
    // Where he has one of his own, and where there is none, it is written; what is made is his.
    machine.sh(&format!("mv {HIS}/app {HIS}/away")).ok();
    machine.wait("the secret", || machine.sh(&format!("cat {path}")).text() == value("key"), 2 * LONG);
    assert_eq!(machine.sh(&format!("stat -c '%a %U %G' {HIS}/app")).ok(), "751 mallory mallory");
    // Nor is anything of it removed, when the entry leaves.
    machine.sh(&format!("mv {HIS}/app {HIS}/own; mv {HIS}/away {HIS}/app")).ok();
    configured(machine, &[file("other", "other", json!({}))]);
    machine.systemctl(&["reload", "opnix-mirror.service"]).ok();
    is_untouched(machine, &format!("{HIS}/app"));
    let status = machine.show("opnix-mirror.service", "StatusText");
    assert!(status.contains(&format!("{path} left the configuration and cannot be removed")), "{status}");
    // A directory of root's, as an older opnix made it, is named with what mends it.
    machine.sh(&format!("rm -rf {HIS}/*; mkdir -m 0751 {HIS}/app")).ok();
    configured(machine, &[file("key", &path, json!({"owner": "mallory"}))]);
    machine.systemctl(&["reload", "opnix-mirror.service"]).fails();
    let status = machine.show("opnix-mirror.service", "StatusText");
    let (_, mend) = status.split_once(": chown ").expect("what mends it");
    machine.sh(&format!("chown {}", mend.split(';').next().expect("a command"))).ok();
    machine.wait("the secret", || machine.sh(&format!("cat {path}")).text() == value("key"), 2 * LONG);
}

pub fn a_directory_that_is_swapped_while_it_is_made_changes_nobodys_mode(machine: &Machine) {
    const SWAP: &str = "
import ctypes, os, sys
swap = ctypes.CDLL(None).renameat2
os.chdir('/srv/mallory')
for number in range(int(sys.argv[1])):
    made = f'made-{number}'.encode()
    tries = 0
    while swap(-100, b'victim', -100, made, 2) != 0:
        tries += 1
        if tries % 100000 == 0 and os.path.exists('stop'): sys.exit()
    swap(-100, b'victim', -100, made, 2)
";
    let rounds = rounds();
    let path = |number: usize| format!("{HIS}/made-{number}/secret");
    let files: Vec<Value> = (0..rounds)
        .map(|number| file(&format!("key-{number}"), &path(number), json!({"owner": "mallory"})))
        .collect();
    begin(machine, &files);
    victims(machine, &format!("{HIS}/victim"));
    machine.write("/run/swap.py", SWAP, "0644");
    let swapping = machine.spawn(&[
        "setpriv",
        "--reuid=mallory",
        "--regid=mallory",
        "--clear-groups",
        "python3",
        "/run/swap.py",
        &rounds.to_string(),
    ]);
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    let last = path(rounds - 1);
    machine.wait("all of them", || machine.run(&["test", "-e", &last]).code == Some(0), 10 * LONG);
    machine.sh(&format!("touch {HIS}/stop")).ok();
    drop(swapping);
    is_untouched(machine, &format!("{HIS}/victim"));
    // And nothing is lost by it.
    let count = format!("cat {HIS}/made-*/secret | grep -o {} | wc -l", value("key"));
    machine.wait("all secrets", || machine.sh(&count).text().trim() == rounds.to_string(), 4 * LONG);
}

pub fn links_directories_and_unfinished_files_that_are_swapped_lead_to_nothing_of_others(machine: &Machine) {
    const SWAP: &str = "
import ctypes, os, sys
swap = ctypes.CDLL(None).renameat2
os.chdir('/srv/mallory')
mine = [b'link', b'pipe', b'mine', b'folder']
if not os.path.lexists('link'):
    os.symlink('/srv/victim/secret', 'link'); os.mkfifo('pipe'); os.mkdir('folder'); open('mine', 'w').close(); os.chmod('mine', 0o666)
rounds = 0
while not os.path.exists('stop'):
    for number in range(int(sys.argv[1])):
        rounds += 1
        file, new = f'file-{number}'.encode(), f'.file-{number}.opnix-new'.encode()
        if rounds % 7 == 0:
            try: os.symlink('/srv/victim/secret', new)
            except OSError: pass
        for other in mine:
            for name in (file, new):
                if swap(-100, other, -100, name, 2) == 0: swap(-100, other, -100, name, 2)
        directory = f'directory-{number}'.encode()
        if swap(-100, b'victim', -100, directory, 2) == 0: swap(-100, b'victim', -100, directory, 2)
open('rounds', 'w').write(str(rounds))
";
    let count = 300;
    let files: Vec<Value> = (0..count)
        .flat_map(|number| {
            let path = [format!("{HIS}/file-{number}"), format!("{HIS}/directory-{number}/secret")];
            path.map(|path| file(&path.replace('/', "-"), &path, json!({"owner": "mallory"})))
        })
        .collect();
    let other = file("other", "other", json!({}));
    let all = [&files[..], std::slice::from_ref(&other)].concat();
    begin(machine, &all);
    victims(machine, &format!("{HIS}/victim"));
    victims(machine, "/srv/victim");
    machine.write("/run/swap.py", SWAP, "0644");
    machine
        .sh(&format!(
            "cd {HIS}; seq -f directory-%g 0 {} | xargs mkdir; chown mallory: directory-*",
            count - 1
        ))
        .ok();
    let as_mallory = ["setpriv", "--reuid=mallory", "--regid=mallory", "--clear-groups"];
    let number = count.to_string();
    let swap = [&as_mallory[..], &["python3", "/run/swap.py", &number]].concat();
    let swapped = || machine.sh(&format!("cat {HIS}/rounds")).text().trim().parse::<usize>().ok();
    let mut swaps = 0;
    machine.systemctl(&["start", "opnix.service"]).ok();
    // Written anew, removed, and written again, all under way.
    for round in 0..rounds().div_ceil(500) {
        let swapping = machine.spawn(&swap);
        let new = value(&format!("key-{round}"));
        write_vault(machine, &[("key", new.clone())]);
        configured(machine, &all);
        machine
            .sh("systemctl reload opnix.service; opnix refresh; systemctl start opnix-mirror.service; systemctl reload opnix-mirror.service || true")
            .ok();
        assert_eq!(machine.sh("cat /run/secrets/other").ok(), new, "others are not held up");
        configured(machine, std::slice::from_ref(&other));
        machine.systemctl(&["reload", "opnix-mirror.service"]).ok();
        machine.sh(&format!("touch {HIS}/stop")).ok();
        machine.wait("the end", || swapped().is_some(), LONG);
        drop(swapping);
        swaps += swapped().unwrap_or_default();
        machine.sh(&format!("rm {HIS}/stop {HIS}/rounds")).ok();
    }
    is_untouched(machine, &format!("{HIS}/victim"));
    is_untouched(machine, "/srv/victim");
    assert!(swaps > count, "{swaps}");
    // He may keep what was his; nothing else is there.
    let kept = format!("grep -rls {CANARY} {HIS} | xargs --no-run-if-empty stat -c %U | sort -u");
    let kept = machine.sh(&kept).ok();
    assert!(["", "mallory"].contains(&kept.as_str()), "{kept}");
}

pub fn a_directory_that_somebody_else_made_where_many_may_gets_no_secret(machine: &Machine) {
    begin(machine, &[file("key", "/srv/shared/app/secret", json!({"owner": "friend"}))]);
    machine.sh("rm -rf /srv/shared; mkdir -m 1777 /srv/shared; mkdir -m 0755 /srv/shared/app; chown mallory /srv/shared/app").ok();
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    let status = machine.show("opnix-mirror.service", "StatusText");
    assert!(status.contains("in a directory where others can make one: name another path"), "{status}");
    machine.sh("! ls /srv/shared/app | grep .").ok();
    machine.sh("chown friend /srv/shared/app").ok();
    machine.wait("the secret", || machine.sh("cat /srv/shared/app/secret").text() == value("key"), 2 * LONG);
    machine.sh("systemctl stop opnix-mirror.service; rm -r /srv/shared").ok();
}

pub fn an_access_list_of_the_directory_lets_nobody_read_what_is_made_in_it(machine: &Machine) {
    let path = format!("{HIS}/new/secret");
    begin(
        machine,
        &[
            file("key", &path, json!({"owner": "victim", "group": "victim", "mode": "0640"})),
            file(
                "plain",
                &format!("{HIS}/plain"),
                json!({"owner": "victim", "group": "victim", "mode": "0640"}),
            ),
        ],
    );
    // By default, one more user may read everything.
    let list = "import os, pwd, struct; entry = lambda tag, may, of: struct.pack('<HHI', tag, may, of); none = 2**32 - 1; \
                friend = pwd.getpwnam('friend').pw_uid; \
                os.setxattr('/srv/mallory', 'system.posix_acl_default', struct.pack('<I', 2) + entry(1, 7, none) + entry(2, 7, friend) \
                + entry(4, 5, none) + entry(16, 7, none) + entry(32, 5, none))";
    machine.run(&["python3", "-c", list]).ok();
    machine
        .sh(&format!(
            "touch {HIS}/probe; setpriv --reuid=friend --regid=friend --clear-groups test -r {HIS}/probe"
        ))
        .ok();
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    for path in [path, format!("{HIS}/plain")] {
        assert_eq!(machine.sh(&format!("stat -c '%a %U %G' {path}")).ok(), "640 victim victim");
        let lists = format!("import os; assert os.listxattr('{path}') == [], os.listxattr('{path}')");
        machine.run(&["python3", "-c", &lists]).ok();
        machine.sh(&format!("! setpriv --reuid=friend --regid=friend --clear-groups cat {path}")).ok();
    }
    let lists = format!("import os; assert os.listxattr('{HIS}/new') == []");
    machine.run(&["python3", "-c", &lists]).ok();
}

pub fn what_a_killed_mirror_left_unfinished_is_removed_and_what_stands_in_the_way_is_one_owners_trouble(
    machine: &Machine,
) {
    let entries = [
        file("stays", &format!("{HIS}/stays"), json!({"owner": "mallory"})),
        file("leaves", &format!("{HIS}/leaves"), json!({"owner": "mallory"})),
        file("blocked", &format!("{HIS}/blocked"), json!({"owner": "mallory"})),
        file("blocked-before", &format!("{HIS}/before"), json!({"owner": "mallory"})),
        file("other", "other", json!({})),
    ];
    begin(machine, &entries);
    machine.sh(&format!("mkdir {HIS}/blocked {HIS}/.before.opnix-new; chown mallory: {HIS}/*")).ok();
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    for name in [format!("{HIS}/stays"), format!("{HIS}/leaves"), "/run/secrets/other".into()] {
        assert_eq!(machine.run(&["cat", &name]).ok(), value("key"));
    }
    let status = machine.show("opnix-mirror.service", "StatusText");
    assert!(status.starts_with("3 of 5 files are in place."), "{status}");
    machine.systemctl(&["kill", "--signal=KILL", "opnix-mirror.service"]).ok();
    let left =
        format!("{HIS}/.stays.opnix-new {HIS}/.leaves.opnix-new /run/opnix-files/memory/.other.opnix-new");
    machine
        .sh(&format!("systemctl stop opnix-mirror.service; for file in {left}; do echo secret >$file; done"))
        .ok();
    configured(machine, &[&entries[..1], &entries[4..]].concat());
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    machine.sh(&format!("for file in {left} {HIS}/leaves; do ! test -e $file || exit 1; done")).ok();
    // And while it runs.
    machine.sh(&format!("echo secret >{HIS}/.stays.opnix-new")).ok();
    configured(machine, &entries[4..]);
    machine.systemctl(&["reload", "opnix-mirror.service"]).ok();
    machine.sh(&format!("! test -e {HIS}/.stays.opnix-new && ! test -e {HIS}/stays")).ok();
}

/// Whoever writes a template names the secrets that are in it.
pub fn a_template_file_of_somebody_else_is_not_read(machine: &Machine) {
    begin(machine, &[]);
    let template = format!("{HIS}/app.tpl");
    let config = json!({"provider": {"kind": "local", "path": VAULT}, "deadline": "5s",
        "secrets": [file("other", "other", json!({}))],
        "templates": [{"name": "app", "template_file": template, "path": "app", "owner": "mallory"}]});
    let his = |make: &str| {
        machine.sh(&format!("rm -f {template}; {make}; chown mallory:mallory {template}")).ok();
    };
    let theirs = "echo '{{ op://Vault/key/value }}'";
    for make in [format!("{theirs} >{template}"), format!("mkfifo {template}")] {
        his(&make);
        machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
        let check = machine.sh("timeout 20 opnix check");
        assert!(
            check.code == Some(78) && check.stderr.contains(&format!("{HIS} belongs to user")),
            "{check}"
        );
        let prints = machine.sh("timeout 20 opnix explain --config /etc/opnix/secrets.json app.service app");
        assert_ne!(prints.code, Some(124), "it hangs: {prints}");
        machine.sh("! timeout 20 systemctl start opnix-mirror.service").ok();
        machine.sh("systemctl stop opnix-mirror.service; ! test -e /run/secrets/app").ok();
    }
    // One of root's in a directory of root's is.
    machine.write("/etc/opnix/app.tpl", "{{ op://Vault/key/value }}", "0644");
    let config = config.to_string().replace(&template, "app.tpl");
    machine.write("/etc/opnix/secrets.json", config, "0644");
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
    assert_eq!(machine.sh("cat /run/secrets/app").ok(), value("key"));
}

pub fn root_writes_past_no_link_of_somebody_else(machine: &Machine) {
    begin(machine, &[file("key", "key", json!({}))]);
    victims(machine, "/srv/victim");
    machine.sh(&format!("ln -s ../victim {HIS}/link; chown -h mallory {HIS}/link")).ok();
    for output in [format!("{HIS}/link"), format!("{HIS}/link/below")] {
        let refused =
            machine.run(&["opnix", "secret", "-config", "/etc/opnix/secrets.json", "-output", &output]);
        assert_eq!(refused.code, Some(1), "{refused}");
        assert!(refused.stderr.contains("name the real path"), "{refused}");
    }
    is_untouched(machine, "/srv/victim");
    machine.sh("mkdir -p /srv/roots; ln -sfn roots /srv/link").ok();
    machine.run(&["opnix", "secret", "-config", "/etc/opnix/secrets.json", "-output", "/srv/link"]).ok();
    assert_eq!(machine.sh("cat /srv/roots/key; rm -r /srv/roots /srv/link").ok(), value("key"));
}
