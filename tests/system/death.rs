//! Every point of death, and every error of a system call, while a request is answered.
//!
//! A unit takes for its secret whatever it reads to the end: nothing, a part, the value twice. So at each system call of
//! each kind of request the process that answers is killed, and what the unit got must be the whole value or a refusal.
//! The system calls are those that a first look at an undisturbed request shows.
//!
//! In `tests/run` all deaths that can differ, and as many errors as fit into [`SAMPLE`], others each time. All of both:
//! `tests/long/death`, which is `OPNIX_DEATH=all`. `OPNIX_DEATH_KINDS=cold,drain` leaves out other kinds, and
//! `OPNIX_DEATH_SEED=N` repeats a choice.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::asker::{Asker, Question};
use crate::birth;
use crate::command::Running;
use crate::lease::Lease;
use crate::machine::Machine;
use crate::opnix::*;
use crate::strace::{Call, Strace, Trace};
use crate::worker::{Instance, SERVICE, end, in_role, is_gone, is_held, is_quiet, signal, threads, until};

const UNIT: &str = "asker.service";
/// A request that has no answer by then waits for something that does not come by itself.
const STUCK: Duration = Duration::from_secs(2);
/// How long a later request may take.
const LATER: Duration = Duration::from_secs(10);
/// How long the sample of errors may take.
const SAMPLE: Duration = Duration::from_secs(40);

/// How a request comes to be asked and answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Course {
    /// It is asked while the worker is watched.
    Plain,
    /// The same, and the vault is away until the worker has died or refused: who forgets that a refusal was begun
    /// writes a value after its zeros.
    Fault,
    /// It waited when its instance died. The next one is watched from its first step.
    Born,
    /// The same. The next one has adopted it, and is watched from when the value can come.
    Adopted,
    /// It waits when a reload comes, and then its value.
    Reload,
    /// It comes right after a reload.
    AfterReload,
    /// It waits when the service is restarted; the value comes while the old instance drains.
    Drain,
    /// The same; the value does not come before the old instance has ended.
    Handover,
}

struct Kind {
    name: &'static str,
    question: Question,
    course: Course,
}

const fn value_of(credential: &'static str) -> Question {
    Question { unit: UNIT, credential, value: Some(credential) }
}

/// Not mapped to the unit that asks, and mapped to the one whose name is forged.
const fn others(unit: &'static str) -> Question {
    Question { unit, credential: "other", value: None }
}

const KINDS: &[Kind] = &[
    Kind { name: "memory", question: value_of("small"), course: Course::Plain },
    Kind { name: "template", question: value_of("template"), course: Course::Plain },
    Kind { name: "large", question: value_of("large"), course: Course::Plain },
    Kind { name: "cold", question: value_of("cold"), course: Course::Plain },
    Kind { name: "fault", question: value_of("cold"), course: Course::Fault },
    Kind { name: "refusal", question: others(UNIT), course: Course::Plain },
    Kind { name: "forged", question: others("victim.service"), course: Course::Plain },
    Kind { name: "born", question: value_of("cold"), course: Course::Born },
    Kind { name: "adopted", question: value_of("cold"), course: Course::Adopted },
    Kind { name: "reload", question: value_of("cold"), course: Course::Reload },
    Kind { name: "after-reload", question: value_of("small"), course: Course::AfterReload },
    Kind { name: "drain", question: value_of("cold"), course: Course::Drain },
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
    "fcntl",
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
];

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

/// A system call of a thread, by its name and its number among those of this name since the thread is watched.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    /// Whose it is; of [`Course::Born`] all threads are one.
    role: Option<String>,
    call: String,
    at: usize,
}

impl Point {
    /// Whether death here can differ from that at other points.
    fn tells(&self, course: Course) -> bool {
        // A drain that waits does nothing else for its whole time, and each point of it takes seconds.
        let is_new = if course == Course::Handover { self.at.is_power_of_two() } else { self.is_new() };
        !NEUTRAL.contains(&self.call.as_str()) && is_new
    }

    /// Loops look the same each time.
    fn is_new(&self) -> bool {
        self.at <= 4 || self.at.is_power_of_two()
    }

    fn shown(&self) -> String {
        format!("{} at {} {}", self.role.as_deref().unwrap_or("any thread"), self.call, self.at)
    }
}

/// What came of one point.
struct Outcome {
    trace: Trace,
    /// In the words of the client.
    answer: String,
    /// What a later request got, if not the value.
    later: Option<String>,
}

