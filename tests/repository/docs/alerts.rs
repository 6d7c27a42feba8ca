//! The alerts: one for each row of what doctor finds, made from the rows and the code, and judged by Prometheus' own tool.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::promtool::promtool;
use crate::root;

const RULES: &str = "docs/examples/prometheus/opnix.rules.yml";

/// Units do not start because of these, or secrets are open to others. All others are warnings.
const CRITICAL: [&str; 17] = [
    "service-missing",
    "service-does-not-start",
    "service-silent",
    "socket-stopped",
    "socket-open",
    "machine-refuses",
    "credentials-fail",
    "run-full",
    "memory-missing",
    "file-missing",
    "token-open",
    "secret-unavailable",
    "unit-refused",
    "unit-gave-up",
    "unit-fails-otherwise",
    "token-rejected",
    "service-stopped",
];
/// What passes by itself as a rule is told only when it lasts.
const PATIENT: [&str; 9] = [
    "name-unknown",
    "proxy-wrong",
    "unreachable",
    "untrusted",
    "provider-fails",
    "rate-limited",
    "budget-spent",
    "unit-waits",
    "step-hangs",
];
/// What the counts and states of the service tell besides, for the metrics' own part: name, expression, how long, severity, summary,
/// description, and where to read on.
const OTHERS: [[&str; 7]; 5] = [
    [
        "OpnixSecretNeededAndMissing",
        "(opnix_secret_available == 0) and (opnix_secret_needed == 1)",
        "5m",
        "critical",
        "opnix on {{ $labels.instance }}: {{ $labels.secret }} cannot be had",
        "Units that need it do not start. `opnix status` on the machine says why.",
        TROUBLE,
    ],
    [
        "OpnixRefusals",
        // What was counted before it was looked at for the first time, as after a boot, is no increase.
        "sum without (reason) (increase(opnix_requests_refused_total{client=\"unit\",reason!=\"stopping\"}[15m]) > 0 or opnix_requests_refused_total{client=\"unit\",reason!=\"stopping\"} unless opnix_requests_refused_total{client=\"unit\",reason!=\"stopping\"} offset 15m) > 0",
        "0m",
        "warning",
        "opnix on {{ $labels.instance }}: units were refused credentials within the last quarter of an hour",
        "They may have got them since: what they have not got is told by OpnixUnitRefused. See: journalctl -u opnix.service -p warning",
        TROUBLE,
    ],
    [
        "OpnixMetricsOld",
        "time() - opnix_collected_timestamp_seconds > 600",
        "5m",
        "warning",
        "opnix on {{ $labels.instance }}: the metrics are old, and what they say may not be so any more",
        "See: systemctl status opnix-metrics.timer opnix-metrics.service",
        "docs/metrics.md#from-a-machine-to-prometheus",
    ],
    [
        "OpnixUnseen",
        "opnix_doctor_unseen > 0",
        "15m",
        "warning",
        "opnix on {{ $labels.instance }}: something could not be looked at, and may be wrong",
        "See: opnix doctor",
        TROUBLE,
    ],
    [
        "OpnixMetricsMissing",
        "group by (instance) (last_over_time(opnix_up[7d])) unless group by (instance) (opnix_up)",
        "15m",
        "warning",
        "opnix on {{ $labels.instance }}: there are no metrics any more",
        "See: systemctl status opnix-metrics.timer opnix-metrics.service",
        "docs/metrics.md#from-a-machine-to-prometheus",
    ],
];
const TROUBLE: &str = "docs/troubleshooting.md#what-opnix-doctor-finds";

/// The kinds in the order of the code, each with why it matters.
fn kinds() -> Vec<(String, String)> {
    let code = fs::read_to_string(root().join("src/cli/doctor/finding.rs")).unwrap();
    let table = code.split_once("\nkinds! {\n").unwrap().1.split_once("\n}\n").unwrap().0;
    let kind = |line: &str| {
        let mut parts = line.split('"').skip(1).step_by(2).map(str::to_owned);
        (parts.next().unwrap(), parts.next().unwrap())
    };
    table.lines().map(kind).collect()
}

