//! Every point of death, and every error of a system call, while a request is answered.
//!
//! A unit takes for its secret whatever it reads to the end: nothing, a part, the value twice. So at each system call of
//! each kind of request the process that answers is killed, and what the unit got must be the whole value or a refusal.
//! The system calls are those that a first look at an undisturbed request shows.
//!
//! In `tests/run` all deaths that can differ, and as many errors as fit into [`SAMPLE`], others each time. All of both:
//! `tests/long/death`, which is `OPNIX_DEATH=all`. `OPNIX_DEATH_KINDS=cold,drain` leaves out other kinds, and
//! `OPNIX_DEATH_SEED=N` repeats a choice.

use std::collections::BTreeMap;
use std::env;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant, SystemTime};

use crate::asker::Question;
use crate::bench::{Bench, Course, Kind, Outcome, Point, UNIT, value_of};
use crate::machine::Machine;
use crate::opnix::stop;
use crate::strace::Trace;

/// How long the sample of errors may take.
const SAMPLE: Duration = Duration::from_secs(40);

/// Not mapped to the unit that asks, and mapped to the one whose name is forged.
const fn others(unit: &'static str) -> Question {
    Question { unit, credential: "other", value: None }
}

const KINDS: &[Kind] = &[
    Kind { name: "memory", question: value_of("small"), course: Course::Plain },
    Kind { name: "template", question: value_of("template"), course: Course::Plain },
    Kind { name: "large", question: value_of("large"), course: Course::Plain },
    Kind { name: "slow", question: value_of("large"), course: Course::Slow },
    Kind { name: "cold", question: value_of("cold"), course: Course::Plain },
    Kind { name: "fault", question: value_of("cold"), course: Course::Fault },
    Kind { name: "refusal", question: others(UNIT), course: Course::Plain },
    Kind { name: "forged", question: others("victim.service"), course: Course::Plain },
    Kind { name: "born", question: value_of("cold"), course: Course::Born },
    Kind { name: "adopted", question: value_of("cold"), course: Course::Adopted },
    Kind { name: "reload", question: value_of("cold"), course: Course::Reload },
    Kind { name: "after-reload", question: value_of("small"), course: Course::AfterReload },
    Kind { name: "drain", question: value_of("cold"), course: Course::Drain },
    Kind { name: "held", question: value_of("small"), course: Course::Held },
    Kind { name: "held-born", question: value_of("small"), course: Course::HeldBorn },
    Kind { name: "handover", question: value_of("cold"), course: Course::Handover },
];

/// These change nothing that anybody else sees or that outlives the process, but for files that answer nobody: death
/// before one of them is death before what comes after it. (What waits is not among them: it may be the last.)
const NEUTRAL: &[&str] = &[
    "access",
    "arch_prctl",
    "bind",
    "brk",
    "clock_gettime",
    "clock_nanosleep",
    "connect",
    "epoll_create1",
    "epoll_ctl",
    "eventfd2",
    "fchmod",
    "fcntl",
    "fremovexattr",
    "fstat",
    "fsync",
    "futex",
    "getdents64",
    "geteuid",
    "getpid",
    "getrandom",
    "getsockname",
    "getsockopt",
    "gettid",
    "getuid",
    "ioctl",
    "lseek",
    "madvise",
    "mlockall",
    "mmap",
    "mprotect",
    "munmap",
    "newfstatat",
    "openat",
    "pipe2",
    "prctl",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "recvfrom",
    "recvmsg",
    "rename",
    "renameat",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
    "socket",
    "socketpair",
    "statx",
    "uname",
    "unlink",
    "unlinkat",
];

/// Whether death here can differ from that at other points.
fn tells(point: &Point, course: Course) -> bool {
    // A drain that waits does nothing else for its whole time, and each point of it takes seconds.
    let is_new = if course == Course::Handover { point.at.is_power_of_two() } else { is_new(point) };
    !NEUTRAL.contains(&point.call.as_str()) && is_new
}

/// Loops look the same each time.
fn is_new(point: &Point) -> bool {
    point.at <= 4 || point.at.is_power_of_two()
}

/// What answers a request, and may fail.
const FALLIBLE: &[&str] = &[
    "accept4",
    "connect",
    "epoll_ctl",
    "epoll_wait",
    "fcntl",
    "getsockopt",
    "ioctl",
    "openat",
    "poll",
    "ppoll",
    "read",
    "recvmsg",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
    "socket",
    "write",
    "writev",
];
const SENDS: &[&str] = &["sendmmsg", "sendmsg", "sendto", "write", "writev"];

/// What a machine or a peer can cause.
const ERRORS: &[&str] = &[
    "EINTR",
    "EAGAIN",
    "ENOBUFS",
    "ENOMEM",
    "EMFILE",
    "ENFILE",
    "EPIPE",
    "ECONNRESET",
    "ENOTCONN",
    "EACCES",
    "EPERM",
    "EIO",
];

/// Said of a send, these rightly mean that the peer is gone, and its connection may be closed: they prove nothing.
fn is_told_the_peer_is_gone(call: &str, error: &str) -> bool {
    SENDS.contains(&call) && matches!(error, "EPIPE" | "ECONNRESET")
}

fn all() -> bool {
    env::var("OPNIX_DEATH").is_ok_and(|value| value == "all")
}

fn kinds() -> impl Iterator<Item = &'static Kind> {
    let only = env::var("OPNIX_DEATH_KINDS").ok();
    let chosen =
        move |kind: &&Kind| only.as_ref().is_none_or(|only| only.split(',').any(|name| name == kind.name));
    KINDS.iter().filter(chosen)
}

