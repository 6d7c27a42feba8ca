//! Starts that depend neither on the network nor on 1Password's patience: what is kept, through reboots and power cuts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::onepassword::{account, entry, one_password};
use crate::opnix::*;
use crate::simulators::http::Fault;

const KEY: &str = "/etc/credstore.encrypted/opnix.cache-key";
const CACHE: &str = "/var/lib/private/opnix/cache";
/// Read by systemd besides its own directories, and part of the disk of a machine that reboots.
const UNITS: &str = "/usr/local/lib/systemd/system";

/// A directory that a machine has as its disk.
pub struct Disk(pub PathBuf);

impl Disk {
    pub fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("disk-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory for a disk");
        Self(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Five secrets and the units that want them: name, item, field, unit, and what is special about the unit.
const FIVE: [(&str, &str, &str, &str, &str); 5] = [
    ("openai-api-key", "OpenAI", "credential", "five-dynamic.service", "DynamicUser=yes"),
    ("datadog-api-key", "Datadog", "api key", "five-user.service", "User=daemon"),
    ("cloudflare-token", "Cloudflare", "token", "five-private.service", "PrivateNetwork=yes"),
    ("backblaze-credentials", "Backblaze", "json", "five-plain.service", ""),
    ("opencode-key", "Opencode", "key", "five-exec.service", "Type=exec"),
];

fn five_secrets() -> Value {
    let secrets: Vec<Value> = FIVE
        .iter()
        .map(|(name, item, field, unit, _)| entry(name, &format!("{item}/{field}"), unit))
        .collect();
    json!(secrets)
}

/// What the mirror is to write: a file that is a secret, and one for `EnvironmentFile=`.
fn files() -> Value {
    let template = "OPENAI_API_KEY={{ op://Infrastructure Secrets/OpenAI/credential | env }}\n";
    json!([{"name": "opencode-env", "template": template, "path": "opencode.env", "mode": "0400"}])
}

fn five_items() -> Vec<(&'static str, &'static str)> {
    FIVE.iter().map(|(_, item, field, ..)| (*item, *field)).collect()
}

/// Written to the disk, and wanted at boot.
fn install_five(machine: &Machine) {
    for (name, _, _, unit, more) in FIVE {
        let text = format!(
            "[Service]\n{}{more}\nLoadCredential={name}:/run/opnix/creds.sock\nExecStart=sh -c 'cat $CREDENTIALS_DIRECTORY/{name}; exec sleep infinity'\n",
            if more.starts_with("Type=") { "" } else { "Type=exec\n" }
        );
        machine.write(&format!("{UNITS}/{unit}"), text, "0644");
        machine.sh(&format!("mkdir -p {UNITS}/multi-user.target.wants && ln -sf ../{unit} {UNITS}/multi-user.target.wants/")).ok();
    }
    let reader = "[Unit]\nRequires=opnix-mirror.service\nAfter=opnix-mirror.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
                  EnvironmentFile=/run/secrets/opencode.env\nExecStart=sh -c 'echo $OPENAI_API_KEY'\nStandardOutput=truncate:/run/reader\n";
    machine.write(&format!("{UNITS}/reader.service"), reader, "0644");
    machine.sh(&format!("ln -sf ../reader.service {UNITS}/multi-user.target.wants/")).ok();
    enable_sockets(machine);
}

/// From the next boot on: `/etc` is not on the disk that outlives the machine.
fn enable_sockets(machine: &Machine) {
    machine
        .sh(&format!(
            "mkdir -p {UNITS}/sockets.target.wants; for unit in opnix.socket opnix-control.socket; do \
             ln -sf /usr/lib/systemd/system/$unit {UNITS}/sockets.target.wants/; done; systemctl daemon-reload"
        ))
        .ok();
}

fn all_five_have_their_secret(machine: &Machine) {
    for (name, item, _, unit, _) in FIVE {
        machine.wait(unit, || machine.show(unit, "ActiveState") == "active", LONG);
        let pid = machine.show(unit, "MainPID");
        let read = format!("cat /proc/{pid}/root/run/credentials/{unit}/{name}");
        machine.wait("its value", || machine.sh(&read).code == Some(0), LONG);
        assert_eq!(machine.sh(&read).ok(), value(item), "{unit}");
    }
}

pub fn five_units_start_at_a_boot_without_network(_: &Machine) {
    let disk = Disk::new("five");
    {
        let machine = Machine::boot_from(&disk.0);
        let simulator = one_password(&machine, account(&five_items()));
        let config = json!({"secrets": five_secrets(), "templates": files()});
        machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
        install_five(&machine);
        machine.sh("systemctl start opnix.socket opnix-control.socket").ok();
        for (.., unit, _) in FIVE {
            machine.systemctl(&["start", unit]).ok();
        }
        all_five_have_their_secret(&machine);
        assert!(!simulator.server.requests().is_empty());
        let cached =
            || machine.sh("opnix status --json | grep -c '\"state\": \"fresh\"'").text().trim() == "6";
        machine.wait("all of them in the cache", cached, LONG);
        machine.sh("systemctl stop opnix.service").ok();
        // The power goes; the simulator with it.
    }
    let machine = Machine::boot_from(&disk.0);
    all_five_have_their_secret(&machine);
    // And so has who reads a file that the mirror writes.
    machine.wait("the reader", || machine.show("reader.service", "ActiveState") == "active", LONG);
    assert_eq!(machine.run(&["cat", "/run/reader"]).ok(), value("OpenAI"));
    let status = machine.sh("opnix status").text();
    assert!(status.contains("5 values, 5 sealed on disk"), "{status}");
    // And long after: the clock is what tells.
    machine.sh("systemctl stop 'five-*' opnix.service opnix.socket").ok();
    let config =
        json!({"fresh_for": "0s", "short_deadline": "2s", "secrets": five_secrets(), "templates": files()});
    machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
    machine.sh("systemctl start opnix.socket").ok();
    let began = Instant::now();
    machine.sh(&format!("systemctl start {}", FIVE.map(|(.., unit, _)| unit).join(" "))).ok();
    all_five_have_their_secret(&machine);
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    assert!(machine.sh("journalctl -u opnix.service").text().contains("from the cache: the value of"));
    // Files are gone with the next boot, until somebody has them written.
    drop(machine);
    fs::remove_dir_all(disk.0.join(UNITS.trim_start_matches('/'))).expect("no unit wants anything");
    let machine = Machine::boot_from(&disk.0);
    machine.sh("! test -e /run/secrets").ok();
}

/// How often the power goes. A hundred times in CI, and as often as you like by hand.
fn power_cuts() -> usize {
    std::env::var("OPNIX_POWER_CUTS").ok().and_then(|count| count.parse().ok()).unwrap_or(12)
}

/// The way through a reboot. What a real disk would have of the files is shown by `writing::`: this one is all in memory.
///
/// Each round boots the machine, finds the value that was last written before the power went, or the one that was being
/// written, and writes on until it goes again.
pub fn a_power_cut_leaves_the_old_or_the_new_value(_: &Machine) {
    const VAULT: &str = "/etc/opnix/vault.json";
    let disk = Disk::new("power");
    let config = json!({"provider": {"kind": "local", "path": VAULT}, "refresh": "never", "deadline": "5s",
        "secrets": [{"name": "key", "reference": "op://Vault/key/value", "units": ["power.service"]}]});
    let write = format!(
        "n=$1; while :; do n=$((n + 1)); printf '%s' '{{\"vaults\":[{{\"name\":\"Vault\",\"items\":[{{\"title\":\"key\",\"fields\":[{{\"label\":\"value\",\"value\":\"canary-'$n'\"}}]}}]}}]}}' >{VAULT}.new; \
         chgrp systemd-journal {VAULT}.new; chmod 0640 {VAULT}.new; mv {VAULT}.new {VAULT}; opnix refresh key >/dev/null || exit 1; printf %s $n >/etc/opnix/progress.new; mv /etc/opnix/progress.new /etc/opnix/progress; done"
    );
    let progress = || -> u64 {
        fs::read_to_string(disk.0.join("etc/opnix/progress")).ok().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    let mut written = Vec::new();
    for round in 0..=power_cuts() {
        let before = progress();
        // Nothing but the cache can have the value now.
        let _ = fs::remove_file(disk.0.join(&VAULT[1..]));
        let machine = Machine::boot_from(&disk.0);
        if round == 0 {
            machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
            let unit = "[Service]\nType=oneshot\nRemainAfterExit=yes\nLoadCredential=key:/run/opnix/creds.sock\nExecStart=sh -c 'cat $CREDENTIALS_DIRECTORY/key'\n\
                        StandardOutput=file:/run/power\n";
            machine.write(&format!("{UNITS}/power.service"), unit, "0644");
            // Who may read the vault: a group that every machine has under the same number.
            let group = "[Service]\nSupplementaryGroups=systemd-journal\n";
            machine.write(&format!("{UNITS}/opnix.service.d/vault.conf"), group, "0644");
            machine.sh(&format!("mkdir -p {UNITS}/multi-user.target.wants && ln -sf ../power.service {UNITS}/multi-user.target.wants/")).ok();
            enable_sockets(&machine);
            machine.systemctl(&["start", "opnix.socket", "opnix-control.socket"]).ok();
        } else {
            machine.wait("the unit", || machine.show("power.service", "ActiveState") == "active", LONG);
            let found = machine.sh("cat /run/power").ok();
            let found: u64 =
                found.strip_prefix("canary-").and_then(|n| n.parse().ok()).expect("a whole value");
            assert!(found == before || found == before + 1, "round {round}: {found} after {before}");
            let journal = machine.sh("journalctl -u opnix.service").text();
            assert!(!journal.contains("is not used"), "{journal}");
            written.push(found);
        }
        let _writer =
            machine.spawn(&["sh", "-c", &write, "sh", &written.last().copied().unwrap_or(0).to_string()]);
        // Not before something new was written once, then at any moment.
        let first = progress();
        machine.wait("the first write", || progress() > first, LONG);
        std::thread::sleep(Duration::from_micros(rand::random_range(0..300_000)));
    }
    assert!(written.windows(2).all(|pair| pair[0] < pair[1]), "{written:?}");
}

pub fn without_a_key_values_are_in_memory_only_and_status_says_so(machine: &Machine) {
    let simulator = one_password(machine, account(&[("OpenAI", "credential")]));
    stop(machine);
    machine
        .sh(&format!(
            "rm -f {KEY}; systemctl stop opnix-setup.service; systemctl mask --runtime opnix-setup.service"
        ))
        .ok();
    set_up_with(machine, &json!({"secrets": [entry("key", "OpenAI/credential", "keyless@*.service")]}));
    consumer(machine, "keyless@.service", "key", "");
    machine.systemctl(&["start", "keyless@1.service"]).ok();
    let status = machine.sh("opnix status").text();
    assert!(status.contains("1 value, in memory only: there is no key, or it does not open"), "{status}");
    machine
        .sh(&format!(
            "systemctl stop opnix-mirror.service opnix.service; ! test -e {CACHE}; test -e /var/lib/private/opnix/requests.json"
        ))
        .ok();
    // By hand, without the unit that status names.
    machine
        .sh("systemctl unmask --runtime opnix-setup.service; opnix setup; systemctl restart opnix.service")
        .ok();
    machine.systemctl(&["start", "keyless@2.service"]).ok();
    machine.wait("the cache", || machine.run(&["test", "-e", CACHE]).code == Some(0), LONG);
    assert!(machine.sh("opnix status").text().contains("1 value, 1 sealed on disk"));
    simulator.server.fault("", usize::MAX, Fault::Reset);
    machine.sh("systemctl restart opnix.service; systemctl start keyless@3.service").ok();
    let mode = machine.sh(&format!("stat -c %a {CACHE} {KEY}")).ok();
    assert_eq!(mode, "600\n600");
    machine.sh(&format!("! grep -c {CANARY} {CACHE}")).ok();
    // In another seal it is the same key, and opens the same cache, while the service goes on.
    machine.run(&["opnix", "setup", "--with-key=bogus"]).fails();
    machine
        .sh(&format!(
            "cp {KEY} /run/key-before; opnix setup --reseal --with-key=host; ! cmp -s {KEY} /run/key-before"
        ))
        .ok();
    machine.sh("systemctl restart opnix-key.service opnix.service; systemctl start keyless@4.service").ok();
    assert!(machine.sh("opnix status").text().contains("1 value, 1 sealed on disk"));
}

pub fn a_cache_that_is_copied_to_another_machine_does_not_open(machine: &Machine) {
    let simulator = one_password(machine, account(&[("OpenAI", "credential")]));
    let config =
        json!({"deadline": "3s", "secrets": [entry("key", "OpenAI/credential", "copied@*.service")]});
    set_up_with(machine, &config);
    consumer(machine, "copied@.service", "key", "");
    machine.systemctl(&["start", "copied@1.service"]).ok();
    machine.systemctl(&["stop", "opnix-mirror.service", "opnix.service"]).ok();
    machine.sh(&format!("test -e {CACHE}")).ok();
    simulator.server.fault("", usize::MAX, Fault::Reset);
    // Another machine has another host key, with which not even the sealed key opens: it makes one of its own.
    const HOST_KEY: &str = "/var/lib/systemd/credential.secret";
    machine
        .sh(&format!(
            "rm -f {KEY}.aside-* {CACHE}.aside-*; cp -p {HOST_KEY} /root/host-key; rm {HOST_KEY}; systemctl restart opnix-setup.service"
        ))
        .ok();
    let says = |line: &str| assert!(machine.journal_text().contains(line), "{}", machine.journal_text());
    says("opnix.cache-key cannot be opened any more: systemd's host key, which it was sealed with, is gone");
    says("set its cache aside: /var/lib/opnix/cache, now /var/lib/opnix/cache.aside-1");
    machine.sh(&format!("test -e {KEY}.aside-1; ! test -e {CACHE}; cp -p {CACHE}.aside-1 {CACHE}")).ok();
    machine.unit("copied.target", "[Unit]\nWants=copied@2.service\n");
    machine.systemctl(&["start", "copied.target"]).ok();
    machine.wait("the refusal", || machine.show("copied@2.service", "ActiveState") == "failed", LONG);
    assert_refused(machine, "copied@2.service", "key", "provider");
    assert!(machine.journal_text().contains("it is damaged, or was sealed with another key"));
    // And goes on as any other when it is online.
    simulator.server.clear_faults();
    machine.wait("the unit", || machine.show("copied@2.service", "ActiveState") == "active", 3 * LONG);
    assert_eq!(found(machine, "copied@2.service"), value("OpenAI").into_bytes());
    machine.systemctl(&["stop", "copied.target"]).ok();
    // What was set aside waits for its own host key.
    machine.systemctl(&["stop", "opnix-mirror.service", "opnix.service"]).ok();
    simulator.server.fault("", usize::MAX, Fault::Reset);
    machine.sh(&format!("cp -p /root/host-key {HOST_KEY}; systemctl restart opnix-setup.service")).ok();
    says("the key that was set aside opens again and is back in force, with its cache");
    machine.systemctl(&["start", "copied@3.service"]).ok();
    assert_eq!(found(machine, "copied@3.service"), value("OpenAI").into_bytes());
    machine
        .sh(&format!("test -e {KEY}.aside-2; test -e {CACHE}.aside-2; rm {KEY}.aside-* {CACHE}.aside-*"))
        .ok();
}

pub fn a_thousand_units_at_once_are_served_with_one_fetch_and_again_without_any(machine: &Machine) {
    const SECRETS: usize = 50;
    const EACH: usize = 20;
    let titles: Vec<String> = (1..=SECRETS).map(|number| format!("item-{number}")).collect();
    let items: Vec<(&str, &str)> = titles.iter().map(|title| (title.as_str(), "value")).collect();
    let simulator = one_password(machine, account(&items));
    let secrets: Vec<Value> = (1..=SECRETS)
        .map(|n| entry(&format!("key-{n}"), &format!("item-{n}/value"), &format!("storm-{n}@*.service")))
        .collect();
    set_up_with(machine, &json!({"deadline": "5m", "secrets": secrets}));
    for n in 1..=SECRETS {
        let unit = format!(
            "[Service]\nType=oneshot\nRemainAfterExit=yes\nTimeoutStartSec=10min\nLoadCredential=key-{n}:/run/opnix/creds.sock\n\
             ExecStart=sh -c 'test \"$(cat $CREDENTIALS_DIRECTORY/key-{n})\" = {}'\n",
            value(&format!("item-{n}"))
        );
        machine.unit(&format!("storm-{n}@.service"), &unit);
    }
    let all: Vec<String> =
        (0..SECRETS * EACH).map(|n| format!("storm-{}@{n}.service", n % SECRETS + 1)).collect();
    let all = all.join(" ");
    let active =
        || machine.sh("systemctl list-units --no-legend --plain --state=active 'storm-*@*' | wc -l").ok();
    // 1Password answers when all of them wait.
    simulator.server.fault("POST /api/v3/auth/start", usize::MAX, Fault::Hold);
    machine.sh(&format!("systemctl start --no-block {all}")).ok();
    // With the service's records.
    let waiting = || machine.show("opnix.service", "NFileDescriptorStore");
    machine.wait("all of them to wait", || waiting() == (SECRETS * EACH + 1).to_string(), 10 * LONG);
    // The core waits for 30 seconds; on a slow machine it has begun anew by now.
    let in_vain = simulator.server.requests().len() - 1;
    simulator.server.clear_faults();
    machine.wait("all of them", || active() == (SECRETS * EACH).to_string(), 10 * LONG);
    stored(machine, 0);
    let mut requests = simulator.server.requests();
    // If that counted as an outage, the background asks once whether everything still holds.
    if in_vain > 0 && requests.len() - in_vain > 8 {
        assert_eq!(requests.pop().as_deref(), Some("GET /api/v1/vaults"));
    }
    assert_eq!(requests.len() - in_vain, 8, "{requests:?}");
    assert_eq!(machine.journal(&[&format!("MESSAGE_ID={REFUSED}")]).len(), 0);

    // The next boot, without network: nothing to wait for.
    machine.sh("systemctl stop 'storm-*@*'; systemctl restart opnix.service").ok();
    machine.begin();
    drop(simulator);
    machine.sh(&format!("systemctl start --no-block {all}")).ok();
    machine.wait("all of them again", || active() == (SECRETS * EACH).to_string(), 10 * LONG);
    let journal = machine.journal_text();
    assert!(!journal.contains("from the cache") && !journal.contains("values come from"), "nobody was asked");
    assert_eq!(machine.journal(&[&format!("MESSAGE_ID={REFUSED}")]).len(), 0);
    machine.sh("systemctl stop 'storm-*@*'").ok();
}

/// So that ages go on through a restart of the service by a clock that nobody sets.
pub fn the_service_is_told_which_boot_it_is_in(machine: &Machine) {
    set_up(machine, &[secret("key", &["boot.service"])], &[("key", value("key"))], "30s");
    consumer(machine, "boot.service", "key", "");
    machine.systemctl(&["start", "boot.service"]).ok();
    let of_service = "tr '\\0' '\\n' </proc/$(systemctl show --value -p MainPID opnix.service)/environ";
    let told = machine.sh(&format!("{of_service} | sed -n s/^OPNIX_BOOT=//p")).ok();
    assert_eq!(told, machine.sh("tr -d - </proc/sys/kernel/random/boot_id").ok());
}

pub fn administrators_and_nobody_else_ask_over_the_control_socket(machine: &Machine) {
    set_up(machine, &[secret("key", &["asked.service"])], &[("key", value("key"))], "5s");
    consumer(machine, "asked.service", "key", "");
    machine.systemctl(&["start", "asked.service"]).ok();
    let status = machine.run(&["opnix", "status"]).ok();
    assert!(status.contains("key  fresh"), "{status}");
    write_vault(machine, &[("key", value("changed"))]);
    assert_eq!(machine.run(&["opnix", "refresh"]).ok(), "key  changed");
    assert!(
        machine.run(&["opnix", "explain", "asked.service", "key"]).ok().contains("would be served at once")
    );
    let other =
        machine.run(&["setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups", "opnix", "status"]);
    assert_eq!(other.code, Some(77), "{other}");
    assert!(other.stderr.contains("is for administrators: run this as root"), "{other}");
    // systemd's own client came with 255.
    if machine.systemd_version() < 255 {
        assert_ne!(machine.sh("command -v varlinkctl").code, Some(0));
        return;
    }
    let socket = "/run/opnix/control.sock";
    let info = machine.run(&["varlinkctl", "info", socket]).ok();
    assert!(info.contains("io.opnix"), "{info}");
    let documented = include_str!("../../docs/io.opnix.varlink");
    let interface = machine.run(&["varlinkctl", "introspect", socket, "io.opnix"]).ok();
    for method in ["method Status(", "method Explain(", "method Refresh(", "error UnknownSecret"] {
        assert!(documented.contains(method) && interface.contains(method), "{method} in {interface}");
    }
    machine.write("/run/io.opnix.varlink", documented, "0644");
    machine.run(&["varlinkctl", "validate-idl", "/run/io.opnix.varlink"]).ok();
    let call = |method: &str, parameters: &str| {
        machine.run(&["varlinkctl", "call", "-j", socket, method, parameters])
    };
    let status: Value = serde_json::from_str(&call("io.opnix.Status", "{}").ok()).expect("JSON");
    assert_eq!(status["secrets"][0]["state"], "fresh");
    let refreshed: Value =
        serde_json::from_str(&call("io.opnix.Refresh", "{\"names\":[\"key\"]}").ok()).expect("JSON");
    assert_eq!(refreshed["secrets"][0]["outcome"], "unchanged");
    let unknown = call("io.opnix.Refresh", "{\"names\":[\"nope\"]}");
    assert!(unknown.code != Some(0) && unknown.to_string().contains("UnknownSecret"), "{unknown}");
}
