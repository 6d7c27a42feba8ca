//! The NixOS host of docs/examples: what its module renders, booted.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cache::Disk;
use crate::command::Output;
use crate::machine::Machine;
use crate::nix;
use crate::onepassword::account;
use crate::opnix::{LONG, value};
use crate::simulators::service_account::ServiceAccount;
use crate::user_manager::{USER, as_user, log_in};

const TOKEN: &str = "/root/.config/op/token";
/// Name in /run/secrets, owner, and what it holds.
const FILES: [(&str, &str, &str); 4] = [
    ("openai-api-key", "opencode", "OpenAI"),
    ("datadog-api-key", "opencode", "Datadog"),
    ("cloudflare-token", "caddy", "Cloudflare"),
    ("backblaze-credentials.json", "opencode", "Backblaze"),
];

/// The example's files as NixOS lays them out, opnix where its units name it, its users, and 1Password's core.
fn lay_out(place: &Path, kept: &Path) {
    let host = nix::project().join("tests/nixos/host.nix").display().to_string();
    let faults = nix::evaluate(&host, "faults").expect("it evaluates");
    assert_eq!(faults, json!([]));
    let tree = nix::build(&host, "tree").unwrap_or_else(|why| panic!("{why}"));
    let copy = |from: &Path, to: &Path| {
        fs::create_dir_all(to).expect("a directory");
        let from = from.join(".");
        let output =
            Command::new("cp").args(["-R", "--no-preserve=mode,ownership"]).arg(from).arg(to).output();
        assert!(output.expect("cp").status.success());
    };
    copy(&tree, place);
    copy(&nix::stage(), place);
    let program = place.join("opt/opnix/bin/opnix");
    assert!(Command::new("chmod").arg("0755").arg(program).status().expect("chmod").success());
    fs::create_dir_all(place.join("usr/lib/opnix")).expect("a directory");
    let core = "libop_uniffi_core.so";
    fs::copy(nix::project().join("target/core").join(core), place.join("usr/lib/opnix").join(core))
        .expect("tests/run puts it there");

    let root = std::env::var_os("OPNIX_TEST_ROOT").unwrap_or_else(|| "/".into());
    for (file, lines) in [
        ("etc/passwd", "opencode:x:1801:1801::/:/bin/sh\ncaddy:x:1802:1802::/:/bin/sh\n"),
        ("etc/group", "opencode:x:1801:\ncaddy:x:1802:\nonepassword-secrets:x:1803:opencode\n"),
    ] {
        let text = fs::read_to_string(Path::new(&root).join(file)).expect("every system has it");
        fs::write(place.join(file), text + lines).expect("it can be written");
    }
    // Impermanence makes these at activation.
    let persistence = nix::evaluate(&host, "persistence").expect("it evaluates");
    let directories = persistence["/persist"]["directories"].as_array().expect("a list");
    assert_eq!(directories.len(), 5, "{directories:?}");
    for directory in directories {
        let path = directory["directory"].as_str().or(directory.as_str()).expect("a path");
        fs::create_dir_all(kept.join(&path[1..])).expect("a directory");
    }
}

#[track_caller]
fn everything_is_there(machine: &Machine) {
    let all = |told: &str| told == "All 5 files are in place.";
    machine.wait("the files", || all(&machine.show("opnix-mirror.service", "StatusText")), LONG);
    for (name, owner, item) in FILES {
        let path = format!("/run/secrets/{name}");
        assert_eq!(machine.run(&["stat", "-c", "%U %a", &path]).ok(), format!("{owner} 400"), "{name}");
        assert_eq!(machine.run(&["cat", &path]).ok(), value(item), "{name}");
    }
    let environment =
        format!("OPENAI_API_KEY=\"{}\"\nDATADOG_API_KEY=\"{}\"", value("OpenAI"), value("Datadog"));
    assert_eq!(machine.run(&["cat", "/run/secrets/opencode.env"]).ok(), environment);
    for unit in ["opencode.service", "caddy.service"] {
        machine.wait(unit, || machine.show(unit, "ActiveState") == "active", Duration::from_secs(15));
    }
    assert_eq!(machine.run(&["cat", "/run/caddy.got"]).ok(), value("Cloudflare"));
    assert_eq!(
        machine.run(&["cat", "/run/opencode.got"]).ok(),
        format!("{}{}", value("OpenAI"), value("Datadog"))
    );
}

/// The commands of docs/validation-checklist.md.
fn checklist() -> Vec<&'static str> {
    let text = include_str!("../../docs/validation-checklist.md");
    let commands: Vec<&str> = text
        .split("```sh\n")
        .skip(1)
        .flat_map(|rest| rest.split("```").next().unwrap_or_default().lines())
        .collect();
    assert!(commands.len() >= 9, "{commands:?}");
    commands
}

