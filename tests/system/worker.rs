//! The process of opnix.service that answers requests, as /proc of the host shows it.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::machine::Machine;
use crate::opnix::LONG;

pub const SERVICE: &str = "opnix.service";

/// What runs in the service.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Instance {
    /// The unit's main process.
    pub main: u32,
    /// The one that answers: the main process' child, where the main process only keeps the descriptors.
    pub worker: u32,
}

impl Instance {
    pub fn now(machine: &Machine) -> Option<Instance> {
        let ours: Vec<u32> = machine.processes(SERVICE).into_iter().filter(|&pid| is_service(pid)).collect();
        let main =
            ours.iter().copied().find(|&pid| parent(pid).is_some_and(|above| !ours.contains(&above)))?;
        let worker = ours.iter().copied().find(|&pid| parent(pid) == Some(main));
        Some(Instance { main, worker: worker.unwrap_or(main) })
    }

    /// The first for which this holds.
    #[track_caller]
    pub fn when(machine: &Machine, what: &str, so: impl Fn(Instance) -> bool) -> Instance {
        let mut found = None;
        let mut look = || {
            found = Instance::now(machine).filter(|&instance| so(instance));
            found.is_some()
        };
        let seen = until(&mut look, LONG);
        assert!(seen, "waited {LONG:?} in vain for: {what}; processes: {:?}", machine.processes(SERVICE));
        found.expect("it was seen")
    }
}

/// Looks again and again; false when it did not come true in time.
pub fn until(mut so: impl FnMut() -> bool, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        if so() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

pub fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // It may have ended in the meantime.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

pub fn end(pid: u32) {
    signal(pid, Signal::SIGKILL);
    assert!(until(|| is_gone(pid), LONG), "{pid} does not die");
}

/// Not the child that asks 1Password, nor what a reload runs.
fn is_service(pid: u32) -> bool {
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    program.ends_with("opnix") && !arguments.split('\0').any(|word| word == "fetch" || word == "check")
}

/// The first fields of /proc/…/stat after the name: the state, and the parent.
fn stat(task: &str) -> (char, Option<u32>) {
    let text = fs::read_to_string(format!("{task}/stat")).unwrap_or_default();
    let mut fields = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let state = fields.next().and_then(|state| state.chars().next()).unwrap_or('X');
    (state, fields.next().and_then(|parent| parent.parse().ok()))
}

fn parent(pid: u32) -> Option<u32> {
    stat(&format!("/proc/{pid}")).1
}

/// Dead, whether or not anybody has taken note of it.
pub fn is_gone(pid: u32) -> bool {
    matches!(stat(&format!("/proc/{pid}")).0, 'X' | 'Z')
}

pub fn is_stopped(pid: u32) -> bool {
    stat(&format!("/proc/{pid}")).0 == 'T'
}

/// Each of its threads waits for something, and did a moment ago.
pub fn is_quiet(pid: u32) -> bool {
    let waits = || {
        let threads = threads(pid);
        threads.iter().all(|thread| stat(&format!("/proc/{pid}/task/{}", thread.tid)).0 == 'S')
    };
    waits() && {
        std::thread::sleep(Duration::from_millis(2));
        waits()
    }
}

/// A thread of it stands before a file that is held by a lease.
pub fn is_held(pid: u32) -> bool {
    threads(pid).iter().any(|thread| thread.role.ends_with("__break_lease"))
}

pub struct Thread {
    pub tid: u32,
    /// Its name, and the place in the kernel where it waits: the same in each instance that has nothing to do.
    /// (Not the number of its system call: that is `restart_syscall` for all that strace has once interrupted.)
    pub role: String,
}

pub fn threads(pid: u32) -> Vec<Thread> {
    let tids = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let tids = tids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let thread = |tid: u32| {
        let told = |file: &str| fs::read_to_string(format!("/proc/{pid}/task/{tid}/{file}"));
        let told = |file: &str| told(file).unwrap_or_default().trim_end().to_owned();
        Thread { tid, role: format!("{} in {}", told("comm"), told("wchan")) }
    };
    tids.map(thread).collect()
}

pub fn in_role(pid: u32, role: &str) -> Vec<u32> {
    threads(pid).into_iter().filter(|thread| thread.role == role).map(|thread| thread.tid).collect()
}
