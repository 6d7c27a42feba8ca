//! `nixos-rebuild switch`, in the order of switch-to-configuration, between systems that the module renders: what ran before
//! runs after, with the right secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::Disk;
use crate::machine::Machine;
use crate::nix;
use crate::opnix::{LONG, value};
use crate::simulators::account::{Account, FieldValue};
use crate::simulators::connect::{Connect, TOKEN};

const PORT: u16 = 4712;
const TOKEN_FILE: &str = "/root/.config/op/token";
/// As a path in its store tells one package from another.
const NEXT_PACKAGE: &str = "/opt/opnix-next";

/// A system as a test makes it: options of opnix, and what the consumers say of their secrets. Each shows what it got.
struct System {
    opnix: String,
    web: &'static str,
    api: &'static str,
    agent: &'static str,
    /// The name of the unit `api`.
    api_name: &'static str,
    package: &'static str,
}

impl System {
    fn new() -> Self {
        Self {
            opnix: with_token(TOKEN_FILE),
            web: r#"secrets.token = { reference = "op://Infrastructure Secrets/Web/one"; services = [ "web" ]; };"#,
            api: r#"key = "op://Infrastructure Secrets/Api/one";"#,
            agent: r#"KEY = "op://Infrastructure Secrets/Agent/one";"#,
            api_name: "api",
            package: nix::PACKAGE,
        }
    }

    fn module(&self) -> String {
        let Self { opnix, web, api, agent, api_name, .. } = self;
        // It goes on running, so that it is seen who was restarted.
        let shows = |what: &str, unit: &str| {
            format!(
                "serviceConfig = {{ Type = \"exec\"; StandardOutput = \"truncate:/run/{unit}.got\"; \
                 ExecStart = \"/bin/sh -c '{what}; exec sleep infinity'\"; }};"
            )
        };
        let (web_shows, api_shows, agent_shows) = (
            shows("cat /run/secrets/token /run/secrets/user 2>/dev/null", "web"),
            shows("cat $CREDENTIALS_DIRECTORY/key $CREDENTIALS_DIRECTORY/other 2>/dev/null", api_name),
            shows("env | grep ^KEY | sort", "agent"),
        );
        format!(
            r#"{{
                services.onepassword-secrets = {{ {opnix} {web} }};
                systemd.services.web = {{ wantedBy = [ "multi-user.target" ]; {web_shows} }};
                systemd.services.{api_name} = {{
                    wantedBy = [ "multi-user.target" ];
                    stopIfChanged = false;
                    onepassword.credentials = {{ {api} }};
                    {api_shows}
                }};
                systemd.services.agent = {{
                    wantedBy = [ "multi-user.target" ];
                    onepassword.environment = {{ {agent} }};
                    {agent_shows}
                }};
            }}"#
        )
    }

    fn build(&self) -> PathBuf {
        nix::build(&self.module(), "tree").unwrap_or_else(|why| panic!("{why}"))
    }
}

fn with_token(file: &str) -> String {
    format!(
        "enable = true; tokenFile = \"{file}\"; shortDeadline = \"2s\"; deadline = \"5s\";
         provider.connect.host = \"http://127.0.0.1:{PORT}\";"
    )
}

/// The unit files of a system: by the name of the unit, its text and its drop-ins.
fn units(tree: &Path) -> BTreeMap<String, String> {
    let directory = tree.join("etc/systemd/system");
    let mut units: BTreeMap<String, String> = BTreeMap::new();
    let entries = fs::read_dir(&directory).expect("its units").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = entries.filter(|path| !path.is_symlink()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let (unit, files) = match name.strip_suffix(".d") {
            Some(unit) => {
                let files =
                    fs::read_dir(&path).expect("drop-ins").map(|entry| entry.expect("an entry").path());
                (unit.to_owned(), files.collect())
            }
            None if path.is_file() => (name, vec![path]),
            None => continue,
        };
        let mut files: Vec<PathBuf> = files;
        files.sort();
        for file in files {
            *units.entry(unit.clone()).or_default() += &fs::read_to_string(file).expect("text");
        }
    }
    units
}

/// What switch-to-configuration does with a unit that runs and is another one afterwards.
fn is_only_a_reload(before: &str, after: &str) -> bool {
    let rest = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with("X-Reload-Triggers=")).map(str::to_owned).collect()
    };
    rest(before) == rest(after)
}

