//! opnix for the units of one user: `opnix serve --user` below that user's own service manager.

use serde_json::json;

use crate::machine::Machine;
use crate::opnix::*;

pub const USER: &str = "alice";

/// A user with a service manager at work.
pub fn log_in(machine: &Machine) -> String {
    machine.sh(&format!("id {USER} 2>/dev/null || useradd --create-home {USER}")).ok();
    let uid = machine.sh(&format!("id -u {USER}")).ok();
    machine.systemctl(&["start", &format!("user@{uid}.service")]).ok();
    uid
}

/// As that user.
pub fn as_user(machine: &Machine, uid: &str, script: &str) -> crate::command::Output {
    let runtime = format!("XDG_RUNTIME_DIR=/run/user/{uid}");
    machine.run(&[
        "setpriv",
        &format!("--reuid={uid}"),
        &format!("--regid={uid}"),
        "--clear-groups",
        "env",
        &runtime,
        &format!("HOME=/home/{USER}"),
        "sh",
        "-euc",
        script,
    ])
}

/// Where alice has what, with her uid.
struct Home<'m> {
    machine: &'m Machine,
    uid: String,
    units: String,
    socket: String,
}

impl<'m> Home<'m> {
    /// With a configuration of these, and with values as [`value`] has them.
    fn new(machine: &'m Machine, config: &serde_json::Value) -> Self {
        let uid = log_in(machine);
        let home = Self {
            machine,
            units: format!("/home/{USER}/.config/systemd/user"),
            socket: format!("/run/user/{uid}/opnix/creds.sock"),
            uid,
        };
        let _ = home.sh("systemctl --user stop 'opnix*' || true; rm -rf ~/.config/opnix $XDG_RUNTIME_DIR/opnix* ~/.config/systemd");
        home.configure(config);
        home
    }

    fn configure(&self, config: &serde_json::Value) {
        self.write(&format!("/home/{USER}/.config/opnix/secrets.json"), &config.to_string());
    }

    fn values(&self, values: &[(&str, &str)]) {
        let items: Vec<_> = values
            .iter()
            .map(|(name, value)| json!({"title": name, "fields": [{"label": "value", "value": value}]}))
            .collect();
        let vault = json!({"vaults": [{"name": "Vault", "items": items}]});
        self.write(&format!("/home/{USER}/.config/opnix/vault.json"), &vault.to_string());
    }

    fn write(&self, path: &str, text: &str) {
        let directory = path.rsplit_once('/').map_or("/", |(directory, _)| directory);
        self.machine.sh(&format!("install -d -o {USER} -g {USER} /home/{USER}/.config {directory}")).ok();
        self.machine.write(path, text, "0600");
        self.machine.sh(&format!("chown {USER}: {path}")).ok();
    }

    fn unit(&self, name: &str, text: &str) {
        self.write(&format!("{}/{name}", self.units), text);
    }

    fn sh(&self, script: &str) -> crate::command::Output {
        as_user(self.machine, &self.uid, script)
    }

    fn show(&self, unit: &str, property: &str) -> String {
        self.sh(&format!("systemctl --user show --value --property={property} {unit}")).ok()
    }

    fn log_out(&self) {
        self.machine
            .systemctl(&[
                "stop",
                &format!("user@{}.service", self.uid),
                &format!("user-runtime-dir@{}.service", self.uid),
            ])
            .ok();
    }
}