fn of_the_checklist(machine: &Machine, command: &str) -> Output {
    machine.sh(&format!("PATH={}/bin:$PATH; {command}", nix::PACKAGE))
}

fn every_command_of_the_checklist_is_content(machine: &Machine) {
    for command in checklist() {
        let output = of_the_checklist(machine, command);
        assert_eq!(output.code, Some(0), "{command}: {}", output.text());
    }
}

/// Without a token nothing is well that rests on one.
fn the_checklist_sees_that_there_is_no_token(machine: &Machine) {
    let looks = ["doctor", "status", "refresh", "explain", "StatusText", "stat --format", "op/token"];
    for look in looks {
        let command = checklist().into_iter().find(|command| command.contains(look)).expect(look);
        let output = of_the_checklist(machine, command);
        assert_ne!(output.code, Some(0), "{command}: {}", output.text());
    }
}

pub fn the_example_host_boots_with_and_without_its_token_and_network(_: &Machine) {
    let (place, disk) = (Disk::new("host-files"), Disk::new("host"));
    lay_out(&place.0, &disk.0.join("persist"));
    let items = [
        ("OpenAI", "credential"),
        ("Datadog", "credential"),
        ("Cloudflare", "token"),
        ("Backblaze", "credentials"),
    ];

    // No token yet: the machine boots, nothing starts without its secrets, and status says what is missing.
    let machine = Machine::boot_host(&place.0, &disk.0);
    machine.begin();
    for (unit, why) in [("opencode.service", "assert"), ("caddy.service", "assert")] {
        assert_eq!(machine.show(unit, "ActiveState"), "inactive", "{unit}");
        assert_eq!(machine.show(unit, "AssertResult"), "no", "{unit}: {why}");
    }
    assert_eq!(machine.show("multi-user.target", "ActiveState"), "active");
    let said = machine.run(&[
        "systemd-analyze",
        "verify",
        "--man=no",
        "opnix.service",
        "opnix-mirror.service",
        "opencode.service",
        "caddy.service",
        "opnix.socket",
    ]);
    assert_eq!((said.code, said.text()), (Some(0), String::new()));
    let opnix =
        |arguments: &str| machine.sh(&format!("{}/bin/opnix {arguments} 2>&1 || true", nix::PACKAGE)).ok();
    assert!(opnix("status").contains("there is no token"), "{}", opnix("status"));

    let missing = opnix("doctor");
    assert!(missing.contains(&format!("fault    token: {TOKEN}: No such file")), "{missing}");

    the_checklist_sees_that_there_is_no_token(&machine);

    // One that is in memory is said to be, and one that all can read is a fault.
    machine.write("/run/volatile-token", "made-up", "0604");
    let volatile = opnix("doctor --token-file /run/volatile-token");
    assert!(volatile.contains("warning  token: /run/volatile-token is in memory, and gone"), "{volatile}");
    assert!(volatile.contains("fault    token: all users can get at /run/volatile-token"), "{volatile}");

    // The token comes; it is where the reboot does not reach it.
    let simulator = ServiceAccount::start(machine.listen(), account(&items));
    machine.write(TOKEN, simulator.token(), "0600");
    machine.run(&["test", "-e", &format!("/persist{TOKEN}")]).ok();
    machine.systemctl(&["restart", "opnix.service"]).ok();
    everything_is_there(&machine);
    every_command_of_the_checklist_is_content(&machine);

    // What `nixos-rebuild switch` does for an upgrade: by X-StopIfChanged=false, a restart. No consumer is restarted with it.
    let runs = || ["caddy.service", "opencode.service"].map(|unit| machine.show(unit, "InvocationID"));
    let before = runs();
    let ours = [
        "opnix-setup.service",
        "opnix-key.service",
        "opnix-mount.service",
        "opnix-mirror.service",
        "opnix.service",
    ];
    machine.systemctl(&[&["restart"][..], &ours].concat()).ok();
    assert_eq!(runs(), before);
    everything_is_there(&machine);
    assert_eq!(simulator.violations(), [""; 0]);
    machine.run(&["sync"]).ok();
    drop(simulator);
    drop(machine);
    for (_, _, item) in FILES {
        let found = Command::new("grep").args(["-rlF", &value(item)]).arg(&disk.0).output().expect("grep");
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "plain text on the disk");
    }

    // The next boot has no network, and no 1Password: all of it again, from the sealed cache.
    let machine = Machine::boot_host(&place.0, &disk.0);
    machine.begin();
    everything_is_there(&machine);
    machine.run(&["cat", TOKEN]).ok();
    drop(machine);

    // Nor has the next one anything that was kept: so there is nothing, and the machine boots.
    fs::remove_dir_all(disk.0.join("persist/var/lib/private/opnix")).expect("the cache");
    fs::create_dir_all(disk.0.join("persist/var/lib/private/opnix")).expect("a directory");
    fs::remove_file(disk.0.join(format!("persist{TOKEN}"))).expect("the token");
    let machine = Machine::boot_host(&place.0, &disk.0);
    machine.begin();
    assert_eq!(machine.sh("ls /run/secrets").ok(), "");
    assert_eq!(machine.show("opencode.service", "ActiveState"), "inactive");
    assert_eq!(machine.show("multi-user.target", "ActiveState"), "active");
}

