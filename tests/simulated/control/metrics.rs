//! `opnix metrics`: what was counted, and what Prometheus' own tool says of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Host, write_vault};
use crate::daemon::Daemon;
use crate::helpers::wait;
use crate::promtool::promtool;

/// The metrics by name and labels, as they are written.
fn metrics(daemon: &Daemon) -> BTreeMap<String, f64> {
    let (text, code) = daemon.command(&["metrics"]);
    assert_eq!(code, 0, "{text}");
    read(&text)
}

fn read(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// What Prometheus' own tool finds wrong with it.
fn check(text: &str) {
    let mut judge = Command::new(promtool())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    judge.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let judged = judge.wait_with_output().unwrap();
    let said = [judged.stdout, judged.stderr].concat();
    assert!(judged.status.success() && said.is_empty(), "{}\n{text}", String::from_utf8_lossy(&said));
}

/// Those of this family that are not zero, by their labels.
fn counted(metrics: &BTreeMap<String, f64>, family: &str) -> Vec<(String, f64)> {
    let of = |name: &str| name.strip_prefix(family)?.strip_prefix('{')?.strip_suffix('}').map(str::to_owned);
    metrics
        .iter()
        .filter(|(_, value)| **value != 0.0)
        .filter_map(|(name, value)| Some((of(name)?, *value)))
        .collect()
}

fn one(labels: &str, value: f64) -> (String, f64) {
    (labels.to_owned(), value)
}

#[test]
fn each_request_is_counted_once_by_who_asked_and_what_came_of_it() {
    let mut host = Host::new(true);
    assert!(host.daemon.ask("openai-api-key").is_some());
    for _ in 0..3 {
        assert!(host.daemon.ask("openai-api-key").is_some());
    }
    assert!(host.daemon.ask("both").is_some());
    assert_eq!((host.daemon.ask("gone"), host.daemon.ask("nobody-has-this")), (None, None));
    let now = metrics(&host.daemon);
    let served =
        [one(r#"client="unit",source="memory""#, 3.0), one(r#"client="unit",source="provider""#, 2.0)];
    assert_eq!(counted(&now, "opnix_requests_served_total"), served);
    let refused =
        [one(r#"client="unit",reason="policy""#, 1.0), one(r#"client="unit",reason="provider""#, 1.0)];
    assert_eq!(counted(&now, "opnix_requests_refused_total"), refused);
    let refused_now = [one(r#"reason="policy""#, 1.0), one(r#"reason="provider""#, 1.0)];
    assert_eq!(counted(&now, "opnix_credentials_refused"), refused_now);
    for (name, value) in [
        (r#"opnix_request_duration_seconds_count{outcome="served"}"#, 5.0),
        (r#"opnix_request_duration_seconds_bucket{le="+Inf",outcome="refused"}"#, 2.0),
        (r#"opnix_provider_values_total{result="ok"}"#, 2.0),
        ("opnix_up", 1.0),
        ("opnix_provider_up", 1.0),
        ("opnix_configuration_valid", 1.0),
        (r#"opnix_secret_available{secret="gone"}"#, 0.0),
        (r#"opnix_secret_state{secret="both",state="fresh"}"#, 1.0),
        (r#"opnix_budget_limit_requests{window="day"}"#, 200.0),
        ("opnix_requests_waiting", 0.0),
    ] {
        let found = now.get(name).or_else(|| now.get(&swapped(name)));
        assert_eq!(found, Some(&value), "{name} in\n{now:#?}");
    }
    // What the next service has from the disk, and what it serves of old when there is no provider.
    wait("the cache to be written", || metrics(&host.daemon)[r#"opnix_cache_values{place="disk"}"#] == 2.0);
    let directory = host.directory.clone();
    end(&host.daemon);
    host.daemon = Host::daemon(&directory);
    assert!(host.daemon.ask("openai-api-key").is_some());
    let now = metrics(&host.daemon);
    let served = counted(&now, "opnix_requests_served_total");
    assert_eq!(served, [one(r#"client="unit",source="disk""#, 1.0)]);
}

fn end(daemon: &Daemon) {
    crate::daemon::signal(daemon.keeper(), nix::sys::signal::Signal::SIGTERM);
    wait("the service to end", || !daemon.control().exists());
}

/// The order of labels is the library's.
fn swapped(name: &str) -> String {
    let Some((family, labels)) = name.trim_end_matches('}').split_once('{') else { return name.to_owned() };
    let labels: Vec<&str> = labels.split(',').rev().collect();
    format!("{family}{{{}}}", labels.join(","))
}

#[test]
fn what_is_told_passes_prometheus_own_check_and_has_no_secret() {
    let host = Host::new(true);
    assert!(host.daemon.ask("openai-api-key").is_some());
    let (text, code) = host.daemon.command(&["metrics", "--doctor"]);
    assert_eq!(code, 0, "{text}");
    check(&text);
    assert!(text.contains("# TYPE opnix_requests_served_total counter\n"), "{text}");
    // There is no systemd here whose units could be looked at, so what is not found may still be there.
    assert!(!text.contains("\nopnix_doctor_unseen 0\n") && text.contains("\nopnix_doctor_unseen "), "{text}");
    assert!(!text.contains("opnix_doctor_findings{kind=\"token-missing\""), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn the_file_is_whole_for_all_to_read_and_says_when_the_service_is_gone() {
    let host = Host::new(true);
    let file = host.directory.join("opnix.prom");
    let control = host.daemon.control();
    let write = |daemon: Option<&Daemon>| {
        let arguments = ["metrics", "--textfile", file.to_str().unwrap()];
        let code = match daemon {
            Some(daemon) => daemon.command(&arguments).1,
            None => without_service(&arguments, &control).status.code().unwrap(),
        };
        assert_eq!(code, 0);
        fs::read_to_string(&file).unwrap()
    };
    let before = write(Some(&host.daemon));
    assert_eq!(read(&before)["opnix_up"], 1.0);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644);
    let directory = host.directory.clone();
    end(&host.daemon);
    let after = write(None);
    let metrics = read(&after);
    assert_eq!(metrics["opnix_up"], 0.0);
    assert!(!after.contains("opnix_secret_") && !after.contains("opnix_provider_up"), "{after}");
    check(&after);
    let nowhere = directory.join("nowhere/opnix.prom");
    let failed = without_service(&["metrics", "--textfile", nowhere.to_str().unwrap()], &control);
    assert_eq!(failed.status.code(), Some(71));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("cannot write"));
}

fn without_service(arguments: &[&str], control: &Path) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_opnix")).args(arguments).arg("--control").arg(control).output().unwrap()
}

#[test]
fn a_provider_that_fails_is_told_by_the_kind_of_its_error() {
    let host = Host::new(true);
    fs::write(host.vault(), "garbage").unwrap();
    assert_eq!(host.daemon.ask("openai-api-key"), None);
    let failing = metrics(&host.daemon);
    assert_eq!((failing["opnix_provider_up"], failing[r#"opnix_provider_state{state="down"}"#]), (0.0, 1.0));
    assert_eq!(failing[r#"opnix_provider_error{kind="vault-file-unusable"}"#], 1.0);
    assert!(!failing.contains_key("opnix_provider_last_success_timestamp_seconds"));
    write_vault(&host.vault(), &[("OpenAI", "canary-1"), ("Datadog", "canary-2")]);
    wait("it to come back", || metrics(&host.daemon)["opnix_provider_up"] == 1.0);
    let working = metrics(&host.daemon);
    assert!(working["opnix_provider_last_success_timestamp_seconds"] > 1e9);
    assert!(!working.keys().any(|name| name.starts_with("opnix_provider_error")));
}

#[test]
fn a_service_that_hangs_is_not_up() {
    let host = Host::new(true);
    let worker = host.daemon.pid();
    crate::daemon::signal(worker, nix::sys::signal::Signal::SIGSTOP);
    let (said, code) = host.daemon.command(&["metrics"]);
    crate::daemon::signal(worker, nix::sys::signal::Signal::SIGCONT);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.lines().any(|line| line == "opnix_up 0") && !said.contains("opnix_configuration_valid"),
        "{said}"
    );
    assert!(said.contains("the service does not answer"), "{said}");
}

/// Ten thousand, some of them named as nobody should.
#[test]
fn any_number_of_secrets_is_told_whatever_their_names() {
    let host = Host::new(true);
    let names = |number: u32| match number {
        0 => "quoted \"name\"".to_owned(),
        1 => "back\\slash".to_owned(),
        2 => "{a=\"b\"} 1".to_owned(),
        number => format!("secret-{number}"),
    };
    let secrets: Vec<_> = (0..10_000)
        .map(|number| {
            let credential = format!("c{number}");
            serde_json::json!({"name": names(number), "reference": "op://Vault/OpenAI/value",
                "units": [{"unit": "test.service", "credential": credential}]})
        })
        .collect();
    let config = serde_json::json!({"provider": {"kind": "local", "path": host.vault()}, "secrets": secrets});
    host.daemon.configure(&config);
    host.daemon.reload();
    assert!(host.daemon.ask("c0").is_some());
    let begun = std::time::Instant::now();
    let (text, code) = host.daemon.command(&["metrics"]);
    assert!(code == 0 && begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    check(&text);
    assert_eq!(text.lines().filter(|line| line.starts_with("opnix_secret_available{")).count(), 10_000);
    assert!(text.contains(r#"opnix_secret_available{secret="quoted \"name\""} 1"#));
}