/// How often which answer came, by kind of request, and each answer that must not come.
#[derive(Default)]
struct Tally {
    counts: BTreeMap<&'static str, BTreeMap<String, usize>>,
    /// Of how many points or cases these are.
    of: BTreeMap<&'static str, usize>,
    faults: Vec<String>,
}

impl Tally {
    /// `reached`: the point was, in this request.
    fn add(&mut self, kind: &Kind, place: &str, outcome: Option<Outcome>, reached: impl Fn(&Trace) -> bool) {
        let word = match outcome {
            None => "no such thread".to_owned(),
            Some(outcome) => {
                let fault = outcome.fault(kind);
                if let Some(fault) = &fault {
                    self.faults.push(format!("{}, {place}: {fault}", kind.name));
                }
                match fault {
                    None if !reached(&outcome.trace) => "not reached".to_owned(),
                    // Without the numbers.
                    Some(fault) => fault.split(':').next().unwrap_or_default().to_owned(),
                    None => outcome.answer,
                }
            }
        };
        if env::var_os("OPNIX_DEATH_VERBOSE").is_some() {
            eprintln!("{}, {place}: {word}", kind.name);
        }
        *self.counts.entry(kind.name).or_default().entry(word).or_default() += 1;
    }

    #[track_caller]
    fn close(self, title: &str, bench: &Bench) {
        eprintln!("\n{title}: {}", bench.times());
        for (kind, counts) in &self.counts {
            let total: usize = counts.values().sum();
            let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{word} {count}")).collect();
            let of = self.of.get(kind).unwrap_or(&total);
            eprintln!("{kind:>14}: {total:4} of {of}: {}", counts.join(", "));
        }
        assert!(self.faults.is_empty(), "{} wrong answers:\n{}", self.faults.len(), self.faults.join("\n"));
    }
}

pub fn a_kill_at_any_system_call_leaves_no_wrong_answer(machine: &Machine) {
    let mut bench = Bench::set_up(machine);
    let mut tally = Tally::default();
    for kind in kinds() {
        let points = bench.points(kind);
        tally.of.insert(kind.name, points.len());
        for point in points.iter().filter(|point| all() || tells(point, kind.course)) {
            let mut outcome = bench.strike(kind, point, "signal=KILL", "");
            if outcome.as_ref().is_some_and(|outcome| !outcome.trace.killed) {
                // Requests do not all take the same way.
                outcome = bench.strike(kind, point, "signal=KILL", "");
            }
            tally.add(kind, &point.shown(), outcome, |trace| trace.killed);
        }
    }
    tally.close("killed at each system call", &bench);
    tidy(machine);
}

pub fn an_error_at_any_system_call_leaves_no_wrong_answer(machine: &Machine) {
    let mut bench = Bench::set_up(machine);
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let seed: u64 = env::var("OPNIX_DEATH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(now);
    let cases = error_cases(&mut bench, seed);
    let mut tally = Tally::default();
    for case in &cases {
        *tally.of.entry(case.kind.name).or_default() += 1;
    }
    let start = Instant::now();
    for Case { kind, point, error, on } in cases {
        if !all() && start.elapsed() > SAMPLE {
            break;
        }
        let outcome = bench.strike(kind, &point, &format!("error={error}"), on);
        tally.add(kind, &format!("{}{on} {error}", point.shown()), outcome, |trace| trace.failed);
    }
    let title = format!("errors of system calls (OPNIX_DEATH_SEED={seed})");
    tally.close(&title, &bench);
    tidy(machine);
}

/// A system call that fails.
struct Case {
    kind: &'static Kind,
    point: Point,
    error: &'static str,
    /// "": this time. "+": from now on.
    on: &'static str,
}

/// In an order that is another one for each seed: however many are tried, no system call of any kind of request is
/// tried once more than another one.
fn error_cases(bench: &mut Bench, seed: u64) -> Vec<Case> {
    // These take seconds each, and give their answers by code that is in the others.
    let long =
        |kind: &Kind| matches!(kind.course, Course::Drain | Course::Handover) || kind.course.is_birth();
    let mut ranked = Vec::new();
    for kind in kinds().filter(|kind| all() || !long(kind)) {
        let mut groups: BTreeMap<_, Vec<(u64, Case)>> = BTreeMap::new();
        for point in bench.points(kind) {
            if !FALLIBLE.contains(&point.call.as_str()) || !is_new(&point) {
                continue;
            }
            for error in ERRORS.iter().filter(|error| !is_told_the_peer_is_gone(&point.call, error)) {
                for on in ["", "+"] {
                    let mut hasher = DefaultHasher::new();
                    (seed, kind.name, &point.role, &point.call, point.at, error, on).hash(&mut hasher);
                    let group = groups.entry((point.role.clone(), point.call.clone())).or_default();
                    group.push((hasher.finish(), Case { kind, point: point.clone(), error, on }));
                }
            }
        }
        for mut group in groups.into_values() {
            group.sort_by_key(|(number, _)| *number);
            ranked.extend(group.into_iter().enumerate());
        }
    }
    ranked.sort_by_key(|(rank, (number, _))| (*rank, *number));
    ranked.into_iter().map(|(_, (_, case))| case).collect()
}

fn tidy(machine: &Machine) {
    machine.sh("rm -rf /run/systemd/system/opnix.service.d/70-death.conf; systemctl unmask --runtime opnix-key.service; systemctl daemon-reload").ok();
    stop(machine);
}
