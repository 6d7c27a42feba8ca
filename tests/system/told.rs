//! What a person sees who looks at a unit that does not start: `systemctl status UNIT` says why, and which command says more.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::onepassword::{account, entry, one_password};
use crate::opnix::*;
use crate::simulators::http::Fault;

/// How soon it is there.
const SOON: Duration = Duration::from_secs(10);

fn shown(machine: &Machine, unit: &str) -> String {
    let shown = machine.systemctl(&["status", "--no-pager", "--lines=50", unit]).text();
    assert!(!shown.contains(CANARY), "{shown}");
    shown
}

/// Waits until `systemctl status` of this unit has this line.
#[track_caller]
fn told(machine: &Machine, unit: &str, line: &str) {
    let end = Instant::now() + SOON;
    while !shown(machine, unit).contains(line) {
        assert!(Instant::now() < end, "{line}\nis not in\n{}", shown(machine, unit));
        std::thread::sleep(Duration::from_millis(50));
    }
    let journal = machine.run(&["journalctl", "--unit", unit, "--output=cat"]).text();
    assert!(journal.contains(line), "{journal}");
}

/// With the mirror at work, which tells units.
fn begin(machine: &Machine, secrets: &[Value], values: &[&str], deadline: &str) {
    forget_files(machine);
    let values: Vec<(&str, String)> = values.iter().map(|name| (*name, value(name))).collect();
    set_up(machine, secrets, &values, deadline);
    machine.systemctl(&["start", "opnix-control.socket"]).ok();
    machine.systemctl(&["start", "opnix-mirror.service"]).ok();
}

/// Fails to start at once.
fn holder(credential: &str, more: &str) -> String {
    format!(
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=exec\nLoadCredential={credential}:/run/opnix/creds.sock\n\
         ExecStart=sleep infinity\n{more}"
    )
}

pub fn a_unit_that_is_refused_or_waits_says_why_in_its_own_status(machine: &Machine) {
    let secrets = [
        secret("key", &["told-key.service", "told-slow.service"]),
        secret("absent", &["told-absent.service", "told-loop.service"]),
    ];
    begin(machine, &secrets, &["key"], "30s");
    let _ended = Ended::with(machine, "told-*");
    machine.unit("told-key.service", &holder("kye", ""));
    machine.unit("told-absent.service", &holder("absent", ""));
    machine.unit("told-slow.service", &holder("key", ""));
    machine.unit("told-loop.service", &holder("absent", "Restart=always\nRestartSec=50ms\n"));

    machine.systemctl(&["start", "told-key.service"]).fails();
    let line = "opnix refused told-key.service the credential \"kye\": no secret is configured under this credential name. \
                See: opnix explain told-key.service kye";
    told(machine, "told-key.service", line);
    machine.systemctl(&["start", "told-absent.service"]).fails();
    let line = "opnix refused told-absent.service the credential \"absent\": there is no item \"absent\" in vault \"Vault\"";
    told(machine, "told-absent.service", line);
    told(machine, "told-absent.service", "See: opnix status told-absent.service");
    let records = machine.journal(&[&kind("20"), "OBJECT_SYSTEMD_UNIT=told-key.service"]);
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(
        (&records[0]["OPNIX_CREDENTIAL"], &records[0]["OPNIX_CHECK"]),
        (&json!("kye"), &json!("policy"))
    );
    assert_eq!(records[0]["_UID"], "0");

    // Who is started again and again is told each time, and not more often than ten times a second.
    let begun = Instant::now();
    machine.systemctl(&["start", "--no-block", "told-loop.service"]).ok();
    for _ in 0..3 {
        told(machine, "told-loop.service", "opnix refused told-loop.service the credential \"absent\"");
        std::thread::sleep(Duration::from_millis(200));
    }
    machine.systemctl(&["stop", "told-loop.service"]).ok();
    let lines = machine.journal(&[&kind("20"), "OBJECT_SYSTEMD_UNIT=told-loop.service"]).len();
    let most = 2 + 10 * begun.elapsed().as_secs_f32().ceil() as usize;
    assert!((3..=most).contains(&lines), "{lines} lines in {:?}", begun.elapsed());

    // Neither half tells twice what was told before its restart.
    machine.systemctl(&["restart", "opnix.service", "opnix-mirror.service"]).ok();
    let _vault = slow_vault(machine);
    machine.systemctl(&["start", "--no-block", "told-slow.service"]).ok();
    told(
        machine,
        "told-slow.service",
        "told-slow.service waits for the credential \"key\" from opnix, for up to 2",
    );
    told(machine, "told-slow.service", "See: opnix status told-slow.service");
    machine.systemctl(&["restart", "opnix.service", "opnix-mirror.service"]).ok();
    machine.systemctl(&["start", "told-key.service"]).fails();
    let of = |digits: &str, unit: &str| {
        machine.journal(&[&kind(digits), &format!("OBJECT_SYSTEMD_UNIT={unit}")]).len()
    };
    machine.wait("the line of its second start", || of("20", "told-key.service") > 1, SOON);
    assert_eq!(of("20", "told-key.service"), 2);
    assert_eq!(of("20", "told-absent.service"), 1);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(of("21", "told-slow.service"), 1);
    let status = machine.run(&["opnix", "status", "--json"]).text();
    assert!(status.contains("\"refusals\""), "{status}");
}