pub fn a_users_units_get_their_secrets_and_nobody_else_does(machine: &Machine) {
    let config = json!({
        "provider": {"kind": "local", "path": "vault.json"},
        "secrets": [{"name": "key", "reference": "op://Vault/key/value", "units": ["mine.service", "forged.service"]}],
    });
    let home = Home::new(machine, &config);
    home.values(&[("key", &value("key"))]);
    let Home { uid, socket, .. } = &home;
    home.unit(
        "mine.service",
        &format!(
            "[Service]\nType=oneshot\nRemainAfterExit=yes\nLoadCredential=key:{socket}\nExecStart=sh -c 'cat $CREDENTIALS_DIRECTORY/key'\nStandardOutput=truncate:/home/{USER}/got\n"
        ),
    );
    home.sh("systemctl --user daemon-reload; systemctl --user start opnix.socket mine.service").ok();
    assert_eq!(machine.run(&["cat", &format!("/home/{USER}/got")]).stdout, value("key").into_bytes());

    // One that is refused is told why in its own journal. Who reads it is in the group that may, as where the journal is in memory.
    let wrong = format!("[Service]\nType=exec\nLoadCredential=kye:{socket}\nExecStart=sleep infinity\n");
    home.unit("wrong.service", &wrong);
    home.sh("systemctl --user daemon-reload; systemctl --user start wrong.service").fails();
    let shown = || {
        let status = "systemctl --user status --no-pager wrong.service; journalctl --user-unit wrong.service --output=cat";
        let (reuid, regid) = (format!("--reuid={uid}"), format!("--regid={uid}"));
        let runtime = format!("XDG_RUNTIME_DIR=/run/user/{uid}");
        let reader =
            ["setpriv", &reuid, &regid, "--groups=systemd-journal", "env", &runtime, "sh", "-c", status];
        machine.run(&reader).text()
    };
    let line = "opnix refused wrong.service the credential \"kye\": no secret is configured under this credential name. \
                See: opnix explain --user wrong.service kye";
    machine.wait("its line", || shown().matches(line).count() == 2, LONG);

    // A process of the same user that is in another unit, and root, which is another user.
    let ask = format!(
        "import socket\n\
        s = socket.socket(socket.AF_UNIX); s.bind('\\0' + '3' * 16 + '/unit/forged.service/key')\n\
        s.connect('{socket}'); s.shutdown(socket.SHUT_WR)\n\
        data = b''\n\
        while True:\n    part = s.recv(65536)\n    if not part: break\n    data += part\n\
        print(len(data), data.strip(b'\\0'))\n"
    );
    machine.write("/run/ask.py", ask, "0644");
    let refused = "1048577 b''";
    // Not by systemd-run, which wants a message bus of the user's own.
    let forger = format!(
        "[Service]\nType=oneshot\nExecStart=python3 /run/ask.py\nStandardOutput=truncate:/home/{USER}/forged\n"
    );
    home.unit("forger.service", &forger);
    home.sh("systemctl --user daemon-reload; systemctl --user start forger.service").ok();
    assert_eq!(machine.run(&["cat", &format!("/home/{USER}/forged")]).ok(), refused);
    assert_eq!(
        machine.sh("systemd-run --quiet --wait --pipe --unit=forged python3 /run/ask.py").ok(),
        refused
    );
    let checks =
        machine.journal(&[&format!("MESSAGE_ID={REFUSED}"), "OPNIX_UNIT=forged.service", "OPNIX_CHECK=peer"]);
    assert_eq!(checks.len(), 2, "{checks:?}");

    let has_bus = home.sh("systemd-run --user --quiet --wait true").code == Some(0);
    let how = if has_bus { "real units of your own service manager" } else { "connects exactly as systemd" };
    let shown = home.sh("opnix demo").ok();
    assert!(shown.contains(how), "{shown}");
    home.log_out();
}

