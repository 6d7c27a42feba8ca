//! The process that asks 1Password, from outside: how long it lives, and what it gets from the service. The provider is
//! `connect`, which needs nothing but the simulator; with a service account the process is the same.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, new_directory};
use crate::simulators::account::Account;
use crate::simulators::connect::{Connect, TOKEN};
use crate::simulators::http::Fault;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const USERNAME: (&str, &str) = ("key", "op://Zoo/Sections/username");
const OTHER: (&str, &str) = ("other", "op://Zoo/Kinds/extra/lines");
/// Far longer than anything takes.
const LIMIT: Duration = Duration::from_secs(30);

fn everything() -> Connect {
    Connect::local(Account::everything())
}

fn daemon(simulator: &Connect, deadline: &str, secrets: &[(&str, &str)]) -> Daemon {
    Daemon::with(deadline, &json!({"kind": "connect", "host": simulator.url()}), TOKEN, secrets)
}

#[track_caller]
fn wait(what: &str, limit: Duration, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !so() {
        assert!(Instant::now() < end, "waited {limit:?} in vain for: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// A zombie is one whose parent has not asked for its end yet: it does and holds nothing any more.
fn lives(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

/// The child at work on a request that is not answered, and so stuck that it hears of nothing: only to be killed.
fn stuck(daemon: &Daemon, simulator: &Connect, on: &str) -> u32 {
    wait("the request", LIMIT, || simulator.server.requests().iter().any(|request| request.starts_with(on)));
    let [child] = daemon.children()[..] else { panic!("one child") };
    send(child, Signal::SIGSTOP);
    child
}

#[test]
fn a_child_that_is_stuck_in_a_fetch_is_killed_at_the_deadline() {
    let simulator = everything();
    let daemon = daemon(&simulator, "2s", &[USERNAME, OTHER]);
    assert!(daemon.ask("other").is_some(), "it is signed in");
    simulator.server.forget_requests();
    simulator.server.fault("GET", usize::MAX, Fault::Hang);
    thread::scope(|scope| {
        let refusal = scope.spawn(|| daemon.refusal("key"));
        let child = stuck(&daemon, &simulator, "GET");
        assert!(refusal.join().unwrap().contains("did not answer within 2s"));
        wait("the end of the child", Duration::from_secs(2), || !lives(child));
    });
    simulator.server.clear_faults();
    assert_eq!(daemon.ask("key").as_deref(), Some("keeper"));
}

#[test]
fn a_child_that_is_stuck_before_it_says_that_it_is_ready_is_killed_at_the_deadline() {
    let simulator = everything();
    let daemon = daemon(&simulator, "2s", &[USERNAME]);
    thread::scope(|scope| {
        let refusal = scope.spawn(|| daemon.refusal("key"));
        wait("the child", LIMIT, || !daemon.children().is_empty());
        let [child] = daemon.children()[..] else { panic!("one child") };
        send(child, Signal::SIGSTOP);
        let refusal = refusal.join().unwrap();
        if simulator.server.requests().is_empty() {
            assert!(refusal.contains("did not answer within 2s"), "{refusal}");
        }
        wait("the end of the child", Duration::from_secs(2), || !lives(child));
    });
    assert_eq!(daemon.ask("key").as_deref(), Some("keeper"));
}

#[test]
fn an_answer_that_comes_after_the_deadline_is_never_taken_for_that_of_the_next_question() {
    let simulator = everything();
    let secrets = [USERNAME, OTHER, ("first", "op://Zoo/Sections/only")];
    let daemon = daemon(&simulator, "2s", &secrets);
    assert!(daemon.ask("first").is_some(), "it is signed in");
    simulator.server.forget_requests();
    simulator.server.fault("GET", 1, Fault::Hold);
    thread::scope(|scope| {
        let refusal = scope.spawn(|| daemon.refusal("key"));
        let child = stuck(&daemon, &simulator, "GET");
        assert!(refusal.join().unwrap().contains("did not answer within 2s"));
        // Now it has its answer; if it lived, it would pass it on.
        simulator.server.clear_faults();
        thread::sleep(Duration::from_millis(200));
        let _ = kill(Pid::from_raw(i32::try_from(child).unwrap()), Signal::SIGCONT);
    });
    let lines = simulator_value(&OTHER);
    assert_eq!(daemon.ask("other"), Some(lines));
    assert_eq!(daemon.ask("key").as_deref(), Some("keeper"));
}

#[test]
fn what_is_fetched_together_reaches_whoever_asked_for_it_past_what_is_missing() {
    let simulator = everything();
    let secrets = [
        ("first", "op://Zoo/Sections/prod/only"),
        USERNAME,
        ("no-item", "op://Zoo/Nope/x"),
        OTHER,
        ("no-field", "op://Zoo/Sections/nope"),
        ("another", "op://One Vault/Item 7/value"),
        ("no-vault", "op://Nope/x/x"),
        ("last", "op://Zoo/Sections/test/password"),
    ];
    let daemon = daemon(&simulator, "20s", &secrets);
    // While this one is held up, the others gather for the next fetch.
    simulator.server.fault("GET", 1, Fault::Hold);
    thread::scope(|scope| {
        let asks = secrets.map(|secret| {
            let ask = scope.spawn({
                let daemon = &daemon;
                move || (secret, daemon.ask(secret.0))
            });
            wait("the first request", LIMIT, || !simulator.server.requests().is_empty());
            ask
        });
        wait("all to wait", LIMIT, || waiting(&daemon) == secrets.len());
        thread::sleep(Duration::from_millis(100));
        simulator.server.clear_faults();
        for ask in asks {
            let (secret, answer) = ask.join().unwrap();
            let expected = (!secret.0.starts_with("no-")).then(|| simulator_value(&secret));
            assert_eq!(answer, expected, "{}", secret.0);
        }
    });
    // One for the first, and for the others one for each item: they went together.
    let requests = simulator.server.requests();
    assert_eq!(requests.iter().filter(|request| request.contains("/items/")).count(), 4, "{requests:?}");
}

/// How many requests of units wait for their value.
fn waiting(daemon: &Daemon) -> usize {
    let (status, _) = daemon.command(&["status", "--json"]);
    let status: Value = serde_json::from_str(&status).unwrap();
    usize::try_from(status["waiting"].as_u64().unwrap()).unwrap()
}

fn simulator_value((_, reference): &(&str, &str)) -> String {
    Account::everything().expected()[reference].as_str().unwrap().to_owned()
}

#[test]
fn a_child_that_is_stuck_ends_with_the_service() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let simulator = everything();
        let daemon = daemon(&simulator, "30s", &[USERNAME]);
        simulator.server.fault("GET", usize::MAX, Fault::Hang);
        let child = thread::scope(|scope| {
            // Its connection ends with the service, in one way or another.
            let asker = scope
                .spawn(|| drop(opnix::systemd::asker::ask(&socket(&daemon), crate::daemon::UNIT, "key")));
            let child = stuck(&daemon, &simulator, "GET");
            let worker = daemon.pid();
            send(if signal == Signal::SIGKILL { worker } else { daemon.keeper() }, signal);
            wait("the end of the service", LIMIT, || !lives(worker));
            asker.join().unwrap();
            child
        });
        wait(&format!("the end of the child after {signal}"), Duration::from_secs(2), || !lives(child));
    }
}

#[test]
fn a_signal_that_is_meant_for_the_service_does_not_end_a_fetch() {
    let simulator = everything();
    let daemon = daemon(&simulator, "20s", &[USERNAME]);
    simulator.server.fault("GET", 1, Fault::Hold);
    thread::scope(|scope| {
        let value = scope.spawn(|| daemon.ask("key"));
        wait("the request", LIMIT, || !simulator.server.requests().is_empty());
        let [child] = daemon.children()[..] else { panic!("one child") };
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            send(child, signal);
        }
        thread::sleep(Duration::from_millis(100));
        assert!(lives(child));
        simulator.server.clear_faults();
        assert_eq!(value.join().unwrap().as_deref(), Some("keeper"));
        assert_eq!(daemon.children(), [child]);
    });
}

fn socket(daemon: &Daemon) -> std::path::PathBuf {
    daemon.control().with_file_name("socket")
}

#[test]
fn a_child_that_has_nothing_to_do_is_kept_for_some_seconds_and_no_longer() {
    let simulator = everything();
    let daemon = daemon(&simulator, "20s", &[USERNAME, OTHER]);
    assert!(daemon.ask("key").is_some());
    let [child] = daemon.children()[..] else { panic!("one child") };
    thread::sleep(Duration::from_secs(3));
    assert!(daemon.ask("other").is_some());
    assert_eq!(daemon.children(), [child], "what is asked soon after goes to the same one");
    wait("its end", Duration::from_secs(20), || !lives(child));
}

#[test]
fn the_child_gets_nothing_of_the_services_environment_but_the_way_out() {
    let simulator = everything();
    let secret = Path::new("made-up-and-not-for-others");
    let environment = [
        ("OP_SERVICE_ACCOUNT_TOKEN", secret),
        ("OP_CONNECT_TOKEN", secret),
        ("CREDENTIALS_DIRECTORY", secret),
        ("NOTIFY_SOCKET", secret),
        ("LD_LIBRARY_PATH", secret),
        ("NO_PROXY", Path::new("127.0.0.1")),
    ];
    let provider = json!({"kind": "connect", "host": simulator.url()});
    let daemon = Daemon::in_environment(&environment, "20s", &provider, TOKEN, &[USERNAME]);
    assert!(daemon.ask("key").is_some());
    let [child] = daemon.children()[..] else { panic!("one child") };
    let known = fs::read_to_string(format!("/proc/{child}/environ")).unwrap();
    let names: Vec<&str> =
        known.split_terminator('\0').filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let may_know = [
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "NO_PROXY",
        "no_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ];
    assert!(names.contains(&"NO_PROXY"), "{names:?}");
    assert!(names.iter().all(|name| may_know.contains(name)), "{names:?}");
}

#[test]
fn the_child_closes_what_the_service_itself_inherited() {
    let simulator = everything();
    let directory = new_directory("inherited");
    let path = directory.join("file");
    let file = File::create(&path).unwrap();
    // As a caller passes it on who does not mark it.
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let daemon = daemon(&simulator, "20s", &[USERNAME]);
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    let holds =
        |pid: u32| fs::read_link(format!("/proc/{pid}/fd/{}", file.as_raw_fd())).is_ok_and(|at| at == path);
    assert!(holds(daemon.pid()));
    assert!(daemon.ask("key").is_some());
    let [child] = daemon.children()[..] else { panic!("one child") };
    assert!(!holds(child));
    drop(daemon);
    fs::remove_dir_all(directory).unwrap();
}
