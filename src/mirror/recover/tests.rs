//! The rule, on units as the service manager would tell of them.

use nix::time::{ClockId, clock_gettime};

use super::*;
use crate::mirror::startable::is_up;
use crate::systemd::bus::Value;

/// A machine's units, as its service manager tells of them.
#[derive(Default)]
struct Units(BTreeMap<String, BTreeMap<&'static str, Value>>);

impl Look for Units {
    fn unit(&mut self, name: &str) -> Option<Unit> {
        let properties: Vec<_> =
            self.0.get(name)?.iter().map(|(name, value)| (*name, value.clone())).collect();
        Some(Unit::made_up(name, &properties))
    }
}

fn texts(texts: &[&str]) -> Value {
    Value::List(texts.iter().map(|text| Value::Text((*text).into())).collect())
}

fn job(id: i128) -> Value {
    Value::List(vec![Value::Number(id), Value::Text("/".into())])
}

fn tests_of(tests: &[(&str, &Path, bool, i128)]) -> Value {
    let test = |(kind, path, negated, state): &(&str, &Path, bool, i128)| {
        Value::List(vec![
            Value::Text((*kind).into()),
            Value::Flag(false),
            Value::Flag(*negated),
            Value::Text(path.display().to_string()),
            Value::Number(*state),
        ])
    };
    Value::List(tests.iter().map(test).collect())
}

impl Units {
    fn with(mut self, name: &str, properties: &[(&'static str, Value)]) -> Self {
        let text = |text: &str| Value::Text(text.into());
        let mut all = BTreeMap::from([
            ("ActiveState", text("inactive")),
            ("LoadState", text("loaded")),
            ("UnitFileState", text("enabled")),
            ("Result", text("success")),
            ("Job", job(0)),
        ]);
        all.extend(properties.iter().cloned());
        self.0.insert(name.into(), all);
        self
    }

    fn set(&mut self, name: &str, property: &'static str, value: Value) {
        self.0.get_mut(name).unwrap().insert(property, value);
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn target() -> [(&'static str, Value); 1] {
    [("ActiveState", text("active"))]
}

/// A file that is there, one that is not, and one that is nobody's.
fn files() -> (PathBuf, PathBuf, PathBuf) {
    (
        PathBuf::from("/proc/self/status"),
        PathBuf::from("/proc/self/no-such-file"),
        PathBuf::from("/proc/version"),
    )
}

fn provided() -> Provided {
    let (there, away, _) = files();
    Provided {
        files: [(there, BTreeSet::new()), (away, BTreeSet::new())].into(),
        missed: Some(BTreeMap::new()),
        ..Provided::default()
    }
}

fn starts(units: &mut Units, provided: &Provided) -> Vec<String> {
    let mut left = Left::default();
    scan(&mut left, units, provided);
    left.next_starts(provided, units)
}

fn scan(left: &mut Left, units: &mut Units, provided: &Provided) {
    let down: Vec<String> = units.0.keys().cloned().collect();
    left.scan(&down, provided, units);
}

/// A unit whose assertion on a file of ours failed.
fn reader(more: &[(&'static str, Value)]) -> Units {
    let (there, ..) = files();
    let asserts = tests_of(&[("AssertPathExists", &there, false, -1)]);
    let mut all = vec![("Asserts", asserts), ("WantedBy", texts(&["multi-user.target"]))];
    all.extend(more.iter().cloned());
    Units::default().with("multi-user.target", &target()).with("a.service", &all)
}

#[test]
fn a_unit_that_lacked_a_file_starts_when_it_is_there() {
    assert_eq!(starts(&mut reader(&[]), &provided()), ["a.service"]);
}

#[test]
fn what_an_administrator_or_anything_else_keeps_down_stays_down() {
    let (there, away, other) = files();
    let failed = |path: &Path| ("AssertPathExists", path.to_owned(), false, -1);
    let asserts = |tests: &[(&str, PathBuf, bool, i128)]| {
        let tests: Vec<_> = tests
            .iter()
            .map(|(kind, path, negated, state)| (*kind, path.as_path(), *negated, *state))
            .collect();
        ("Asserts", tests_of(&tests))
    };
    let cases: [(&str, Vec<(&'static str, Value)>); 16] = [
        ("it was stopped while it ran", vec![asserts(&[("AssertPathExists", there.clone(), false, 1)])]),
        ("it was never started", vec![asserts(&[("AssertPathExists", there.clone(), false, 0)])]),
        ("its tests held as a whole", vec![("AssertResult", Value::Flag(true))]),
        ("its file is not there", vec![asserts(&[failed(&away)])]),
        ("another assertion failed too", vec![asserts(&[failed(&there), failed(&other)])]),
        ("it waits for a file to go", vec![asserts(&[("AssertPathExists", there.clone(), true, -1)])]),
        ("it is disabled", vec![("UnitFileState", text("disabled"))]),
        ("it cannot be started by hand", vec![("CanStart", Value::Flag(false))]),
        ("it would stop what runs", vec![("Conflicts", texts(&["other.service"]))]),
        ("what runs would be stopped", vec![("ConflictedBy", texts(&["other.service"]))]),
        ("it is masked", vec![("LoadState", text("masked")), ("UnitFileState", text("masked"))]),
        ("it has a job", vec![("Job", job(7))]),
        ("it runs", vec![("ActiveState", text("active"))]),
        ("nothing wants it", vec![("WantedBy", texts(&[]))]),
        ("only a timer wants it", vec![("WantedBy", texts(&["a.timer"]))]),
        ("what wants it is down", vec![("WantedBy", texts(&["rescue.target"]))]),
    ];
    for (why, more) in cases {
        let mut units = reader(&more)
            .with("a.timer", &target())
            .with("rescue.target", &[])
            .with("other.service", &target());
        assert!(starts(&mut units, &provided()).is_empty(), "{why}");
    }
    for system in ["stopping", "maintenance", "offline", "unknown", ""] {
        assert!(!is_up(system));
    }
}

#[test]
fn of_a_file_in_a_directory_of_somebody_else_counts_what_is_known() {
    let (there, away, _) = files();
    let tests = |path: &Path| ("Asserts", tests_of(&[("AssertPathExists", path, false, -1)]));
    // As if both were the other way round: their directories are not asked.
    let elsewhere = [(there.clone(), None), (away.clone(), Some(SystemTime::now()))].into();
    let provided = Provided { elsewhere, ..provided() };
    assert!(starts(&mut reader(&[tests(&there)]), &provided).is_empty());
    assert_eq!(starts(&mut reader(&[tests(&away)]), &provided), ["a.service"]);
}

#[test]
fn what_systemd_forgets_is_remembered_until_the_unit_has_run() {
    let place = std::env::temp_dir().join(format!("opnix-left-{}", std::process::id()));
    let _ = std::fs::remove_file(&place);
    let provided = Provided {
        files: [(place.clone(), BTreeSet::new())].into(),
        missed: Some(BTreeMap::new()),
        ..Provided::default()
    };
    let tests = |path: &Path, state| ("Asserts", tests_of(&[("AssertPathExists", path, false, state)]));
    let mut units = reader(&[tests(&place, -1)]);
    let mut left = Left::default();
    scan(&mut left, &mut units, &provided);
    assert!(left.next_starts(&provided, &mut units).is_empty());
    // It reads its unit files anew.
    units.set("a.service", "Asserts", tests(&place, 0).1);
    scan(&mut left, &mut units, &provided);
    std::fs::write(&place, "").unwrap();
    let saved = serde_json::to_string(&left).unwrap();
    assert_eq!(left.next_starts(&provided, &mut units), ["a.service"]);
    assert!(left.next_starts(&provided, &mut units).is_empty(), "not again at once");
    // It ran, and was stopped.
    units.set("a.service", "InactiveExitTimestampMonotonic", Value::Number(5));
    let mut left: Left = serde_json::from_str(&saved).unwrap();
    assert!(left.next_starts(&provided, &mut units).is_empty() && left.is_empty());
    std::fs::remove_file(place).unwrap();
}

fn refused(result: &str, code: i128, status: i128, state: &str) -> Units {
    Units::default().with("multi-user.target", &target()).with(
        "a.service",
        &[
            ("WantedBy", texts(&["multi-user.target"])),
            ("ActiveState", text(state)),
            ("Result", text(result)),
            ("ExecMainCode", Value::Number(code)),
            ("ExecMainStatus", Value::Number(status)),
        ],
    )
}

fn missed(ready: bool) -> Provided {
    Provided { missed: Some([("a.service".to_owned(), ready)].into()), ..Provided::default() }
}

#[test]
fn a_unit_that_was_refused_starts_when_it_would_get_everything() {
    let started = ["a.service"];
    assert_eq!(starts(&mut refused("exit-code", 1, 243, "failed"), &missed(true)), started);
    assert_eq!(starts(&mut refused("start-limit-hit", 1, 1, "failed"), &missed(true)), started);
    assert_eq!(starts(&mut refused("timeout", 0, 0, "failed"), &missed(true)), started);
    let step = |code, status| {
        let command = Value::List(vec![text("/bin/true"), Value::Number(code), Value::Number(status)]);
        let mut units = refused("exit-code", 0, 0, "failed");
        units.set("a.service", "ExecStartPre", Value::List(vec![command]));
        units
    };
    assert_eq!(starts(&mut step(1, 243), &missed(true)), started);
    assert_eq!(starts(&mut step(0, 0), &missed(true)), started, "systemd forgot how it ended");
    let nothing = [
        (step(1, 1), missed(true)),
        (refused("exit-code", 1, 243, "failed"), missed(false)),
        (refused("exit-code", 1, 243, "failed"), Provided::default()),
        (refused("exit-code", 1, 1, "failed"), missed(true)),
        (refused("exit-code", 1, 243, "inactive"), missed(true)),
        (refused("exit-code", 1, 243, "activating"), missed(true)),
    ];
    for (mut units, provided) in nothing {
        assert!(starts(&mut units, &provided).is_empty());
    }
}

#[test]
fn a_failure_that_an_administrator_reset_is_over() {
    let mut units = refused("exit-code", 1, 243, "failed");
    let mut left = Left::default();
    scan(&mut left, &mut units, &missed(false));
    assert!(left.next_starts(&missed(false), &mut units).is_empty());
    units.set("a.service", "ActiveState", text("inactive"));
    assert!(left.next_starts(&missed(true), &mut units).is_empty() && left.is_empty());
    // So is one that was stopped while it tried again by itself.
    let mut units = refused("exit-code", 1, 243, "activating");
    scan(&mut left, &mut units, &missed(false));
    assert!(!left.is_empty());
    units.set("a.service", "ActiveState", text("inactive"));
    assert!(left.next_starts(&missed(true), &mut units).is_empty() && left.is_empty());
    // One that was reset for a start of ours, which failed with another's, is not.
    let mut units = refused("exit-code", 1, 243, "failed");
    scan(&mut left, &mut units, &missed(true));
    assert_eq!(left.next_starts(&missed(true), &mut units), ["a.service"]);
    units.set("a.service", "ActiveState", text("inactive"));
    assert!(left.next_starts(&missed(true), &mut units).is_empty() && !left.is_empty());
}

#[test]
fn what_a_socket_starts_comes_by_itself_unless_the_socket_gave_up() {
    let units = |socket: &str, result: &str| {
        let mut units = refused("exit-code", 1, 243, "failed").with("sockets.target", &target()).with(
            "a.socket",
            &[
                ("ActiveState", text(socket)),
                ("Result", text(result)),
                ("WantedBy", texts(&["sockets.target"])),
            ],
        );
        units.set("a.service", "WantedBy", texts(&[]));
        units.set("a.service", "TriggeredBy", texts(&["a.socket"]));
        units
    };
    assert!(starts(&mut units("active", "success"), &missed(true)).is_empty());
    assert_eq!(starts(&mut units("failed", "trigger-limit-hit"), &missed(true)), ["a.socket"]);
    assert!(starts(&mut units("failed", "resources"), &missed(true)).is_empty());
}

#[test]
fn a_unit_that_nothing_refers_to_is_started_where_the_configuration_names_it() {
    let (there, away, _) = files();
    // The tests of a unit that is read anew have no result.
    let asserts = |path: &Path| ("Asserts", tests_of(&[("AssertPathExists", path, false, 0)]));
    let mut units = Units::default().with("a.service", &[asserts(&away), ("UnitFileState", text("static"))]);
    let named = |unit: &str| {
        let mut provided = provided();
        provided.files.get_mut(&there).unwrap().insert(unit.into());
        provided
    };
    let mut left = Left::default();
    left.ended("a.service", "assert", &provided(), &mut units);
    assert_eq!(left.0["a.service"].files, [away].into());
    // As if that file were there now.
    left.0.get_mut("a.service").unwrap().files = [there.clone()].into();
    assert!(left.next_starts(&named("b.service"), &mut units).is_empty());
    assert_eq!(left.next_starts(&named("a.service"), &mut units), ["a.service"]);
    let mut units = Units::default().with("a.service", &[asserts(&there)]);
    let mut left = Left::default();
    left.ended("a.service", "assert", &provided(), &mut units);
    assert!(left.is_empty(), "its file was there");
}

#[test]
fn those_that_require_it_come_after_it() {
    let mut units = reader(&[("RequiredBy", texts(&["b.service"])), ("WantedBy", texts(&[]))]).with(
        "b.service",
        &[("WantedBy", texts(&["multi-user.target"])), ("Requires", texts(&["a.service"]))],
    );
    let mut left = Left::default();
    scan(&mut left, &mut units, &provided());
    assert_eq!(left.next_starts(&provided(), &mut units), ["a.service"], "what b needs");
    units.set("a.service", "ActiveState", text("active"));
    assert_eq!(left.next_starts(&provided(), &mut units), ["b.service"]);
    assert!(left.next_starts(&provided(), &mut units).is_empty(), "once");
}

#[test]
fn one_that_ran_comes_after_it_only_if_its_start_was_seen_to_fail_with_it() {
    let mut units = refused("exit-code", 1, 243, "failed").with(
        "b.service",
        &[
            ("WantedBy", texts(&["multi-user.target"])),
            ("Requires", texts(&["a.service"])),
            ("InactiveExitTimestampMonotonic", Value::Number(5)),
        ],
    );
    units.set("a.service", "RequiredBy", texts(&["b.service"]));
    for seen in [false, true] {
        let mut left = Left::default();
        units.set("a.service", "ActiveState", text("failed"));
        scan(&mut left, &mut units, &missed(false));
        if seen {
            left.ended("b.service", "dependency", &missed(false), &mut units);
        }
        assert!(left.next_starts(&missed(false), &mut units).is_empty());
        units.set("a.service", "ActiveState", text("active"));
        let expected: &[&str] = if seen { &["b.service"] } else { &[] };
        assert_eq!(left.next_starts(&Provided::default(), &mut units), expected);
    }
    // A step that ran and is done counts as well.
    let mut left = Left::default();
    units.set("a.service", "ActiveState", text("failed"));
    left.ended("b.service", "dependency", &missed(false), &mut units);
    units.set("a.service", "ActiveState", text("inactive"));
    units.set("a.service", "Result", text("success"));
    assert!(left.next_starts(&Provided::default(), &mut units).is_empty());
    units.set("a.service", "InactiveExitTimestampMonotonic", Value::Number(9));
    assert_eq!(left.next_starts(&Provided::default(), &mut units), ["b.service"]);
}

#[test]
fn a_failure_with_a_unit_that_opnix_knows_nothing_of_is_none_of_ours() {
    let mut units = Units::default().with("a.service", &[("ActiveState", text("failed"))]).with(
        "b.service",
        &[("Requires", texts(&["a.service"])), ("WantedBy", texts(&["multi-user.target"]))],
    );
    let mut left = Left::default();
    left.ended("b.service", "dependency", &provided(), &mut units);
    assert!(left.is_empty());
}

#[test]
fn the_order_is_that_of_after() {
    let mut units = Units::default()
        .with("a.service", &[("After", texts(&["b.service", "x.target"]))])
        .with("b.service", &[("After", texts(&["c.service"]))])
        .with("c.service", &[]);
    let all = ["a.service", "b.service", "c.service"];
    let units = all.map(|name| (name.to_owned(), units.unit(name).unwrap())).into();
    assert_eq!(in_order(units), ["c.service", "b.service", "a.service"]);
}

#[test]
fn a_unit_that_lacked_its_environment_file_starts_although_the_clock_was_set_back_by_a_year() {
    let file = std::env::temp_dir().join(format!("opnix-recover-{}", std::process::id()));
    let provided = Provided {
        files: [(file.clone(), BTreeSet::new())].into(),
        missed: Some(BTreeMap::new()),
        ..Provided::default()
    };
    let micros = |duration: Duration| Value::Number(duration.as_micros() as i128);
    // systemd's clock stands still while the machine is suspended, as the clock of `Instant` does.
    let monotonic: Duration = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().into();
    let date = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    let failed = |date: Duration, monotonic: Duration| {
        let unset = Value::List(vec![Value::Text(file.display().to_string()), Value::Flag(false)]);
        let properties = [
            ("ActiveState", text("failed")),
            ("Result", text("resources")),
            ("WantedBy", texts(&["multi-user.target"])),
            ("EnvironmentFiles", Value::List(vec![unset])),
            ("InactiveEnterTimestamp", micros(date)),
            ("InactiveEnterTimestampMonotonic", micros(monotonic)),
        ];
        Units::default().with("multi-user.target", &target()).with("a.service", &properties)
    };
    std::fs::write(&file, "").unwrap();
    let ago = Duration::from_secs(5);
    for clock in [date, date + year, date - year] {
        let mut units = failed(clock - ago, monotonic - ago);
        assert_eq!(starts(&mut units, &provided), ["a.service"], "the file came later");
    }
    // It failed by something else: the file was there.
    let later = Duration::from_secs(60);
    assert!(starts(&mut failed(date + later, monotonic + later), &provided).is_empty());
    std::fs::remove_file(file).unwrap();
}

#[test]
fn each_attempt_to_start_without_its_file_is_told_once() {
    let (_, away, _) = files();
    let asserts = tests_of(&[("AssertPathExists", &away, false, -1)]);
    let tried = |at: i128| ("AssertTimestampMonotonic", Value::Number(at));
    let mut units = reader(&[("Asserts", asserts), tried(7)]);
    let (mut left, provided) = (Left::default(), provided());
    let told = [("a.service".to_owned(), away, true)];
    scan(&mut left, &mut units, &provided);
    assert_eq!(left.untold(&provided, &mut units), told);
    // A later look, also one after a restart of the mirror, tells nothing new.
    let mut left: Left = serde_json::from_value(serde_json::to_value(&left).unwrap()).unwrap();
    scan(&mut left, &mut units, &provided);
    assert_eq!(left.untold(&provided, &mut units), []);
    units.set("a.service", "AssertTimestampMonotonic", Value::Number(8));
    assert_eq!(left.untold(&provided, &mut units), told);
    // systemd forgets when it was, and tells that it was.
    units.set("a.service", "AssertTimestampMonotonic", Value::Number(0));
    assert_eq!(left.untold(&provided, &mut units), []);
    left.ended("a.service", "assert", &provided, &mut units);
    units.set("a.service", "WantedBy", texts(&[]));
    assert_eq!(left.untold(&provided, &mut units), [(told[0].0.clone(), told[0].1.clone(), false)]);
}