pub fn a_host_that_boots_while_1password_is_down_comes_up_by_itself(_: &Machine) {
    const PORT: u16 = 4711;
    // tests/long/outage takes its time.
    let down = std::env::var("OPNIX_DOWN").ok().and_then(|seconds| seconds.parse().ok());
    let down = Duration::from_secs(down.unwrap_or(60));
    let (place, disk) = (Disk::new("host-files"), Disk::new("host"));
    let kept = disk.0.join("persist");
    lay_out(&place.0, &kept);
    let items = [
        ("OpenAI", "credential"),
        ("Datadog", "credential"),
        ("Cloudflare", "token"),
        ("Backblaze", "credentials"),
    ];
    let elsewhere = ServiceAccount::local(account(&items));
    let token = kept.join(&TOKEN[1..]);
    fs::create_dir_all(token.parent().expect("a directory")).expect("a directory");
    fs::write(&token, elsewhere.token_for(&format!("http://127.0.0.1:{PORT}"))).expect("the token");

    let began = Instant::now();
    let machine = Machine::boot_host(&place.0, &disk.0);
    machine.begin();
    while began.elapsed() < down {
        for unit in ["opencode.service", "caddy.service"] {
            assert_ne!(machine.show(unit, "ActiveState"), "active", "{unit}");
        }
        std::thread::sleep(Duration::from_secs(3));
    }
    assert_eq!(machine.sh("ls /run/secrets").ok(), "");
    let status = machine.sh(&format!("{}/bin/opnix status 2>&1 || true", nix::PACKAGE)).ok();
    assert!(status.contains("DOES NOT WORK since") && status.contains("last tried"), "{status}");
    assert!(status.contains("next try   in "), "{status}");

    let simulator = elsewhere.reached_at(machine.listen_on(PORT));
    let back = Instant::now();
    let is_up = |unit: &str| machine.show(unit, "ActiveState") == "active";
    // It is asked once a minute.
    machine.wait("the host", || is_up("opencode.service") && is_up("caddy.service"), 3 * LONG);
    eprintln!("up {:?} after 1Password was back", back.elapsed());
    everything_is_there(&machine);
    assert_eq!(machine.systemctl(&["--failed", "--no-legend"]).ok(), "");
    assert_eq!(machine.systemctl(&["is-system-running"]).ok(), "running");
    assert_eq!(simulator.violations(), [""; 0]);
}

/// A unit file, from sections of settings.
fn unit_file(unit: &Value) -> String {
    let mut text = String::new();
    for (section, settings) in unit.as_object().expect("sections") {
        text += &format!("[{section}]\n");
        for (key, value) in settings.as_object().expect("settings") {
            let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
            for value in values {
                text += &format!("{key}={}\n", value.as_str().map_or(value.to_string(), str::to_owned));
            }
        }
    }
    text
}

