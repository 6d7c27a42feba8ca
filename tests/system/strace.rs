//! strace on a process of the machine, attached from outside it: counts its system calls, kills it at one of them, or
//! lets one of them fail.
//!
//! A kill comes at the *entry* of the system call: it is not made any more. So death at call N is death anywhere between
//! the calls N - 1 and N.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::boot::SANE_PATH;

/// Longer than strace takes to see that a process has ended.
const SEEN: Duration = Duration::from_secs(5);

pub struct Strace {
    process: Child,
    /// Read no further, but open: strace must be able to write its messages.
    _messages: BufReader<ChildStderr>,
    output: PathBuf,
}

/// What was seen.
pub struct Trace {
    /// In their order.
    pub calls: Vec<Call>,
    /// It was ended by SIGKILL: the injected one, if nobody else sends any.
    pub killed: bool,
    /// An error was injected.
    pub failed: bool,
    /// As strace wrote it.
    pub text: String,
}

/// A system call that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub thread: u32,
    pub name: String,
}

impl Strace {
    /// All threads, and what they start. `what` as after `-e`.
    pub fn process(pid: u32, what: &str) -> Strace {
        Strace::attach(&[pid], &["-f", "-e", what])
    }

    /// The same; calls count that have to do with one of these paths, by name or by file descriptor.
    pub fn process_on(pid: u32, what: &str, paths: &[PathBuf]) -> Strace {
        Strace::attach(&[pid], &with_paths(&["-f", "-e", what], paths))
    }

    /// As [`Self::process`], with arguments, and what the file descriptors mean. Shows secrets.
    pub fn in_detail(pid: u32, what: &str) -> Strace {
        Strace::attach(&[pid], &["-f", "-y", "-s16", "-e", what])
    }

    /// These threads alone: strace counts for each thread by itself, and acts on whichever comes to N first.
    pub fn threads(tids: &[u32], what: &str) -> Strace {
        Strace::attach(tids, &["-e", what])
    }

    /// The same; calls count that have to do with one of these paths, by name or by file descriptor.
    pub fn threads_on(tids: &[u32], what: &str, paths: &[PathBuf]) -> Strace {
        Strace::attach(tids, &with_paths(&["-e", what], paths))
    }

    /// Returns when it is attached: what the threads do from now on counts.
    fn attach(tids: &[u32], more: &[impl AsRef<OsStr>]) -> Strace {
        let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("strace-{}.out", tids[0]));
        let mut process = Command::new("strace")
            .args(["-o".as_ref(), output.as_os_str()])
            // No argument is looked at: that is faster, and no secret is shown.
            .args(["-s0", "-e", "verbose=none", "-e", "signal=kill"])
            .args(more)
            .args(tids.iter().map(|tid| format!("--attach={tid}")))
            .env_clear()
            .env("PATH", SANE_PATH)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|fault| panic!("strace does not start: {fault}"));
        let mut messages = BufReader::new(process.stderr.take().expect("it was piped"));
        let mut said = String::new();
        while said.matches(" attached").count() < tids.len() {
            let read = messages.read_line(&mut said).unwrap_or(0);
            assert!(read > 0, "strace did not attach to {tids:?}: {said}");
        }
        Strace { process, _messages: messages, output }
    }

    /// Detaches; of what is gone strace sees the end, and then ends by itself.
    pub fn end(mut self, gone: bool) -> Trace {
        let limit = Instant::now() + SEEN;
        while gone && matches!(self.process.try_wait(), Ok(None)) && Instant::now() < limit {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.stop();
        let text = fs::read(&self.output).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        Trace {
            calls: text.lines().filter_map(call).collect(),
            killed: text.contains("+++ killed by SIGKILL"),
            failed: text.contains("(INJECTED)"),
            text,
        }
    }

    fn stop(&mut self) {
        if let (Ok(None), Ok(pid)) = (self.process.try_wait(), i32::try_from(self.process.id())) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        // It waits for ever for a thread that was killed while a call of it was delayed.
        let limit = Instant::now() + SEEN;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        self.stop();
    }
}

fn with_paths(options: &[&str], paths: &[PathBuf]) -> Vec<String> {
    let paths = paths.iter().map(|path| format!("--trace-path={}", path.display()));
    options.iter().map(|option| (*option).to_owned()).chain(paths).collect()
}

/// `[PID ]NAME(…`. Not a signal, an end, or the second half of a call.
fn call(line: &str) -> Option<Call> {
    let (start, rest) = line.split_once('(')?;
    let (thread, name) = match start.trim_start().split_once(' ') {
        Some((thread, name)) => (thread.parse().ok()?, name.trim_start()),
        None => (0, start),
    };
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (is_name && !rest.is_empty()).then(|| Call { thread, name: name.to_owned() })
}
