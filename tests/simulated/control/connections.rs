//! Whoever connects to the control socket, and however many: administrators and the mirror are answered all the same.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use opnix::internals::asker;

use super::{Host, write_vault};
use crate::daemon::UNIT;
use crate::helpers::{LIMIT, status, wait};

/// More than there were ever places for.
const MANY: usize = 500;
/// Longer than a peer may be silent.
const SILENCE: Duration = Duration::from_secs(20);

fn connect(host: &Host) -> UnixStream {
    let stream = UnixStream::connect(host.daemon.control()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Hears of changes from now on.
fn watch(host: &Host) -> UnixStream {
    let mut stream = connect(host);
    stream.write_all(b"{\"method\":\"io.opnix.Watch\",\"more\":true}\0").unwrap();
    assert!(message(&mut stream).contains("\"count\""));
    stream
}

fn message(stream: &mut UnixStream) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    loop {
        stream.read_exact(&mut byte).unwrap();
        if byte == [0] {
            return String::from_utf8(text).unwrap();
        }
        text.extend(byte);
    }
}

fn change(host: &Host, value: &str) {
    write_vault(&host.vault(), &[("OpenAI", value), ("Datadog", "canary-2")]);
    let (said, _) = host.daemon.command(&["refresh", "openai-api-key"]);
    assert!(said.contains("changed"), "{said}");
}

#[test]
fn whoever_watched_and_went_away_leaves_its_place() {
    let host = Host::new(true);
    assert!(host.daemon.ask("openai-api-key").is_some());
    let mut stays = watch(&host);
    for _ in 0..MANY {
        drop(watch(&host));
    }
    assert_eq!(status(&host.daemon)["secrets"][0]["state"], "fresh");
    change(&host, "canary-new");
    assert!(message(&mut stays).contains("\"count\""), "who stayed is told");
    drop(watch(&host));
    // Also of those that end in the very moment of a change.
    for number in 0..20 {
        let ending: Vec<UnixStream> = (0..10).map(|_| watch(&host)).collect();
        thread::scope(|scope| {
            scope.spawn(|| ending.iter().for_each(|stream| stream.shutdown(Shutdown::Both).unwrap()));
            change(&host, &format!("canary-{number}"));
        });
    }
    let log = host.daemon.log();
    assert!(!log.contains("roken pipe") && !log.contains("rror writing"), "{log}");
}

#[test]
fn whoever_says_nothing_holds_up_nobody_and_is_not_kept_for_long() {
    let host = Host::new(true);
    let silent: Vec<UnixStream> = (0..MANY).map(|_| connect(&host)).collect();
    let mut trickling: Vec<UnixStream> = (0..9).map(|_| connect(&host)).collect();
    let began = Instant::now();
    assert_eq!(status(&host.daemon)["provider"]["health"], "up");
    watch(&host);
    // One that says something now and then has no more time for one call.
    while began.elapsed() < SILENCE && !trickling.is_empty() {
        trickling.retain_mut(|stream| stream.write_all(b" ").is_ok());
        thread::sleep(Duration::from_millis(300));
    }
    assert!(trickling.is_empty(), "{} of them are still heard", trickling.len());
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "it ends");
    }
    assert!(began.elapsed() < LIMIT);
}

/// Who reads a secret from a socket closes its own side first, as systemd does. The end without a byte would be an empty one.
#[test]
fn whoever_only_reads_gets_what_no_reader_of_secrets_takes() {
    let host = Host::new(true);
    let mut stream = connect(&host);
    stream.shutdown(Shutdown::Write).unwrap();
    let mut read = Vec::new();
    stream.read_to_end(&mut read).unwrap();
    assert_eq!(read.len(), (1 << 20) + 1);
    assert!(read.iter().all(|byte| *byte == 0));
    // As a unit does it.
    assert_eq!(asker::ask(&host.daemon.control(), UNIT, "openai-api-key").unwrap(), None);
    // Who goes at once is nobody.
    for _ in 0..MANY {
        drop(connect(&host));
    }
    // What is said without a wish for an answer is done all the same.
    write_vault(&host.vault(), &[("OpenAI", "canary-soon"), ("Datadog", "canary-2")]);
    assert!(host.daemon.ask("openai-api-key").is_some());
    write_vault(&host.vault(), &[("OpenAI", "canary-later"), ("Datadog", "canary-2")]);
    let call = b"{\"method\":\"io.opnix.Refresh\",\"parameters\":{\"names\":[\"openai-api-key\"]},\"oneway\":true}\0";
    connect(&host).write_all(call).unwrap();
    wait("the new value", || host.daemon.ask("openai-api-key").as_deref() == Some("canary-later"));
    // Who has said something gets its answer, and then the end.
    let mut stream = connect(&host);
    stream.write_all(b"{\"method\":\"io.opnix.Status\"}\0").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("\"version\"") && text.len() < 10_000, "{text}");
}

