//! `opnix doctor --report`: whatever things are called here, no name of them leaves the machine, and no value.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::{Host, write_vault};
use crate::daemon::UNIT;

/// Each is a name, or a part of one.
const NAMES: [&str; 22] = [
    "Zürich GmbH",
    "acme-payroll",
    "Müller & Söhne",
    "quo\"te",
    "back\\slash",
    "HR salaries",
    "gehalt",
    "zeta",
    "zeta.service",
    "frontdoor@",
    "grünkohl",
    "alice.smith",
    "wheelhouse",
    "vpn.corp.example",
    "203.0.113.77",
    "2001:db8::beef",
    "alice@corp.example",
    "corp.example",
    "salaries.env",
    "/srv/payroll",
    "proxy-7.intern",
    "payroll-key",
];

fn config(vault: &std::path::Path) -> Value {
    let reference = |path: &str| format!("op://{path}");
    json!({"provider": {"kind": "local", "path": vault}, "deadline": "2s",
        "secrets": [
            {"name": "acme-payroll", "reference": reference("HR salaries/Z%C3%BCrich GmbH/gehalt"), "units": [UNIT, "zeta.service", "frontdoor@*.service"],
             "path": "/srv/payroll/salaries.env", "owner": "alice.smith", "group": "wheelhouse", "symlinks": ["/srv/payroll/link-zeta"]},
            {"name": "payroll-key", "reference": reference("HR salaries/M%C3%BCller %26 S%C3%B6hne/gehalt"), "units": [UNIT]},
            {"name": "odd", "reference": reference("HR salaries/quo%22te/back%5Cslash"), "units": [UNIT]}],
        "templates": [{"name": "vpn.corp.example", "units": [{"unit": UNIT, "credential": "salaries.env"}],
            "template": "https://alice@corp.example:203.0.113.77/{{ op://HR salaries/gr%C3%BCnkohl/gehalt }} [2001:db8::beef] proxy-7.intern\n"}]})
}

fn report(host: &Host, configuration: &str) -> (String, PathBuf) {
    let path = host.directory.join(format!("report-{}", configuration.len()));
    let file = host.directory.join("secrets-report.json");
    fs::write(&file, configuration).unwrap();
    let arguments = ["doctor", "--config", file.to_str().unwrap(), "--report", path.to_str().unwrap()];
    let (said, _) = host.daemon.command(&arguments);
    assert!(said.contains("read it before you send it"), "{said}");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // Never over another file.
    let (said, code) = host.daemon.command(&arguments);
    assert!(code == 64 && said.contains("is there already"), "{code}: {said}");
    (fs::read_to_string(&path).unwrap(), path)
}

#[track_caller]
fn nothing_is_named(report: &str) {
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let host = Some(machine.trim()).filter(|name| name.len() > 3);
    let all =
        NAMES.into_iter().chain(host).chain(Some(id.trim()).filter(|id| !id.is_empty())).chain(["canary"]);
    for name in all {
        let escaped = format!("{name:?}");
        for form in [name, escaped.trim_matches('"')] {
            assert!(!report.to_lowercase().contains(&form.to_lowercase()), "{form}: {report}");
        }
    }
}

#[test]
fn a_report_has_what_helps_and_no_name_of_anything() {
    let host = Host::new(true);
    write_vault(&host.vault(), &[("Zürich GmbH", "canary-7"), ("quo\"te", "canary-8")]);
    let config = config(&host.vault());
    host.daemon.configure(&config);
    host.daemon.reload();
    let (report, path) = report(&host, &config.to_string());
    nothing_is_named(&report);
    for words in [
        "== versions",
        "opnix         0.",
        "kernel",
        "architecture",
        "[fine]",
        "provider local",
        "template-1: op://vault-1/item-",
        "secret-1 for unit-",
        "secret-1 in /path-",
        "== units of opnix",
        "1password: ",
    ] {
        assert!(report.contains(words), "{words}: {report}");
    }
    // The same word for the same thing, in findings as in the shape.
    assert!(report.matches("op://vault-1/").count() >= 4, "{report}");
    fs::remove_file(path).unwrap();
}

#[test]
fn a_report_names_nothing_though_the_configuration_is_broken() {
    let host = Host::new(true);
    let whole = config(&host.vault()).to_string();
    for (from, to) in [
        ("\"units\"", "\"unitz\""),
        ("op://HR", "opp://HR"),
        ("\"2s\"", "\"payroll-key\""),
        ("]}", "}"),
        ("gehalt\"", "gehalt?zeta=corp.example\""),
    ] {
        let broken = whole.replace(from, to);
        assert_ne!(broken, whole, "{from}");
        let (report, path) = report(&host, &broken);
        nothing_is_named(&report);
        assert!(report.contains("configuration-faulty"), "{from}: {report}");
        fs::remove_file(path).unwrap();
    }
}

/// Everything that a message says of where things are, and of what merely looks like a name of the system's.
#[test]
fn hosts_proxies_units_like_known_ones_and_relative_paths_are_not_named() {
    let host = Host::new(false);
    let broken = json!({"secrets": [{"name": "1acme", "reference": "op://V/I/f",
        "units": ["7upkunde", "network-acmevpn.service", "systemd-acmecorp.service", "opnixkunde.service"]},
        {"name": "1acme", "reference": "op://V/I/f", "units": ["opnixkunde.service"], "5bogus": 1}]});
    let connect = |url: &str| {
        json!({"provider": {"kind": "connect", "host": url}, "secrets": [{"name": "a1", "reference": "op://V/I/f",
        "units": ["network-acmevpn.service", "systemd-acmecorp.service", "opnixkunde.service"]}]})
    };
    let proxy = ("HTTPS_PROXY", "http://proxyuser:geheim@corpproxy.invalid:3128");
    let names =
        ["acme", "kunde", "bogus", "7up", "vaultbox", "db8", "127.0.0.2", "corpproxy", "proxyuser", "geheim"];
    for (number, (configuration, environment, seen)) in [
        (broken, None, "configuration-faulty"),
        (connect("http://vaultbox.invalid:1"), None, "is not resolved"),
        (connect("http://[2001:db8:1:2:3:4:5:6]:1"), None, "no connection to host-"),
        (connect("https://127.0.0.2:1"), Some(proxy), "cannot be reached"),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(host.directory.join("kunde-acme.json"), configuration.to_string()).unwrap();
        let file = format!("report-{number}");
        let output = Command::new(env!("CARGO_BIN_EXE_opnix"))
            .args(["doctor", "--config", "kunde-acme.json", "--report", &file, "--token-file", "acme-token"])
            .arg("--control")
            .arg(host.daemon.control())
            .current_dir(&host.directory)
            .envs(environment)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let report = fs::read_to_string(host.directory.join(file)).expect(&said);
        assert!(report.contains(seen), "{seen}: {report}\n{said}");
        for name in names {
            assert!(!report.contains(name), "{name}: {report}\n{said}");
        }
    }
}