pub fn a_users_files_and_units_are_kept_current_and_come_up_whenever_1password_does(machine: &Machine) {
    let file = |name: &str, path: &str, more: serde_json::Value| {
        let mut file = json!({"name": name, "reference": format!("op://Vault/{name}/value"), "path": path});
        file.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        file
    };
    let config = json!({
        "provider": {"kind": "local", "path": "vault.json"}, "deadline": "3s", "link_root": format!("/home/{USER}"),
        "secrets": [
            file("file", "keys/file", json!({"services": ["reads.service"]})),
            {"name": "held", "reference": "op://Vault/held/value",
                "units": [{"unit": "holds.service", "on_change": "restart"}]},
        ],
    });
    let home = Home::new(machine, &config);
    let Home { uid, socket, .. } = &home;
    let memory = format!("/run/user/{uid}/secrets/keys/file");
    home.values(&[("file", "one"), ("held", "one")]);
    home.unit(
        "reads.service",
        "[Unit]\nWants=opnix-mirror.service\nAfter=opnix-mirror.service\nAssertPathExists=%t/secrets/keys/file\n\
         [Service]\nType=exec\nExecStart=sh -c 'cat %t/secrets/keys/file >%t/read; exec sleep infinity'\n[Install]\nWantedBy=default.target\n",
    );
    home.unit(
        "holds.service",
        &format!(
            "[Service]\nType=exec\nLoadCredential=held:{socket}\nExecStart=sh -c 'cat $CREDENTIALS_DIRECTORY/held >%t/held; exec sleep infinity'\n\
             [Install]\nWantedBy=default.target\n"
        ),
    );
    let begin = "systemctl --user daemon-reload; systemctl --user enable --now opnix.socket opnix-control.socket opnix-mirror.service; \
                 systemctl --user enable --now reads.service holds.service";
    home.sh(begin).ok();
    assert_eq!(
        home.sh(&format!("cat {memory} ~/keys/file; stat -c '%U %a' {memory}; readlink ~/keys/file")).ok(),
        format!("oneone{USER} 600\n{memory}")
    );
    let have = |value: &str| {
        home.sh("cat $XDG_RUNTIME_DIR/read $XDG_RUNTIME_DIR/held").text() == format!("{value}{value}")
    };
    machine.wait("what it read", || have("one"), LONG);
    // One look says all; nothing of the system's is asked.
    let status = home.sh("opnix status --user").ok();
    assert!(status.contains(&memory) && status.contains("mirror     runs"), "{status}");
    let doctor = home.sh("opnix doctor --user --offline").ok();
    assert!(doctor.contains("1 file, each where it is to be"), "{doctor}");
    // Who has an old value is told.
    home.values(&[("file", "two"), ("held", "two")]);
    home.sh("opnix refresh --user").ok();
    machine.wait("the new values", || have("two"), LONG);
    assert_eq!(home.sh(&format!("cat {memory}")).ok(), "two");
    // What is new in the configuration is there when the reload is over; what cannot be had fails it, and is named.
    let mut more = config.clone();
    more["secrets"].as_array_mut().expect("a list").push(file("more", "more", json!({})));
    home.configure(&more);
    home.values(&[("file", "two"), ("held", "two"), ("more", "more")]);
    home.sh("systemctl --user reload opnix.service opnix-mirror.service").ok();
    assert_eq!(home.sh("cat ~/more").ok(), "more");
    more["secrets"].as_array_mut().expect("a list").push(file("missing", "missing", json!({})));
    home.configure(&more);
    home.sh("systemctl --user reload opnix-mirror.service").fails();
    let said =
        machine.sh("journalctl _SYSTEMD_USER_UNIT=opnix-mirror.service --output=cat --lines=20").text();
    assert!(said.contains("secrets/missing is not there: "), "{said}");
    // Only the user's own memory is gone after the logout.
    let mut elsewhere = config.clone();
    elsewhere["mirror_root"] = json!("/run/elsewhere");
    home.configure(&elsewhere);
    home.sh("systemctl --user reload opnix.service opnix-mirror.service").fails();
    assert!(home.sh("opnix status --user").text().contains("/run/elsewhere is not below /run/user/"));
    // A link goes with its secret.
    home.configure(&config);
    home.sh("systemctl --user reload opnix.service opnix-mirror.service").ok();
    home.sh("test ! -L ~/more && test ! -e $XDG_RUNTIME_DIR/secrets/more && test -L ~/keys/file").ok();

    // Who logs in while 1Password is away gets all of it when it is back.
    home.log_out();
    assert_eq!(machine.run(&["test", "-e", &memory]).code, Some(1));
    home.write(&format!("/home/{USER}/.config/opnix/vault.json"), "away");
    log_in(machine);
    machine.wait(
        "the failure",
        || {
            home.show("holds.service", "Result") == "exit-code"
                || home.show("holds.service", "NRestarts") != "0"
        },
        LONG,
    );
    machine.wait("the assertion", || home.show("reads.service", "AssertResult") == "no", LONG);
    let doctor = home.sh("opnix doctor --user --offline");
    assert!(doctor.code == Some(69) && doctor.text().contains(&format!("{memory} is not there")), "{doctor}");
    assert!(doctor.text().contains("systemctl --user "), "{doctor}");
    home.values(&[("file", "three"), ("held", "three")]);
    machine.wait("them to come up by themselves", || have("three"), LONG);
    assert_eq!(home.sh("systemctl --user is-active reads.service holds.service").ok(), "active\nactive");
    home.sh("systemctl --user disable --now reads.service holds.service opnix.socket opnix-control.socket opnix-mirror.service").ok();
    home.log_out();
}

