//! Unit files are read as systemd reads them: units made at random are checked by us and started by systemd.

use std::fmt::Write;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::machine::Machine;
use crate::opnix::*;

/// How many units.
const UNITS: usize = 200;
const DIRECTORIES: [&str; 3] = ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system"];

/// One line or several, each with its section.
const LINES: [&str; 12] = [
    "[Service]\nLoadCredential=key:/run/opnix/creds.sock\n",
    "[Service]\nLoadCredential=key:/run/opnix/creds.sock\n",
    "[Service]\nLoadCredential = key:%t/opnix/creds.sock\n",
    "[Service]\nLoadCredential=\\\n# comment\n; another\nkey:/run/opnix/creds.sock\n",
    "[Service]\nLoadCredential=\n",
    "[Service]\nLoadCredential=\nLoadCredential=key:/run/opnix/creds.sock\n",
    "[Service]\nLoadCredential=key:/etc/made-up\n",
    "[Service]\nLoadCredential=key:/run//opnix/creds.sock\n",
    "[Service]\nLoadCredential=key:/run/../run/opnix/creds.sock\n",
    "[Unit]\nLoadCredential=key:/run/opnix/creds.sock\n",
    "[Service]\nSetCredential=other:made-up\n",
    "",
];

pub fn what_check_says_of_units_made_at_random_is_what_systemd_does(machine: &Machine) {
    let seed: u64 = std::env::var("OPNIX_UNITS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    eprintln!("units made at random: OPNIX_UNITS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (mut files, mut links, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..UNITS {
        let name = match number % 4 {
            0 => format!("made{number}.service"),
            1 => format!("made{number}-a-b.service"),
            2 => format!("made{number}@x.service"),
            _ => format!("made{number}-a@x-y.service"),
        };
        let mut unit = Unit::of(&name);
        if number % 4 == 0 {
            // It has another name, and so do its drop-ins.
            let other = format!("made{number}-other.service");
            let directory = DIRECTORIES.choose(&mut random).expect("directories");
            links.push((format!("{directory}/{other}"), name.clone()));
            unit.drop_ins.extend([other.clone(), other]);
        }
        let main = [unit.main.as_str(), name.as_str()];
        for directory in DIRECTORIES {
            if directory != DIRECTORIES[2] && random.random_bool(0.5) {
                continue;
            }
            let main = main.choose(&mut random).expect("two names");
            let own = LINES.choose(&mut random).expect("lines");
            files.push((format!("{directory}/{main}"), format!("{EXECUTES}{own}")));
        }
        for _ in 0..random.random_range(0..4) {
            let directory = DIRECTORIES.choose(&mut random).expect("directories");
            let drop_in = unit.drop_ins.choose(&mut random).expect("names");
            let file = ["10-a", "50-b", "90-c"].choose(&mut random).expect("names");
            let lines = LINES.choose(&mut random).expect("lines");
            files.push((format!("{directory}/{drop_in}.d/{file}.conf"), (*lines).to_owned()));
        }
        names.push(name);
    }
    // The last of those that have one path counts, for both.
    let mut script = String::from(
        "mkdir -p /run/made /run/systemd/system; rm -f /run/made/*; echo made-up-file >/etc/made-up\n",
    );
    for (link, target) in &links {
        let _ = writeln!(script, "mkdir -p $(dirname {link}); ln -sf {target} {link}");
    }
    for (path, text) in &files {
        let _ = write!(script, "mkdir -p $(dirname {path}); cat >{path} <<'END'\n{text}END\n");
    }
    machine.write("/run/make-units", script, "0755");
    machine.sh("sh /run/make-units").ok();
    let secrets = [secret("key", &names.iter().map(String::as_str).collect::<Vec<_>>())];
    set_up(machine, &secrets, &[("key", value("key"))], "5s");
    let config = json!({"provider": {"kind": "local", "path": VAULT}, "deadline": "5s", "secrets": secrets});
    machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
    let directories: Vec<String> =
        DIRECTORIES.iter().map(|directory| format!("--units {directory}")).collect();
    let check = machine.sh(&format!("opnix check {} 2>&1 || true", directories.join(" "))).text();
    machine.systemctl(&["daemon-reload"]).ok();
    machine.sh(&format!("systemctl start {} || true", names.join(" "))).ok();
    let mut seen = [0, 0];
    for name in &names {
        let got = machine.sh(&format!("cat /run/made/{name} 2>/dev/null || echo failed")).text();
        let has_it = got.trim() == value("key");
        // A name is followed by what is said of it.
        let is_content = !check
            .lines()
            .any(|line| line.contains(&format!("{name} ")) || line.contains(&format!(" of {name}")));
        seen[usize::from(has_it)] += 1;
        assert_eq!(
            is_content,
            has_it,
            "{name}: check is {}, and the unit got {got:?} (OPNIX_UNITS_SEED={seed})\n{}\n{check}",
            if is_content { "content" } else { "not content" },
            machine.sh(&format!("systemctl cat {name} 2>&1 || true")).text()
        );
    }
    assert!(seen.iter().all(|count| *count > UNITS / 10), "it shows nothing: {seen:?}");
    let made = DIRECTORIES.map(|directory| format!("{directory}/made*")).join(" ");
    machine.sh(&format!("rm -rf {made} /etc/made-up /run/made; systemctl daemon-reload")).ok();
}

const EXECUTES: &str = "[Service]\nType=oneshot\nExecStart=sh -c 'cat $CREDENTIALS_DIRECTORY/key >/run/made/%n || echo none >/run/made/%n'\n";

struct Unit {
    /// Where its file may be, besides under its own name.
    main: String,
    /// What its drop-in directories may be called, without `.d`.
    drop_ins: Vec<String>,
}

impl Unit {
    fn of(name: &str) -> Self {
        let template = name.split_once('@').map(|(prefix, _)| format!("{prefix}@.service"));
        let mut drop_ins = vec![name.to_owned()];
        drop_ins.extend(template.clone());
        let (prefix, rest) = name.split_once(['@', '.']).expect("a suffix");
        let rest = &name[name.len() - rest.len() - 1..];
        if let Some((first, _)) = prefix.split_once('-') {
            drop_ins.push(format!("{first}-{rest}"));
            if rest.starts_with('@') {
                drop_ins.push(format!("{first}-@.service"));
            }
            if let Some((longer, _)) = prefix.rsplit_once('-').filter(|(longer, _)| *longer != first) {
                drop_ins.push(format!("{longer}-{rest}"));
            }
        }
        Self { main: template.unwrap_or_else(|| name.to_owned()), drop_ins }
    }
}

pub fn doctor_names_what_takes_the_credentials_of_all_services_back(machine: &Machine) {
    set_up(machine, &[secret("key", &["patient.service"])], &[("key", value("key"))], "5s");
    consumer(machine, "patient.service", "key", "");
    machine.systemctl(&["start", "opnix-control.socket", "patient.service"]).ok();
    // What units of other tests ask for, and may not have, is said as well.
    let doctor = || {
        let said = machine.sh("opnix doctor || true").text();
        let of_it = |line: &&str| {
            ["of patient.service", "is started without"].iter().any(|words| line.contains(words))
        };
        said.lines().filter(of_it).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(doctor(), "");
    // As a generator in images for LXC and Incus leaves it.
    let drop_in = "/run/systemd/system/service.d/zzz-lxc-service.conf";
    machine.sh("mkdir -p /run/systemd/system/service.d").ok();
    machine.write(drop_in, "[Service]\nLoadCredential=\nImportCredential=\n", "0644");
    machine.systemctl(&["daemon-reload"]).ok();
    let said = doctor();
    assert!(
        said.contains(&format!("of patient.service is not asked for: {drop_in}:2:1 takes it back")),
        "{said}"
    );
    for id in ["token", "opnix.cache-key"] {
        assert!(
            said.contains(&format!("service: opnix.service is started without \"{id}\": {drop_in}:2:1")),
            "{said}"
        );
    }
    machine
        .sh(&format!("rm -r {drop_in} && rmdir /run/systemd/system/service.d; systemctl daemon-reload"))
        .ok();
    assert_eq!(doctor(), "");
    // What is given anew after that is there.
    let anew = "[Service]\nLoadCredential=\nLoadCredential=token:/etc/other\nLoadCredential=opnix.cache-key:/etc/other\n";
    machine.unit("opnix.service.d/90-anew.conf", anew);
    assert_eq!(doctor(), "");
    machine.sh("rm /run/systemd/system/opnix.service.d/90-anew.conf").ok();
    machine.systemctl(&["daemon-reload"]).ok();
}

pub fn what_systemd_has_in_memory_counts_whatever_its_files_say_by_now(machine: &Machine) {
    let units = ["old.service", "late.service", "kept@one.service", "alias.service"];
    set_up(machine, &[secret("key", &units)], &[("key", value("key"))], "5s");
    const ASKS: &str = "LoadCredential=key:/run/opnix/creds.sock\n";
    const RUNS: &str = "[Service]\nType=exec\nExecStart=sleep infinity\n";
    machine.unit("old.service", &format!("{RUNS}{ASKS}"));
    machine.unit("late.service", RUNS);
    machine.unit("host.service", &format!("{RUNS}LoadCredential=%H:/run/opnix/creds.sock\n"));
    machine.unit("kept@.service", &format!("{RUNS}{ASKS}"));
    machine.unit("own.service", &format!("{RUNS}{ASKS}"));
    machine.sh("ln -sf own.service /run/systemd/system/alias.service; systemctl daemon-reload").ok();
    machine.sh("systemctl start opnix-control.socket old late kept@one").ok();
    machine.sh("systemctl start own").fails();
    machine.sh("systemctl start kept@two").fails();
    machine.sh("systemctl start host").fails();
    machine.write("/run/systemd/system/old.service", RUNS, "0644");
    machine.write("/run/systemd/system/late.service", format!("{RUNS}{ASKS}"), "0644");
    let said = machine.sh("opnix doctor || true").text();
    let host = machine.run(&["uname", "-n"]).ok();
    for expected in [
        "warning  units: systemd has an older version of old.service in memory than its files are\n         where  /run/systemd/system/old.service\n",
        "fault    units: credential \"key\" of late.service is not asked for: systemd has an older version of the unit in memory\n         where  /run/systemd/system/late.service:4:1\n",
        &format!("no secret is mapped to credential \"{host}\" of host.service\n"),
        "no secret is mapped to credential \"key\" of kept@two.service\n",
        "alias.service is another name of own.service, by which systemd asks\n",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    for content in
        ["of old.service is not asked for", "kept@one.service", "does not ask for credential \"key\" of kept"]
    {
        assert!(!said.contains(content), "{content}\n{said}");
    }
    machine.systemctl(&["daemon-reload"]).ok();
    let said = machine.sh("opnix doctor || true").text();
    assert!(!said.contains("older version of") && said.contains("old.service does not ask for"), "{said}");
    // It is asked for under whichever name.
    let explained = machine.run(&["opnix", "explain", "alias.service", "key"]);
    let text = explained.text();
    assert!(explained.code == Some(77), "{text}");
    for told in [
        "alias.service is another name of own.service, by which systemd asks\n",
        "refused: own.service does not get \"key\"\n",
        "but       alias.service gets \"key\"",
    ] {
        assert!(text.contains(told), "{told}\n{text}");
    }
    let status = machine.run(&["opnix", "status", "alias.service"]).text();
    assert!(status.contains("alias.service is another name of it\n"), "{status}");
    machine.sh("systemctl stop old late kept@one; systemctl reset-failed; rm /run/systemd/system/old.service /run/systemd/system/late.service /run/systemd/system/host.service /run/systemd/system/kept@.service /run/systemd/system/own.service /run/systemd/system/alias.service; systemctl daemon-reload").ok();
}

/// No false alarm: of the units that a distribution has there is nothing to say.
pub fn check_says_nothing_of_the_units_of_a_distribution(machine: &Machine) {
    let config = json!({"provider": {"kind": "local", "path": VAULT}, "deadline": "5s",
        "secrets": [{"name": "key", "reference": "op://Vault/key/value", "path": "key", "units": ["quiet.service"]}]});
    machine.write("/run/quiet/secrets.json", config.to_string(), "0644");
    let unit = "[Unit]\nAfter=opnix-mirror.service\n[Service]\nType=exec\nRestart=on-failure\nRestartSec=5s\n\
                LoadCredential=key:/run/opnix/creds.sock\nExecStart=cat /run/secrets/key\n";
    machine.write("/run/quiet/units/quiet.service", unit, "0644");
    let check = "opnix check --config /run/quiet/secrets.json --units /run/quiet/units --units /usr/lib/systemd/system 2>&1";
    let said = machine.sh(check).ok();
    assert_eq!(said, "valid: 1 credential, 1 file; 1 LoadCredential= line agrees with them");
    machine.sh("rm -r /run/quiet").ok();
}