#[test]
fn a_call_is_of_a_bounded_size() {
    let host = Host::new(true);
    let mut stream = connect(&host);
    let piece = [b' '; 64 << 10];
    let mut written = 0;
    let error = loop {
        match stream.write(&piece) {
            Ok(bytes) => written += bytes,
            Err(error) => break error,
        }
        assert!(written < 8 << 20, "{written} bytes were taken");
    };
    assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
    // As large as a call can be that means something.
    let names = vec!["\"openai-api-key\""; 500].join(&format!(",{}", " ".repeat(2000)));
    let mut stream = connect(&host);
    let call = format!("{{\"method\":\"io.opnix.Refresh\",\"parameters\":{{\"names\":[{names}]}}}}\0");
    stream.write_all(call.as_bytes()).unwrap();
    assert!(message(&mut stream).contains("\"outcome\""));
}

/// Its own side is open, but it takes nothing any more.
#[test]
fn whoever_cannot_be_answered_is_not_kept_for_long() {
    let host = Host::new(true);
    let mut deaf = connect(&host);
    deaf.shutdown(Shutdown::Read).unwrap();
    deaf.write_all(b"{\"method\":\"io.opnix.Status\"}\0").unwrap();
    wait("its end", || {
        deaf.write_all(b" ").is_err() || {
            thread::sleep(Duration::from_millis(200));
            false
        }
    });
}

#[test]
fn whoever_does_not_read_its_answers_is_not_kept_for_long() {
    let host = Host::new(true);
    let mut stream = connect(&host);
    stream.set_nonblocking(true).unwrap();
    let end = Instant::now() + 2 * LIMIT;
    // Far more answers than the kernel keeps for it.
    loop {
        match stream.write(b"{\"method\":\"io.opnix.Status\"}\0") {
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(50)),
            Err(_) => break,
            Ok(_) => {}
        }
        assert!(Instant::now() < end, "it is still heard");
    }
}

#[test]
fn a_command_whose_service_does_not_answer_ends_and_says_so() {
    let directory = crate::daemon::new_directory("mute");
    let path = directory.join("control");
    // It has room for connections, and nobody takes them.
    let mute = UnixListener::bind(&path).unwrap();
    let commands = ["status", "explain x.service key", "refresh"];
    let began = Instant::now();
    thread::scope(|scope| {
        for command in commands {
            let mut opnix = Command::new(env!("CARGO_BIN_EXE_opnix"));
            opnix.args(command.split(' ')).arg("--control").arg(&path);
            if command == "refresh" {
                opnix.args(["--timeout", "3s"]);
            }
            scope.spawn(move || {
                let output = opnix.output().unwrap();
                let said = String::from_utf8(output.stderr).unwrap();
                assert_eq!(output.status.code(), Some(69), "{command}: {said}");
                assert!(
                    said.contains("does not answer on") && said.contains("systemctl status opnix"),
                    "{said}"
                );
            });
        }
    });
    assert!(began.elapsed() < LIMIT);
    drop(mute);
    // And where there is no room left.
    std::fs::remove_file(&path).unwrap();
    let full = UnixListener::bind(&path).unwrap();
    nix::sys::socket::listen(&full, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_opnix")).args(["status", "--control"]).arg(&path).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("does not answer on"), "{said}");
    std::fs::remove_dir_all(directory).unwrap();
}

/// Who asked is gone, and what it asked for is not waited for.
#[test]
fn a_call_ends_with_its_caller() {
    let host = Host::new(true);
    write_vault(&host.vault(), &[("OpenAI", "canary-1")]);
    let waiting = || {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", host.daemon.pid())).unwrap();
        descriptors.count()
    };
    let before = waiting();
    std::fs::remove_file(host.vault()).unwrap();
    nix::unistd::mkfifo(&host.vault(), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let callers: Vec<UnixStream> = (0..50)
        .map(|_| {
            let mut stream = connect(&host);
            stream.write_all(b"{\"method\":\"io.opnix.Refresh\",\"parameters\":{\"names\":[]}}\0").unwrap();
            stream
        })
        .collect();
    wait("all of them to be heard", || waiting() >= before + 50);
    drop(callers);
    wait("all of them to be gone", || waiting() <= before + 10);
}
