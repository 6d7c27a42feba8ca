//! Metrics as a host has them: in a file for node_exporter, and for systemd-report where systemd has it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::opnix::*;

const FILE: &str = "/run/opnix-metrics/opnix.prom";
const SOON: Duration = Duration::from_secs(30);

/// What docs/metrics.md shows for a shell.
fn documented(number: usize) -> &'static str {
    let blocks = include_str!("../../docs/metrics.md").split("```sh\n").skip(1);
    blocks.map(|rest| rest.split("```").next().expect("a block ends")).nth(number).expect("there are two")
}

/// Who has no rights reads it, as node_exporter does.
fn as_nobody(machine: &Machine, file: &str) -> String {
    machine.run(&["setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups", "cat", file]).ok()
}

fn has(machine: &Machine, line: &str) -> bool {
    as_nobody(machine, FILE).lines().any(|written| written == line)
}

pub fn a_timer_writes_the_metrics_for_all_to_read_and_says_when_the_service_is_stopped(machine: &Machine) {
    let file = json!({"name": "metered-file", "reference": "op://Vault/metered/value", "path": "metered"});
    set_up(machine, &[secret("metered", &["metered.service"]), file], &[("metered", value("metered"))], "2s");
    machine.sh("systemctl enable opnix.socket opnix-control.socket; systemctl start opnix-control.socket opnix-mirror.service").ok();
    asks_once(machine, "metered.service", "metered");
    machine.systemctl(&["start", "metered.service"]).ok();
    machine.sh("mkdir -p /var/lib/prometheus/node-exporter; rm -f /var/lib/prometheus/node-exporter/*").ok();
    machine.sh(documented(0)).ok();
    machine.systemctl(&["start", "opnix-metrics.service"]).ok();
    let units = ["opnix-metrics.service", "opnix-metrics.timer"];
    machine.run(&[&["systemd-analyze", "verify", "--man=no"][..], &units].concat()).ok();
    let verdict = machine.run(&["systemd-analyze", "security", "--threshold=45", "--no-pager", units[0]]);
    assert_eq!(verdict.code, Some(0), "{verdict}");
    let text = as_nobody(machine, "/var/lib/prometheus/node-exporter/opnix.prom");
    for line in [
        "opnix_up 1",
        "opnix_mirror_up 1",
        r#"opnix_requests_served_total{client="unit",source="memory"} 1"#,
        r#"opnix_files{state="in_place"} 1"#,
        r#"opnix_secret_available{secret="metered"} 1"#,
        r#"opnix_provider_up 1"#,
    ] {
        let of_sources = |line: &str| line.replace("\"provider\"", "\"memory\"");
        assert!(text.lines().any(|written| of_sources(written) == line), "{line} in\n{text}");
    }
    assert!(!text.contains(&value("metered")));
    // In its sandbox doctor sees what it sees outside.
    let findings = machine.run(&["opnix", "doctor", "--offline", "--json"]);
    let report: Value = serde_json::from_slice(&findings.stdout).expect("JSON");
    let mut expected: Vec<String> = Vec::new();
    for finding in report["findings"].as_array().expect("a list") {
        let (kind, level) =
            (finding["id"].as_str().expect("a name"), finding["level"].as_str().expect("a level"));
        if ["fault", "warning"].contains(&level) {
            expected.push(format!("{{kind=\"{kind}\",level=\"{level}\"}}"));
        }
    }
    let found = text.lines().filter_map(|line| line.strip_prefix("opnix_doctor_findings"));
    let mut found: Vec<String> = found
        .flat_map(|line| {
            let (labels, count) = line.split_once(' ').expect("a value");
            let count: usize = count.parse().expect("a number");
            vec![labels.to_owned(); count]
        })
        .collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "{report:#}");
    let unseen = format!("opnix_doctor_unseen {}", report["unseen"]);
    assert!(text.lines().any(|line| line == unseen), "{unseen}: {text}");

    // The timer goes on by itself, here sooner than usual.
    let lines = "[Timer]\nOnUnitActiveSec=\nOnUnitActiveSec=1s\nAccuracySec=100ms\n";
    let often = Lines::of(machine, "opnix-metrics.timer", lines);
    machine.systemctl(&["restart", "opnix-metrics.timer"]).ok();
    machine.systemctl(&["stop", "opnix.service"]).ok();
    machine.wait("the file to say so", || has(machine, "opnix_up 0"), SOON);
    let text = as_nobody(machine, FILE);
    assert!(!text.contains("opnix_secret_") && !text.contains("opnix_requests_"), "{text}");
    assert!(text.contains("opnix_doctor_findings{kind=\"service-stopped\",level=\"fault\"} 1"), "{text}");
    assert_ne!(machine.show("opnix.service", "ActiveState"), "active", "a look starts nothing");
    machine.systemctl(&["start", "opnix.service"]).ok();
    machine.wait("the file to say that it is back", || has(machine, "opnix_up 1"), SOON);
    drop(often);
    machine.sh("systemctl disable --now opnix-metrics.timer; systemctl stop opnix-metrics.service").ok();
    forget_files(machine);
}