/// What each row of the documentation says that the finding is.
fn rows() -> BTreeMap<String, String> {
    let docs = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let table = docs.split_once("\n## What `opnix doctor` finds\n").unwrap().1;
    let table = table.split_once("\n## ").map_or(table, |(table, _)| table);
    let row = |line: &str| {
        let mut columns = line.split(" | ");
        let id = columns.next()?.strip_prefix("| `")?.strip_suffix('`')?.to_owned();
        Some((id, columns.next()?.to_owned()))
    };
    table.lines().filter_map(row).collect()
}

fn rules() -> String {
    let mut rows = rows();
    let mut text = "# One alert for each row of docs/troubleshooting.md, \"What `opnix doctor` finds\", and four of what the service counts and of the\n\
        # metrics themselves. Made by tests/repository/docs/alerts.rs. docs/metrics.md says how the metrics come to Prometheus.\n\
        groups:\n  - name: opnix\n    rules:\n"
        .to_owned();
    for (kind, why) in kinds() {
        let what =
            rows.remove(&kind).unwrap_or_else(|| panic!("docs/troubleshooting.md has no row for {kind}"));
        let lasts = if PATIENT.contains(&kind.as_str()) { "15m" } else { "5m" };
        let severity = if CRITICAL.contains(&kind.as_str()) { "critical" } else { "warning" };
        text += &rule(
            &[
                &format!("Opnix{}", kind.split('-').map(capital).collect::<String>()),
                &format!("sum without (kind, level) (opnix_doctor_findings{{kind=\"{kind}\"}}) > 0"),
                lasts,
                severity,
                &format!("opnix on {{{{ $labels.instance }}}}: {}", what.replace('`', "")),
                &format!("{}. `opnix doctor` on the machine says what to do.", capital(&why)),
                TROUBLE,
            ],
            Some(&kind),
        );
    }
    assert!(rows.is_empty(), "rows of no kind of finding: {rows:?}");
    OTHERS.iter().for_each(|other| text += &rule(other, None));
    text
}

fn rule(
    [name, expression, lasts, severity, summary, description, read]: &[&str; 7],
    kind: Option<&str>,
) -> String {
    let kind = kind.map_or_else(String::new, |kind| format!("          kind: {kind}\n"));
    let (summary, description) = (quoted(summary), quoted(description));
    format!(
        "      - alert: {name}\n        expr: {expression}\n        for: {lasts}\n        labels:\n          severity: {severity}\n{kind}        \
         annotations:\n          summary: {summary}\n          description: {description}\n          runbook: {read}\n"
    )
}

fn capital(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_uppercase() + rest
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Whatever Prometheus' tool says of this.
fn judged(arguments: &[&str]) -> String {
    let output = Command::new(promtool()).args(arguments).current_dir(root()).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn each_finding_has_one_alert() {
    let kinds = kinds();
    assert!(kinds.len() > 40, "{kinds:?}");
    for listed in CRITICAL.iter().chain(&PATIENT) {
        assert!(kinds.iter().any(|(kind, _)| kind == listed), "{listed} is not a kind of finding");
    }
    let path: PathBuf = root().join(RULES);
    if std::env::var_os("OPNIX_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, rules()).unwrap();
    }
    let shipped = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        shipped == rules(),
        "{RULES} is not as it would be made: OPNIX_BLESS=1 cargo test --test repository alert"
    );
    for (kind, _) in kinds {
        assert_eq!(shipped.matches(&format!("          kind: {kind}\n")).count(), 1, "{kind}");
    }
}

#[test]
fn prometheus_takes_the_alerts() {
    let said = judged(&["check", "rules", RULES]);
    let count = kinds().len() + OTHERS.len();
    assert!(said.contains(&format!("SUCCESS: {count} rules found")), "{said}");
}

#[test]
fn alerts_come_when_they_should_and_only_then() {
    let said = judged(&["test", "rules", "tests/repository/docs/alerts.yml"]);
    assert!(said.contains("SUCCESS"), "{said}");
}