impl Outcome {
    fn fault(&self, kind: &Kind) -> Option<String> {
        let fine = match self.answer.as_str() {
            "right" => kind.question.value.is_some(),
            "refused" | "reset" => true,
            _ => false,
        };
        match &self.later {
            Some(later) => Some(format!("{}, and a later request: {later}", self.answer)),
            None => (!fine).then(|| self.answer.clone()),
        }
    }
}

fn values() -> [(&'static str, String); 4] {
    // Not the same bytes again and again: parts that changed places would show.
    let large = (0..75_000).map(|number| format!("{number:011} ")).collect();
    [
        ("small", value("small")),
        ("large", large),
        ("cold", value("cold")),
        ("template", format!("A={}\nB=2\n", value("small"))),
    ]
}

/// The service under test, and its client.
struct Bench<'a> {
    machine: &'a Machine,
    asker: Asker,
    /// The main process makes another one that answers.
    has_keeper: bool,
    /// How many points were tried, and what they took: until strace was attached, the request, and from then until a
    /// later one was answered.
    tried: u32,
    took: [Duration; 3],
}

/// Before this pipe an instance waits while [`SHUT`] is there.
const GATE: &str = "/run/death/gate";
const SHUT: &str = "/run/death/shut";

/// It is started anew some hundred times, which takes 0.4 s with all of its sandbox and 0.15 s like this.
const DROP_IN: &str = "[Service]\n\
    RestartSec=0\n\
    PrivateUsers=no\n\
    SystemCallFilter=\n\
    LoadCredential=\n\
    SetCredential=\n\
    LoadCredentialEncrypted=\n\
    ExecStart=\n\
    ExecStart=sh -c '[ ! -e /run/death/shut ] || read _ </run/death/gate; exec /usr/bin/opnix serve'\n";