pub fn systemd_report_lists_the_metrics_where_systemd_has_it(machine: &Machine) {
    set_up(machine, &[secret("reported", &["reported.service"])], &[("reported", value("reported"))], "2s");
    machine.systemctl(&["start", "opnix-control.socket"]).ok();
    consumer(machine, "reported.service", "reported", "");
    machine.systemctl(&["start", "reported.service"]).ok();
    if machine.systemd_version() < 262 {
        // Nobody would ask it.
        machine.systemctl(&["cat", "opnix-report.socket"]).fails();
        return;
    }
    machine.sh("systemd-analyze verify --man=no opnix-report.socket opnix-report@x.service").ok();
    let said = machine.sh(documented(1)).ok();
    assert!(said.contains("io.opnix.SecretAvailable") && said.contains("reported"), "{said}");
    let list = |from: &str| {
        let all = machine.run(&["/usr/lib/systemd/systemd-report", from, "io.opnix", "--json=short"]).ok();
        let all = all.replace('\u{1e}', "");
        let stream = serde_json::Deserializer::from_str(&all).into_iter::<Value>();
        stream
            .map(|one| one.expect("JSON"))
            .flat_map(|one| one.as_array().cloned().unwrap_or_else(|| vec![one]))
            .collect::<Vec<Value>>()
    };
    let metrics = list("metrics");
    let metric =
        |name: &str| metrics.iter().find(|metric| metric["name"] == name).cloned().unwrap_or_default();
    assert_eq!(metric("io.opnix.Up")["value"], 1, "{metrics:#?}");
    assert_eq!(metric("io.opnix.SecretAvailable")["object"], "reported");
    assert_eq!(metric("io.opnix.BuildInfo")["fields"]["version"], env!("CARGO_PKG_VERSION"));
    let described = list("describe");
    let types: Vec<&Value> = described.iter().map(|family| &family["type"]).collect();
    assert!(types.contains(&&json!("counter")) && types.contains(&&json!("gauge")), "{described:#?}");
    // systemd's own client reads the interface, and each metric is of a family that is described.
    let socket = "/run/systemd/report/io.opnix";
    let interface = machine.run(&["varlinkctl", "introspect", socket, "io.systemd.Metrics"]).ok();
    for line in ["method List()", "method Describe()", "error NoSuchMetric", "value: any"] {
        assert!(interface.contains(line), "{line} in {interface}");
    }
    for metric in &metrics {
        assert!(described.iter().any(|family| family["name"] == metric["name"]), "{metric}");
    }
    let once = machine.run(&["varlinkctl", "call", socket, "io.systemd.Metrics.List", "{}"]);
    assert!(once.stderr.contains("called without 'more' flag"), "{once}");
    // For administrators only, and a service that was stopped stays so.
    machine
        .run(&["setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups", "varlinkctl", "info", socket])
        .fails();
    machine.systemctl(&["stop", "opnix.service"]).ok();
    let stopped = list("metrics");
    assert!(
        stopped.iter().any(|metric| metric["name"] == "io.opnix.Up" && metric["value"] == 0),
        "{stopped:#?}"
    );
    assert_ne!(machine.show("opnix.service", "ActiveState"), "active");
    machine.systemctl(&["disable", "--now", "opnix-report.socket"]).ok();
}