pub fn a_unit_whose_file_is_not_there_says_why_in_its_own_status(machine: &Machine) {
    let file = json!({"name": "gone", "reference": "op://Vault/gone/value", "path": "told/gone"});
    begin(machine, &[file], &["other"], "2s");
    let _ended = Ended::with(machine, "told-*");
    let path = "/run/secrets/told/gone";
    let after = "Wants=opnix-mirror.service\nAfter=opnix-mirror.service\n";
    let run = "ExecStart=sleep infinity\n";
    let wanted = [
        ("told-condition.service", format!("[Unit]\n{after}ConditionPathExists={path}\n[Service]\n{run}")),
        (
            "told-environment.service",
            format!("[Unit]\n{after}[Service]\nType=exec\nEnvironmentFile={path}\n{run}"),
        ),
    ];
    let unwanted =
        ("told-assert.service", format!("[Unit]\n{after}AssertPathExists={path}\n[Service]\n{run}"));
    let target = "[Unit]\nWants=told-condition.service told-environment.service\n";
    machine.unit("told-wants.target", target);
    for (unit, text) in wanted.iter().chain([&unwanted]) {
        machine.unit(unit, text);
    }
    machine.systemctl(&["start", "told-wants.target"]).ok();
    machine.systemctl(&["start", "told-assert.service"]).fails();
    for (unit, then) in [
        ("told-condition.service", "it is started as soon as that is there"),
        ("told-environment.service", "it is started as soon as that is there"),
        ("told-assert.service", "start it when that is there"),
    ] {
        let why = "the service refused it: there is no item \"gone\" in vault \"Vault\"";
        told(machine, unit, &format!("{unit} needs {path}, which is not there: {why}"));
        told(machine, unit, &format!("; {then}. See: opnix status"));
    }
    // Each start is told once.
    machine.systemctl(&["start", "told-assert.service"]).fails();
    let lines = || machine.journal(&[&kind("22"), "OBJECT_SYSTEMD_UNIT=told-assert.service"]).len();
    machine.wait("the line of its second start", || lines() == 2, SOON);
}