/// The end of a connection is an empty secret to systemd, and so nobody closes it: not a service that is killed, hangs, does not
/// come up again, or is stopped.
pub fn a_users_unit_that_waits_is_never_started_without_its_secret(machine: &Machine) {
    let config = json!({"provider": {"kind": "connect", "host": "http://127.0.0.1:1"}, "deadline": "5m",
        "secrets": [{"name": "key", "reference": "op://Vault/key/value", "units": ["waits.service"]}]});
    let home = Home::new(machine, &config);
    let Home { socket, .. } = &home;
    home.write(&format!("/home/{USER}/.config/opnix/token"), "made-up-token");
    home.unit(
        "waits.service",
        &format!("[Service]\nType=exec\nTimeoutStartSec=infinity\nLoadCredential=key:{socket}\nExecStart=sh -c 'touch %t/started; exec sleep infinity'\n"),
    );
    home.sh("systemctl --user daemon-reload; systemctl --user start opnix.socket opnix-control.socket").ok();
    let begin = || {
        home.sh("systemctl --user start --no-block waits.service").ok();
        machine.wait("the request", || home.show("opnix.service", "NFileDescriptorStore") != "0", LONG);
    };
    let still_waits = |what: &str| {
        home.sh("test ! -e $XDG_RUNTIME_DIR/started").ok();
        assert_eq!(home.show("waits.service", "ActiveState"), "activating", "{what}");
    };
    begin();
    for kill in
        ["--signal=KILL --kill-whom=main", "--signal=KILL --kill-whom=all", "--signal=STOP --kill-whom=all"]
    {
        let before = home.show("opnix.service", "InvocationID");
        home.sh(&format!("systemctl --user kill {kill} opnix.service")).ok();
        if kill.contains("STOP") {
            home.sh("systemctl --user restart opnix.service").ok();
        }
        machine.wait(
            "the next instance",
            || {
                home.show("opnix.service", "InvocationID") != before
                    && home.show("opnix.service", "ActiveState") == "active"
            },
            LONG,
        );
        still_waits(kill);
    }
    for action in ["restart", "reload"] {
        home.sh(&format!("systemctl --user {action} opnix.service")).ok();
        still_waits(action);
    }
    // Whoever stops it has it refused.
    home.sh("systemctl --user stop opnix.service").ok();
    machine.wait("the refusal", || home.show("waits.service", "ActiveState") == "failed", LONG);
    home.sh("test ! -e $XDG_RUNTIME_DIR/started").ok();
    // One that does not come up, and is stopped then, leaves it with systemd; the older ones let go of it (docs/threat-model.md).
    if machine.systemd_version() >= 254 {
        home.sh("systemctl --user reset-failed; systemctl --user start opnix.service").ok();
        begin();
        home.unit("opnix.service.d/dead.conf", "[Service]\nExecStart=\nExecStart=/bin/false\n");
        home.sh("systemctl --user daemon-reload; systemctl --user kill --signal=KILL --kill-whom=all opnix.service").ok();
        machine.wait(
            "its end",
            || home.show("opnix.service", "NRestarts").parse::<u32>().is_ok_and(|times| times > 2),
            LONG,
        );
        home.sh("systemctl --user stop opnix.service; sleep 1").ok();
        still_waits("a stop of a service that does not start");
        home.sh("systemctl --user stop waits.service").ok();
        home.sh("test ! -e $XDG_RUNTIME_DIR/started").ok();
    }
    home.log_out();
}