pub fn the_home_manager_module_serves_a_users_units_and_files(machine: &Machine) {
    let uid = log_in(machine);
    let home = format!("/home/{USER}");
    let with = |reference: &str, more: &str| {
        format!(
            r#"{{
            home.homeDirectory = "{home}";
            systemd.user.systemctlPath = "/usr/bin/systemctl";
            programs.onepassword-secrets = {{
                enable = true;
                tokenFile = "{home}/token";
                deadline = "3s";
                settings.provider = {{ kind = "local"; path = "{home}/vault.json"; }};
                secrets.sshKey = {{ reference = "op://Vault/ssh/value"; path = ".keys/id"; mode = "0400"; services = [ "reads" ]; }};
                {more}
                units.backup.key = {{ reference = "{reference}"; onChange = "restart"; }};
            }};
            systemd.user.services.backup = {{
                Install.WantedBy = [ "default.target" ];
                Service = {{ Type = "exec"; ExecStart = "/bin/sh -c 'cat $CREDENTIALS_DIRECTORY/key >%t/backup.got; exec sleep infinity'"; }};
            }};
            systemd.user.services.reads = {{
                Install.WantedBy = [ "default.target" ];
                Service = {{ Type = "exec"; ExecStart = "/bin/sh -c 'cat ~/.keys/id >%t/reads.got; exec sleep infinity'"; }};
            }};
        }}"#
        )
    };
    machine.sh(&format!("mkdir -p {0}/bin && ln -sf /usr/bin/opnix {0}/bin/opnix", nix::PACKAGE)).ok();
    let item = |name: &str| json!({"title": name, "fields": [{"label": "value", "value": value(name)}]});
    let vault = json!({"vaults": [{"name": "Vault", "items": [item("ssh"), item("backup"), item("other"), item("more")]}]});
    machine.write(&format!("{home}/vault.json"), vault.to_string(), "0600");
    install_home(machine, &home, &with("op://Vault/backup/value", ""));
    let user = |script: &str| as_user(machine, &uid, script);
    // What OpNix left there, which nobody is to read any more.
    machine.sh(&format!("install -d -o {USER} -g {USER} {home}/.keys; echo old >{home}/.keys/id")).ok();
    user("systemctl --user daemon-reload; systemctl --user start opnix.socket opnix-control.socket opnix-mirror.service").ok();
    user("systemctl --user start reads.service").fails();
    user("systemctl --user reload opnix-mirror.service").fails();
    machine.sh(&format!("rm {home}/.keys/id")).ok();
    machine.wait("the link", || user("test -L ~/.keys/id").code == Some(0), LONG);
    let started = user(
        "systemctl --user daemon-reload; systemctl --user start opnix.socket opnix-control.socket opnix-mirror.service backup.service reads.service",
    );
    assert_eq!(started.code, Some(0), "{}\n{}", started.text(), machine.journal_text());
    let got = || user("cat $XDG_RUNTIME_DIR/backup.got $XDG_RUNTIME_DIR/reads.got").text();
    machine.wait("their values", || got() == format!("{}{}", value("backup"), value("ssh")), LONG);
    // A link into memory: nothing of it is in the user's home.
    let file = format!("/run/user/{uid}/secrets/.keys/id");
    assert_eq!(machine.run(&["readlink", &format!("{home}/.keys/id")]).ok(), file);
    assert_eq!(machine.run(&["stat", "-c", "%U %a", &file]).ok(), format!("{USER} 400"));
    // For units that wait for OpNix's.
    user("systemctl --user start opnix-secrets.service; systemctl --user is-active opnix-secrets.service")
        .ok();
    let service = user("systemctl --user show --value --property=MainPID opnix.service").ok();

    // What home-manager does when it switches, by sd-switch: it stops what is another unit, and then reloads what has other triggers and
    // starts what it stopped at the same time.
    install_home(
        machine,
        &home,
        &with("op://Vault/other/value", r#"secrets.more = { reference = "op://Vault/more/value"; };"#),
    );
    user("systemctl --user stop backup.service; systemctl --user daemon-reload; systemctl --user reload --no-block opnix-mirror.service opnix.service; systemctl --user start backup.service").ok();
    machine.wait("the other secret", || got() == format!("{}{}", value("other"), value("ssh")), LONG);
    machine.wait("the new file", || user("cat ~/more").text() == value("more"), LONG);
    assert_eq!(
        user("systemctl --user show --value --property=MainPID opnix.service").ok(),
        service,
        "nobody who waits is refused"
    );
    // Its other half, as a restart of the one does.
    user("systemctl --user restart opnix.service; systemctl --user is-active backup.service reads.service")
        .ok();
    let doctor = user("opnix doctor --user --offline").ok();
    assert!(doctor.contains("2 files, each where it is to be"), "{doctor}");
    user("systemctl --user stop opnix.socket opnix-control.socket opnix.service opnix-mirror.service backup.service reads.service").ok();
    machine.systemctl(&["stop", &format!("user@{uid}.service")]).ok();
    machine.sh(&format!("rm -r {home}/.config {home}/vault.json")).ok();
}

/// What home-manager would put below the home directory.
fn install_home(machine: &Machine, home: &str, module: &str) {
    let units = nix::build(module, "home.units").unwrap_or_else(|why| panic!("{why}"));
    let all: Value = serde_json::from_str(&fs::read_to_string(units).expect("it was built")).expect("JSON");
    for (kind, suffix) in [("services", "service"), ("sockets", "socket")] {
        for (name, unit) in all[kind].as_object().expect("units") {
            machine.write(&format!("{home}/.config/systemd/user/{name}.{suffix}"), unit_file(unit), "0644");
        }
    }
    for (name, file) in all["configFile"].as_object().expect("files") {
        let text = match (file["text"].as_str(), file["source"].as_str()) {
            (Some(text), _) => text.to_owned(),
            (None, Some(source)) => fs::read_to_string(source).expect("it was built"),
            (None, None) => panic!("{name}: {file}"),
        };
        machine.write(&format!("{home}/.config/{name}"), text, "0644");
    }
    machine.sh(&format!("chown -R {USER}: {home}")).ok();
}