impl<'a> Bench<'a> {
    fn set_up(machine: &'a Machine) -> Bench<'a> {
        set_up(machine, &[], &values(), "60s");
        let reference = |name: &str| format!("op://Vault/{name}/value");
        let config = json!({
            "provider": {"kind": "local", "path": VAULT},
            "deadline": "60s",
            "secrets": [
                {"name": "small", "reference": reference("small"), "units": [UNIT]},
                {"name": "large", "reference": reference("large"), "units": [UNIT]},
                {"name": "cold", "reference": reference("cold"), "units": [UNIT], "always_fetch": true},
                {"name": "other", "reference": reference("small"), "units": ["victim.service"]},
            ],
            "templates": [
                {"name": "template", "template": "A={{ op://Vault/small/value }}\nB=2\n", "units": [UNIT]},
            ],
        });
        machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
        machine.unit("opnix.service.d/70-death.conf", DROP_IN);
        let asker = Asker::start(machine, UNIT, &values());
        machine.sh(&format!("rm -f {SHUT} {GATE}; mkfifo -m 0644 {GATE}")).ok();
        let mut bench = Bench { machine, asker, has_keeper: false, tried: 0, took: [Duration::ZERO; 3] };
        for credential in ["small", "template", "large", "cold"] {
            let later = bench.later(credential, false);
            assert!(later.is_none(), "{credential}: {}", later.unwrap_or_default());
        }
        let Instance { main, worker } = bench.instance();
        bench.has_keeper = main != worker;
        bench
    }

    fn instance(&self) -> Instance {
        // A keeper without a worker is about to end, or has just begun.
        let is_whole = |Instance { main, worker }| main != worker || !self.has_keeper;
        Instance::when(self.machine, "an instance", is_whole)
    }

    /// One that stands before the held vault.
    fn held(&self, other_than: Option<Instance>) -> Instance {
        let is_it = |instance| Some(instance) != other_than && is_held(instance.worker);
        Instance::when(self.machine, "a fetch at the held vault", is_it)
    }

    /// Asks for a value that must come now. What is wrong about that.
    /// `patient`: after an error of the system a refusal may stand for a while.
    fn later(&mut self, credential: &'static str, patient: bool) -> Option<String> {
        let limit = Instant::now() + LATER;
        loop {
            let number = self.asker.ask(value_of(credential));
            match self.asker.answer(number, LATER).as_deref() {
                Some("right") => return None,
                Some("refused") if patient && Instant::now() < limit => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                answer => return Some(answer.unwrap_or("NO ANSWER").to_owned()),
            }
        }
    }

    /// One request of this kind, while `watch` is attached to the worker. `None`: it found nothing to be attached to.
    fn attempt(&mut self, kind: &Kind, watch: &dyn Fn(u32) -> Option<Strace>) -> Option<Outcome> {
        let Kind { question, course, .. } = *kind;
        let machine = self.machine;
        let mut vault: Option<Lease> = None;
        let mut number = None;
        let mut worker = None;

        // What comes before.
        if matches!(
            course,
            Course::Born | Course::Adopted | Course::Reload | Course::Drain | Course::Handover
        ) {
            vault = Some(slow_vault(machine));
            number = Some(self.asker.ask(question));
            let asked = self.held(None);
            match course {
                Course::Born => {
                    worker = Some(self.bear(asked));
                    vault = None;
                }
                Course::Adopted => {
                    end(asked.worker);
                    self.held(Some(asked));
                }
                _ => {}
            }
        }
        let (path, away) = (machine.path(VAULT), machine.path(&format!("{VAULT}.away")));
        if course == Course::Fault {
            fs::rename(&path, &away).expect("the vault is there");
        }
        let instance = self.instance();
        let worker = worker.unwrap_or(instance.worker);
        if course != Course::Born {
            until(|| is_quiet(worker), STUCK);
        }

        // The request itself.
        let began = Instant::now();
        let strace = watch(worker);
        let attached = Instant::now();
        let mut restart: Option<Running> = None;
        match course {
            Course::Plain | Course::Fault => number = Some(self.asker.ask(question)),
            Course::Born => signal(worker, Signal::SIGCONT),
            Course::Adopted => vault = None,
            Course::Reload => {
                signal(instance.main, Signal::SIGHUP);
                until(|| is_gone(worker) || is_quiet(worker), STUCK);
                vault = None;
            }
            Course::AfterReload => {
                signal(instance.main, Signal::SIGHUP);
                number = Some(self.asker.ask(question));
            }
            Course::Drain => {
                restart = Some(machine.spawn(&["systemctl", "restart", SERVICE]));
                let stopping = || machine.show(SERVICE, "SubState").starts_with("stop");
                until(|| is_gone(worker) || stopping(), STUCK);
                vault = None;
            }
            Course::Handover => {
                restart = Some(machine.spawn(&["systemctl", "restart", SERVICE]));
                until(|| is_gone(worker), LONG);
            }
        }
        let number = number.expect("each course asks");
        let mut answer = None;
        let done = || {
            answer = answer.take().or_else(|| self.asker.answer(number, Duration::ZERO));
            is_gone(worker) || (restart.is_none() && answer.is_some() && is_quiet(worker))
        };
        until(done, STUCK);
        drop(vault);
        if course == Course::Fault {
            fs::rename(&away, &path).expect("nobody else moves it");
        }
        let gone = is_gone(worker);
        let trace = strace.map(|strace| strace.end(gone));
        let answered = Instant::now();

        // What comes of it.
        let killed = trace.as_ref().is_some_and(|trace| trace.killed);
        if answer.is_none() && !gone && !killed {
            // It may come by itself, now that nothing fails any more; if not, the next instance must find it.
            answer = self.asker.answer(number, Duration::from_secs(1));
            if answer.is_none() {
                end(worker);
            }
        }
        let answer = answer.or_else(|| self.asker.answer(number, LONG)).unwrap_or_else(|| "NO ANSWER".into());
        if let Some(restart) = restart {
            restart.wait().ok();
        }
        let later = self.later(question.value.unwrap_or("small"), !killed);
        if later.is_some() {
            // The points after this one are to be judged by themselves.
            end(self.instance().worker);
        }
        self.tried += 1;
        let times = [attached - began, answered - attached, answered.elapsed()];
        for (took, time) in self.took.iter_mut().zip(times) {
            *took += time;
        }
        Some(Outcome { trace: trace?, answer, later })
    }

    /// Ends this instance, and stops the next one before it has done anything.
    fn bear(&self, old: Instance) -> u32 {
        let machine = self.machine;
        fs::write(machine.path(SHUT), "").expect("a tmpfs takes it");
        end(old.worker);
        let mut waiting = None;
        let before_the_gate = |pid: &u32| {
            let place = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim_end() == "sh" && birth::is_before_a_gate(&place)
        };
        let find = || {
            waiting = machine.processes(SERVICE).into_iter().find(before_the_gate);
            waiting.is_some()
        };
        assert!(until(find, LONG), "no instance stands before the gate");
        fs::remove_file(machine.path(SHUT)).expect("it was made here");
        birth::hold(waiting.expect("it was seen"), &machine.path(GATE), self.has_keeper)
    }

    /// All that is called in a request of this kind.
    fn points(&mut self, kind: &Kind) -> Vec<Point> {
        let mut points = Vec::new();
        // The first makes what is made once for all. And no two take quite the same way.
        for round in 0..3 {
            let roles = RefCell::new(BTreeMap::new());
            let outcome = self.attempt(kind, &|pid| {
                *roles.borrow_mut() =
                    threads(pid).into_iter().map(|thread| (thread.tid, thread.role)).collect();
                Some(Strace::process(pid, "trace=all"))
            });
            let outcome = outcome.expect("a process has threads");
            let expected = match kind.question.value {
                Some(_) if kind.course != Course::Fault => "right",
                _ => "refused",
            };
            let Outcome { answer, later, .. } = &outcome;
            assert!(answer == expected && later.is_none(), "{}, undisturbed: {answer}, {later:?}", kind.name);
            if round == 0 {
                continue;
            }
            let roles = roles.into_inner();
            let mut counts: BTreeMap<(u32, String), usize> = BTreeMap::new();
            for Call { thread, name } in outcome.trace.calls {
                let role = match (kind.course, roles.get(&thread)) {
                    (Course::Born, _) => None,
                    (_, Some(role)) => Some(role.clone()),
                    // Begun since. The next time it is there from the beginning.
                    (_, None) => continue,
                };
                let at = counts.entry((thread, name.clone())).or_default();
                *at += 1;
                let point = Point { role, call: name, at: *at };
                if !points.contains(&point) {
                    points.push(point);
                }
            }
        }
        points
    }

    /// Something befalls a request at this point. `None`: no thread is in this role now.
    fn strike(&mut self, kind: &Kind, point: &Point, what: &str, on: &str) -> Option<Outcome> {
        let Point { role, call, at } = point;
        let what = format!("inject={call}:{what}:when={at}{on}");
        self.attempt(kind, &|pid| match role {
            None => Some(Strace::process(pid, &what)),
            Some(role) => {
                let threads = in_role(pid, role);
                (!threads.is_empty()).then(|| Strace::threads(&threads, &what))
            }
        })
    }

    /// Where the time went.
    fn times(&self) -> String {
        let mean = |took: Duration| took.as_millis() / u128::from(self.tried.max(1));
        let [attached, answered, later] = self.took.map(mean);
        format!(
            "{} requests; each took {attached} ms to attach strace, {answered} ms to its answer or death, \
             {later} ms to a later answer",
            self.tried
        )
    }
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

/// How often which answer came, by kind, and each that must not.
#[derive(Default)]
struct Tally {
    counts: BTreeMap<&'static str, BTreeMap<String, usize>>,
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
            eprintln!("{kind:>14}: {total:4} points: {}", counts.join(", "));
        }
        assert!(self.faults.is_empty(), "{} wrong answers:\n{}", self.faults.len(), self.faults.join("\n"));
    }
}