pub fn what_the_documentation_says_to_users_works(machine: &Machine) {
    let text = include_str!("../../docs/user-units.md");
    let fences = |language: &str| -> Vec<&str> {
        let begin = format!("```{language}\n");
        text.split(&begin).skip(1).filter_map(|rest| rest.split("```").next()).collect()
    };
    let [config] = fences("json")[..] else { panic!("one configuration") };
    let [begin, end] = fences("sh")[..] else { panic!("how to begin and to end") };
    // Of another provider, which needs no account.
    let home = Home::new(machine, &json!({}));
    home.sh("rm -r ~/.config/opnix").ok();
    let mut ran = 0;
    for command in begin.lines().map(|line| line.split("  #").next().unwrap_or(line)) {
        match command {
            "editor ~/.config/opnix/secrets.json" => {
                home.write(&format!("/home/{USER}/.config/opnix/secrets.json"), config);
                let item = |name: &str, field: &str| json!({"title": name, "fields": [{"label": field, "value": value(name)}]});
                let vault = json!({"vaults": [{"name": "Personal", "items": [item("Backup", "password"), item("SSH", "private key")]}]});
                home.write(&format!("/home/{USER}/.config/opnix/vault"), &vault.to_string());
                let provider = json!({"provider": {"kind": "local", "path": format!("/home/{USER}/.config/opnix/vault")}});
                home.write(
                    &format!("/home/{USER}/.config/opnix/secrets.d/provider.json"),
                    &provider.to_string(),
                );
                for unit in fences("ini") {
                    let (path, lines) = unit.split_once('\n').expect("where it goes");
                    let path = path.strip_prefix("# ~").expect("below the home directory");
                    home.write(&format!("/home/{USER}{path}"), lines);
                }
            }
            command => drop(home.sh(&format!("echo made-up-token | ({command})")).ok()),
        }
        ran += 1;
    }
    assert_eq!(ran, 6);
    assert_eq!(
        home.sh("stat -c %a ~/.config/opnix/token; cat ~/.ssh/id_ed25519").ok(),
        format!("600\n{}", value("SSH"))
    );
    home.unit("backup.service", "[Service]\nType=exec\nExecStart=sh -c 'cat $CREDENTIALS_DIRECTORY/backup-key >%t/got; exec sleep infinity'\n");
    home.unit("ssh-agent.service", "[Service]\nType=exec\nExecStart=sleep infinity\n");
    home.sh("opnix check --user --units ~/.config/systemd/user").ok();
    home.sh("systemctl --user daemon-reload; systemctl --user start backup.service ssh-agent.service").ok();
    machine.wait("its credential", || home.sh("cat $XDG_RUNTIME_DIR/got").text() == value("Backup"), LONG);
    home.sh("systemctl --user stop backup.service ssh-agent.service").ok();
    end.lines().for_each(|command| drop(home.sh(command).ok()));
    home.sh("test ! -e $XDG_RUNTIME_DIR/secrets && test ! -e $XDG_RUNTIME_DIR/opnix").ok();
    home.sh("systemctl --user start backup.service").fails();
    home.log_out();
}
