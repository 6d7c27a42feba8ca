//! Death at each system call by which a write touches a file.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::service::{Service, number_of, refresh};
use crate::daemon::Daemon;
use crate::machine::Machine;
use crate::strace::{Strace, Trace};

/// Far more than there are.
const CALLS: usize = 60;
const OLD: u64 = 1;
const NEW: u64 = 2;

pub fn a_kill_at_each_system_call_of_a_write_leaves_the_old_or_the_new_cache(_: &Machine) {
    // The mark that values were given is made in the runtime directory, and counts for as much.
    for place in [Place::State, Place::Runtime] {
        let (trace, _) = round(place, "trace=all");
        eprintln!("{}", trace.text);
    }
}

#[derive(Debug, Clone, Copy)]
enum Place {
    State,
    Runtime,
}

fn round(place: Place, what: &str) -> (Trace, u64) {
    let service = Service::new("kills");
    let daemon = service.start_with(OLD);
    let (directory, pid) = match place {
        Place::State => (service.state.clone(), daemon.pid()),
        Place::Runtime => (service.runtime(), daemon.pid()),
    };
    service.set(NEW);
    let strace = Strace::paths(daemon.pid(), what, &paths(&directory, pid));
    let (promised, given, trace) = write(&daemon, strace);
    drop(daemon);
    let (number, log) = service.start_from_the_cache();
    eprintln!("{promised} {given} {number} {log}");
    (trace, number)
}

/// The directory, and the files that are written in it.
fn paths(directory: &std::path::Path, pid: u32) -> Vec<PathBuf> {
    let names = [".unsaved.opnix-new".to_owned(), format!(".cache.{pid}.opnix-new"), format!(".requests.json.{pid}.opnix-new")];
    let names = names.into_iter().chain(["unsaved", "cache", "requests.json"].map(str::to_owned));
    std::iter::once(directory.to_owned()).chain(names.map(|name| directory.join(name))).collect()
}

/// Whether somebody was told that the new value is on disk, and whether a unit was given it.
fn write(daemon: &Daemon, strace: Strace) -> (bool, bool, Trace) {
    let done = AtomicBool::new(false);
    let (promised, given) = thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let mut given = false;
            while !given && !done.load(Ordering::Relaxed) {
                let answer = opnix::internals::asker::ask(&daemon.socket(), crate::daemon::UNIT, "key");
                let text = answer.ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok());
                given = text.and_then(|text| number_of(&text)) == Some(NEW);
            }
            given
        });
        let promised = refresh(daemon).is_ok();
        done.store(true, Ordering::Relaxed);
        (promised, asker.join().expect("the asker"))
    });
    let gone = !promised;
    (promised, given, strace.end(gone))
}