/// A machine, and the system that it has.
struct Host {
    machine: Machine,
    system: PathBuf,
    units: BTreeMap<String, String>,
    _place: Disk,
    _disk: Disk,
}

impl Host {
    /// Boots with a system.
    fn boot(system: &System) -> Self {
        let (place, disk) = (Disk::new("switch-files"), Disk::new("switch"));
        let tree = system.build();
        copy(&tree, &place.0);
        copy_referred(&tree, &place.0);
        copy(&nix::stage(), &place.0);
        let program = place.0.join("opt/opnix/bin/opnix");
        assert!(Command::new("chmod").arg("0755").arg(program).status().expect("chmod").success());
        let machine = Machine::boot_host(&place.0, &disk.0);
        machine.begin();
        machine.sh(&format!("cp -a {} {NEXT_PACKAGE}", nix::PACKAGE)).ok();
        machine.write(TOKEN_FILE, TOKEN, "0600");
        Self { machine, units: units(&tree), system: tree, _place: place, _disk: disk }
    }

    /// `switch-to-configuration switch`: what changed is stopped, /etc is another one, and then come the reload list, the restart
    /// list and the start list. Returns whether it ends with 0.
    fn switch(&mut self, system: &System) -> bool {
        let tree = system.build();
        let mut after = units(&tree);
        if system.package != nix::PACKAGE {
            let ours = after.iter_mut().filter(|(unit, _)| unit.starts_with("opnix"));
            ours.for_each(|(_, text)| *text = text.replace(nix::PACKAGE, system.package));
        }
        let runs = |unit: &str| self.machine.show(unit, "ActiveState") == "active";
        let [mut stop, mut reload, mut restart, mut start] = [(); 4].map(|()| BTreeSet::new());
        for (unit, text) in self.units.iter().filter(|(unit, _)| !unit.contains('@') && runs(unit)) {
            let Some(new) = after.get(unit) else {
                stop.insert(unit.clone());
                continue;
            };
            // Sockets that changed are left alone.
            if new == text || !unit.ends_with(".service") {
                continue;
            }
            let list = match (is_only_a_reload(text, new), new.contains("X-StopIfChanged=false\n")) {
                (true, _) => &mut reload,
                (false, true) => &mut restart,
                (false, false) => {
                    stop.insert(unit.clone());
                    &mut start
                }
            };
            list.insert(unit.clone());
        }
        // What the targets want that are active is started.
        start.extend(["sockets.target", "multi-user.target"].map(str::to_owned));
        let call = |verb: &str, units: &BTreeSet<String>| {
            let all: Vec<&str> = [verb].into_iter().chain(units.iter().map(String::as_str)).collect();
            units.is_empty() || self.machine.systemctl(&all).code == Some(0)
        };
        let mut is_good = call("stop", &stop);
        self.activate(&tree, system.package);
        self.machine.systemctl(&["daemon-reload"]).ok();
        is_good &= call("reload", &reload);
        // As there, a start whose assertion fails counts as none: the unit did not fail.
        let has_failed = |unit: &String| {
            self.machine.show(unit, "ActiveState") == "failed"
                || self.machine.show(unit, "SubState").starts_with("auto-restart")
        };
        call("restart", &restart);
        call("start", &start);
        is_good &= !restart.iter().chain(&start).any(has_failed);
        (self.system, self.units) = (tree, after);
        // A unit of ours that failed the switch does not tell: it is only wanted.
        assert_eq!(
            self.machine.systemctl(&["list-units", "--failed", "--no-legend", "--plain", "opnix*"]).ok(),
            ""
        );
        is_good
    }

    /// What is not of this system any more goes, and what is comes.
    fn activate(&self, tree: &Path, package: &str) {
        let root = self.machine.path("/");
        let files = |tree: &Path| {
            let output = Command::new("find").args([".", "!", "-type", "d"]).current_dir(tree).output();
            let text = String::from_utf8(output.expect("find").stdout).expect("text");
            text.lines().map(str::to_owned).collect::<BTreeSet<String>>()
        };
        for gone in files(&self.system).difference(&files(tree)) {
            fs::remove_file(root.join(&gone[2..])).expect("it is there");
        }
        copy(tree, &root);
        copy_referred(tree, &root);
        if package != nix::PACKAGE {
            let files = "/etc/systemd/system/opnix*.service /etc/systemd/system/opnix*.service.d/*";
            self.machine.sh(&format!("sed -i 's|{}/|{package}/|' {files}", nix::PACKAGE)).ok();
        }
        self.machine.sh("systemd-tmpfiles --create /etc/tmpfiles.d/nixos.conf").ok();
    }