pub fn a_unit_that_waits_for_an_opnix_that_does_not_start_says_so_in_its_own_status(machine: &Machine) {
    let secrets = [secret("key", &["told-served.service", "told-simple.service", "told-exec.service"])];
    begin(machine, &secrets, &["key"], "30s");
    let _ended = Ended::with(machine, "told-*");
    let simple = holder("key", "").replace("Type=exec", "Type=simple");
    machine.unit("told-served.service", &simple);
    machine.unit("told-simple.service", &simple);
    machine.unit("told-exec.service", &holder("key", ""));
    machine.systemctl(&["start", "told-served.service"]).ok();
    machine.wait(
        "its value",
        || !machine.journal(&[&kind("01"), "OPNIX_UNIT=told-served.service"]).is_empty(),
        SOON,
    );
    let lines = Lines::of(machine, "opnix.service", "[Service]\nBindPaths=/nowhere:/mnt\n");
    let _ = machine.systemctl(&["restart", "opnix.service"]);
    machine.systemctl(&["start", "--no-block", "told-simple.service", "told-exec.service"]).ok();
    let line = "waits for opnix.service, which does not start (exit-code, 226/NAMESPACE): systemctl status opnix.service";
    for unit in ["told-simple.service", "told-exec.service"] {
        told(machine, unit, &format!("{unit} {line}"));
    }
    assert!(!shown(machine, "told-served.service").contains("waits for opnix.service"));
    // They come up when it does, and nothing is told twice.
    drop(lines);
    let is_up = || machine.show("told-exec.service", "ActiveState") == "active";
    machine.wait("the start", is_up, SOON);
    assert_eq!(machine.journal(&[&kind("23"), "OBJECT_SYSTEMD_UNIT=told-exec.service"]).len(), 1);
}

pub fn long_work_shows_how_far_it_is_in_the_status_of_opnixs_units(machine: &Machine) {
    const FILES: usize = 400;
    forget_files(machine);
    let titles: Vec<String> = (0..FILES).map(|number| format!("long-{number}")).collect();
    let items: Vec<(&str, &str)> = titles.iter().map(|title| (title.as_str(), "value")).collect();
    let simulator = one_password(machine, account(&items));
    let file = |title: &String| {
        let mut file = entry(title, &format!("{title}/value"), "told-long.service");
        file["path"] = format!("told-long/{title}").into();
        file
    };
    let secrets: Vec<Value> = titles.iter().map(file).collect();
    set_up_with(machine, &json!({"deadline": "60s", "short_deadline": "20s", "secrets": secrets}));
    machine.systemctl(&["start", "opnix-control.socket"]).ok();
    simulator.server.fault("", usize::MAX, Fault::Delay(Duration::from_millis(1200)));
    // "A of B", between these words.
    let far = |status: &str, before: &str, after: &str| {
        let (done, all) = status.strip_prefix(before)?.split_once(after)?.0.split_once(" of ")?;
        let number = |text: &str| text.parse::<usize>().expect("a number");
        Some((number(done), number(all)))
    };
    let (mut fetched, mut written) = (BTreeSet::new(), BTreeSet::new());
    machine.systemctl(&["start", "--no-block", "opnix-mirror.service"]).ok();
    machine.wait(
        "the files",
        || {
            fetched.extend(far(&machine.show("opnix.service", "StatusText"), "Fetching ", " values for "));
            let mirror = machine.show("opnix-mirror.service", "StatusText");
            written.extend(far(&mirror, "Bringing files up to date: ", "."));
            mirror == format!("All {FILES} files are in place.")
        },
        Duration::from_secs(60),
    );
    // The mirror asks for some of them first, and then for the others.
    let has_many = fetched.iter().any(|(_, all)| *all > 100);
    assert!(fetched.len() > 2 && has_many && fetched.iter().all(|(done, all)| done < all), "{fetched:?}");
    assert!(
        written.len() > 2 && written.iter().all(|(done, all)| done <= all && *all == FILES),
        "{written:?}"
    );
    let serving = || machine.show("opnix.service", "StatusText") == format!("Serving {FILES} credentials.");
    machine.wait("the end of it", serving, SOON);
    let journal = machine.journal_text();
    let lines = |what: &str, end: &str| {
        journal.lines().filter(|line| line.contains(what) && line.contains(end)).count()
    };
    assert!((1..=2).contains(&lines("fetching ", " values: ")), "{journal}");
    assert_eq!(lines("fetching ", " values: "), lines("fetched ", " values in "), "{journal}");
    assert_eq!(lines(&format!("wrote {FILES} files in "), ""), 1, "{journal}");
    simulator.server.clear_faults();
    forget_files(machine);
}
