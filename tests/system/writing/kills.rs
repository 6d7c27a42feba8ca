//! Death at each system call by which a write touches a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use opnix::internals::asker;

use super::service::{Service, number_of, refresh};
use crate::daemon::{Daemon, UNIT};
use crate::machine::Machine;
use crate::strace::{Call, Strace, Trace};

const OLD: u64 = 1;
const NEW: u64 = 2;
/// They change nothing on disk.
const HARMLESS: [&str; 2] = ["close", "fcntl"];

pub fn a_kill_at_each_system_call_of_a_write_leaves_the_old_or_the_new_cache(_: &Machine) {
    let mut old = 0;
    let mut distrusted = 0;
    for place in [Place::State, Place::Mark, Place::Unmark] {
        let mut kills = 0;
        for (call, number) in points(&round(place, "trace=all").trace.calls) {
            let point = format!("{call} {number} in {place:?}");
            let round = round(place, &format!("inject={call}:signal=SIGKILL:when={number}"));
            let Round { found, promised, given, log, trace } = &round;
            kills += usize::from(trace.killed);
            assert!([OLD, NEW].contains(found), "{point}: {found}");
            assert!(!promised || *found == NEW, "{point}: the new value was promised to be on disk\n{log}");
            // What is older than what a unit was given already does not pass for fresh.
            let caveat = log.contains("from the cache");
            assert!(!given || *found == NEW || caveat, "{point}: the old value counts as fresh\n{log}");
            old += usize::from(*found == OLD);
            distrusted += usize::from(*given && caveat);
        }
        assert!(kills >= place.least(), "no more than {kills} kills in {place:?}");
    }
    // Else it shows nothing.
    assert!(old > 0 && distrusted > 0, "{old} times the old value, {distrusted} times distrusted");
}

/// Where the calls are that are counted. strace counts for each thread by itself: the main thread makes the mark that newer
/// values were given than are on disk, others write and remove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    State,
    Mark,
    Unmark,
}

impl Place {
    /// The fewest points of death: each file takes eight, the mark is empty, and its end takes three.
    fn least(self) -> usize {
        match self {
            Place::State => 16,
            Place::Mark => 7,
            Place::Unmark => 3,
        }
    }
}

struct Round {
    /// What the service that came after it has.
    found: u64,
    /// Somebody was told that the new value is on disk.
    promised: bool,
    /// A unit had the new value.
    given: bool,
    /// Of the service that came after it.
    log: String,
    trace: Trace,
}

/// A write, watched like that; then the service starts again.
fn round(place: Place, what: &str) -> Round {
    let service = Service::new("kills");
    let daemon = service.start_with(OLD);
    let worker = daemon.pid();
    let tasks = fs::read_dir(format!("/proc/{worker}/task")).expect("the worker's threads");
    let threads = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    let is_main = |tid: &u32| *tid == worker;
    let threads: Vec<u32> = threads.filter(|tid| is_main(tid) == (place == Place::Mark)).collect();
    let (directory, files) = match place {
        Place::State => {
            let own = |name: &str| [format!(".{name}.{worker}.opnix-new"), name.to_owned()];
            (service.state.clone(), ["cache", "requests.json"].map(own).concat())
        }
        _ => (service.runtime(), vec![".unsaved.opnix-new".to_owned(), "unsaved".to_owned()]),
    };
    let mut paths: Vec<PathBuf> = files.iter().map(|name| directory.join(name)).collect();
    paths.push(directory);
    service.set(NEW);
    let strace = Strace::threads_on(&threads, what, &paths);
    let (promised, given) = write(&daemon);
    let trace = strace.end(!promised);
    drop(daemon);
    let (found, log) = service.start_from_the_cache();
    Round { found, promised, given, log, trace }
}

/// Whether somebody was told that the new value is on disk, and whether a unit was given it.
fn write(daemon: &Daemon) -> (bool, bool) {
    let done = AtomicBool::new(false);
    let ask = || {
        let answer = asker::ask(&daemon.socket(), UNIT, "key").ok().flatten();
        answer.and_then(|bytes| number_of(str::from_utf8(&bytes).ok()?)) == Some(NEW)
    };
    thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let mut given = false;
            while !given && !done.load(Ordering::Relaxed) {
                given = ask();
            }
            given
        });
        let promised = refresh(daemon).is_ok();
        done.store(true, Ordering::Relaxed);
        (promised, asker.join().expect("the asker"))
    })
}

/// Each call by its name, and its number among the thread's calls of this name.
pub fn points(calls: &[Call]) -> BTreeSet<(String, usize)> {
    let mut counts = BTreeMap::new();
    let calls = calls.iter().filter(|call| !HARMLESS.contains(&call.name.as_str()));
    let number = |call: &Call| {
        let count = counts.entry((call.thread, call.name.clone())).or_insert(0);
        *count += 1;
        (call.name.clone(), *count)
    };
    calls.map(number).collect()
}