    #[track_caller]
    fn has(&self, unit: &str, got: &str) {
        let is = || {
            let found = self.machine.run(&["cat", &format!("/run/{unit}.got")]);
            self.machine.show(&format!("{unit}.service"), "ActiveState") == "active" && found.ok() == got
        };
        self.machine.wait(&format!("{unit} with {got:?}"), is, LONG);
    }

    /// Not even a second later, as who looks after the switch would.
    #[track_caller]
    fn has_at_once(&self, unit: &str, got: &str) {
        let name = format!("{unit}.service");
        assert_eq!(
            self.machine.show(&name, "ActiveState"),
            "active",
            "{unit}: {}",
            self.machine.journal_text()
        );
        self.has(unit, got);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    let from = from.join(".");
    let output = Command::new("cp")
        .args(["-RP", "--remove-destination", "--no-preserve=mode,ownership"])
        .arg(from)
        .arg(to)
        .output();
    let output = output.expect("cp");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The scripts that units name, which are in the store.
fn copy_referred(tree: &Path, root: &Path) {
    for path in nix::closure(tree).iter().filter(|path| path.is_file()) {
        let to = root.join(path.strip_prefix("/").expect("it is absolute"));
        fs::create_dir_all(to.parent().expect("a directory")).expect("a directory");
        fs::copy(path, to).expect("it can be written");
    }
}

/// Items whose fields have values that tell them apart.
fn one_password(machine: &Machine) -> Connect {
    let mut account = Account::empty();
    for item in ["Web", "Api", "Agent", "Late"] {
        let field = |name: &'static str| (name, FieldValue::Concealed(of(item, name)));
        account.add("Infrastructure Secrets", item, &[field("one"), field("two")]);
    }
    Connect::start(machine.listen_on(PORT), None, account)
}

fn of(item: &str, field: &str) -> String {
    value(&format!("{item}-{field}"))
}

const WEB_TWO: &str =
    r#"secrets.token = { reference = "op://Infrastructure Secrets/Web/two"; services = [ "web" ]; };"#;
const WEB_BOTH: &str = r#"
    secrets.token = { reference = "op://Infrastructure Secrets/Web/two"; services = [ "web" ]; };
    secrets.user = { reference = "op://Infrastructure Secrets/Web/one"; services = [ "web" ]; };"#;
const WEB_LATE: &str = r#"
    secrets.token = { reference = "op://Infrastructure Secrets/Web/two"; services = [ "web" ]; };
    secrets.user = { reference = "op://Infrastructure Secrets/Late/one"; services = [ "web" ]; };"#;
const API_BOTH: &str =
    r#"key = "op://Infrastructure Secrets/Api/one"; other = "op://Infrastructure Secrets/Api/two";"#;
const AGENT_BOTH: &str =
    r#"KEY = "op://Infrastructure Secrets/Agent/one"; KEY_TWO = "op://Infrastructure Secrets/Agent/two";"#;

pub fn what_ran_before_a_switch_runs_after_it_with_the_right_secret(_: &Machine) {
    let mut host = Host::boot(&System { opnix: String::new(), web: "", api: "", agent: "", ..System::new() });
    let one_password_is_up = one_password(&host.machine);
    let (web, api, agent) = (of("Web", "one"), of("Api", "one"), format!("KEY={}", of("Agent", "one")));
    let is = |host: &Host, web: &str, api: &str, agent: &str| {
        host.has_at_once("web", web);
        host.has_at_once("api", api);
        host.has_at_once("agent", agent);
    };

    // It is enabled for the first time.
    assert!(host.switch(&System::new()));
    is(&host, &web, &api, &agent);

    // Each gets one secret more; the first has another value.
    let more = || System { web: WEB_BOTH, api: API_BOTH, agent: AGENT_BOTH, ..System::new() };
    assert!(host.switch(&more()));
    let both = format!("{agent}\nKEY_TWO={}", of("Agent", "two"));
    is(&host, &format!("{}{}", of("Web", "two"), web), &format!("{api}{}", of("Api", "two")), &both);

    // One less, and another value; at the same time another package.
    let other = || System { web: WEB_TWO, package: NEXT_PACKAGE, ..System::new() };
    assert!(host.switch(&other()));
    is(&host, &of("Web", "two"), &api, &agent);
    let program = host.machine.sh("readlink /proc/$(systemctl show -P MainPID opnix.service)/exe").ok();
    assert_eq!(program, format!("{NEXT_PACKAGE}/bin/opnix"));

    // Back to the package, which nobody who uses a secret notices; also while 1Password is away.
    let runs = |host: &Host| {
        ["web", "api", "agent"].map(|unit| host.machine.show(&format!("{unit}.service"), "InvocationID"))
    };
    drop(one_password_is_up);
    let before = runs(&host);
    assert!(host.switch(&System { web: WEB_TWO, ..System::new() }));
    assert_eq!(runs(&host), before);
    is(&host, &of("Web", "two"), &api, &agent);

    // The token's file is another one.
    host.machine.sh(&format!("mkdir -p /root/moved; mv {TOKEN_FILE} /root/moved/token")).ok();
    let moved = || System { opnix: with_token("/root/moved/token"), web: WEB_TWO, ..System::new() };
    assert!(host.switch(&moved()));
    is(&host, &of("Web", "two"), &api, &agent);

    // It is sealed, and the plain one is gone.
    let seals = "opnix token set --seal </root/moved/token && rm /root/moved/token";
    host.machine.sh(&format!("{}/bin/{seals}", nix::PACKAGE)).ok();
    let sealed = r#"sealedTokenFile = "/etc/credstore.encrypted/opnix-token";"#;
    let sealed = with_token("").replace(r#"tokenFile = "";"#, sealed);
    let moved = || System { opnix: sealed.clone(), web: WEB_TWO, ..System::new() };
    assert!(host.switch(&moved()));
    is(&host, &of("Web", "two"), &api, &agent);
    let told = host.machine.sh(&format!("{}/bin/opnix token show", nix::PACKAGE)).ok();
    let is_known = |what: &str| assert!(told.contains(what), "{told}");
    is_known("/etc/credstore.encrypted/opnix-token, sealed with systemd-creds");
    is_known("yes, the running service has it");
    assert_eq!(host.machine.show("opnix-token.service", "ActiveState"), "active");

    // A unit has another name, while 1Password is away: its value is kept.
    assert!(host.switch(&System { api_name: "backend", ..moved() }));
    host.has_at_once("backend", &api);
    assert_eq!(host.machine.show("api.service", "ActiveState"), "inactive");

    // A file that is new cannot be had now: the switch does not end as if all were well.
    let one_more = System { api_name: "backend", web: WEB_LATE, ..moved() };
    assert!(!host.switch(&one_more));
    assert_eq!(host.machine.show("web.service", "ActiveState"), "inactive");

    // Nor can what else is new: who needs it does not start, and comes up with it by itself.
    assert!(!host.switch(&System {
        api_name: "backend",
        web: WEB_LATE,
        api: API_BOTH,
        agent: AGENT_BOTH,
        ..moved()
    }));
    let _one_password = one_password(&host.machine);
    host.has("web", &format!("{}{}", of("Web", "two"), of("Late", "one")));
    host.has("backend", &format!("{api}{}", of("Api", "two")));
    host.has("agent", &both);

    // It is disabled again.
    assert!(host.switch(&System { opnix: String::new(), web: "", api: "", agent: "", ..System::new() }));
    host.has_at_once("api", "");
    host.has_at_once("agent", "");
    // The files stay in memory until the next boot, or `opnix purge`: docs/getting-started.md.
    host.has_at_once("web", &format!("{}{}", of("Web", "two"), of("Late", "one")));
    let left = host.machine.systemctl(&[
        "list-units",
        "opnix*",
        "--no-legend",
        "--plain",
        "--state=active,activating",
    ]);
    assert_eq!(left.ok(), "");
}