pub fn a_kill_at_any_system_call_leaves_no_wrong_answer(machine: &Machine) {
    let mut bench = Bench::set_up(machine);
    let mut tally = Tally::default();
    for kind in kinds() {
        for point in bench.points(kind).iter().filter(|point| all() || point.tells(kind.course)) {
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
    let (start, total) = (Instant::now(), cases.len());
    let mut tally = Tally::default();
    for Case { kind, point, error, on } in cases {
        if !all() && start.elapsed() > SAMPLE {
            break;
        }
        let outcome = bench.strike(kind, &point, &format!("error={error}"), on);
        tally.add(kind, &format!("{}{on} {error}", point.shown()), outcome, |trace| trace.failed);
    }
    let title = format!("errors of system calls (OPNIX_DEATH_SEED={seed}, of {total} cases)");
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
    let long = |kind: &Kind| matches!(kind.course, Course::Drain | Course::Handover | Course::Born);
    let mut ranked = Vec::new();
    for kind in kinds().filter(|kind| all() || !long(kind)) {
        let mut groups: BTreeMap<(Option<String>, String), Vec<(u64, Case)>> = BTreeMap::new();
        for point in bench.points(kind) {
            if !FALLIBLE.contains(&point.call.as_str()) || !point.is_new() {
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
    machine.sh("rm -rf /run/systemd/system/opnix.service.d/70-death.conf; systemctl daemon-reload").ok();
    stop(machine);
}
