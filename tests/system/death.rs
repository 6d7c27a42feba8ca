//! Every point of death, and every error of a system call, while a request is answered.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::asker::{Asker, Question};
use crate::command::Running;
use crate::lease::Lease;
use crate::machine::Machine;
use crate::opnix::*;
use crate::strace::{Call, Strace, Trace};

const UNIT: &str = "asker.service";
const SERVICE: &str = "opnix.service";
/// In this time, each request that was not refused or answered shows that it waits for something that does not come.
const STUCK: Duration = Duration::from_secs(2);

/// How a request comes to be asked and answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Course {
    /// Asked while the thread is watched.
    Plain,
    /// Waited for its value when an instance died; the one that adopted it is watched while it answers.
    Adopted,
    /// Waits for its value, then comes a reload.
    Reload,
    /// Comes right after a reload.
    AfterReload,
    /// Waits for its value when the service is restarted; the value comes while the old instance drains.
    Drain,
    /// The same; the value does not come before the old instance has ended.
    Handover,
}

struct Kind {
    name: &'static str,
    question: Question,
    course: Course,
}

const fn right(credential: &'static str) -> Question {
    Question { unit: UNIT, credential, value: Some(credential) }
}

const KINDS: &[Kind] = &[
    Kind { name: "memory", question: right("small"), course: Course::Plain },
    Kind { name: "template", question: right("template"), course: Course::Plain },
    Kind { name: "large", question: right("large"), course: Course::Plain },
    Kind { name: "cold", question: right("cold"), course: Course::Plain },
    Kind {
        name: "refusal",
        question: Question { unit: UNIT, credential: "other", value: None },
        course: Course::Plain,
    },
    Kind {
        name: "forged",
        question: Question { unit: "victim.service", credential: "other", value: None },
        course: Course::Plain,
    },
    Kind { name: "adopted", question: right("cold"), course: Course::Adopted },
    Kind { name: "reload", question: right("cold"), course: Course::Reload },
    Kind { name: "after reload", question: right("small"), course: Course::AfterReload },
    Kind { name: "drain", question: right("cold"), course: Course::Drain },
    Kind { name: "handover", question: right("cold"), course: Course::Handover },
];

fn large() -> String {
    // Not the same byte again and again: two halves that changed places would show.
    (0..75_000).map(|number| format!("{number:011} ")).collect()
}

fn values() -> [(&'static str, String); 4] {
    [
        ("small", value("small")),
        ("large", large()),
        ("cold", value("cold")),
        ("template", format!("A={}\nB=2\n", value("small"))),
    ]
}

/// The service under test, and its client.
struct Bench<'a> {
    machine: &'a Machine,
    asker: Asker,
}

/// What came of one point.
struct Outcome {
    trace: Trace,
    /// In the words of the client.
    answer: String,
    /// What a later request got that should have had the value.
    later: Option<String>,
}

impl<'a> Bench<'a> {
    fn set_up(machine: &'a Machine) -> Bench<'a> {
        set_up(machine, &[], &values(), "60s");
        let reference = |name: &str| format!("op://Vault/{name}/value");
        let secrets = json!([
            {"name": "small", "reference": reference("small"), "units": [UNIT]},
            {"name": "large", "reference": reference("large"), "units": [UNIT]},
            {"name": "cold", "reference": reference("cold"), "units": [UNIT], "always_fetch": true},
            {"name": "other", "reference": reference("small"), "units": ["victim.service"]},
        ]);
        let config = json!({
            "provider": {"kind": "local", "path": "/run/opnix-vault/vault.json"},
            "deadline": "60s",
            "secrets": secrets,
            "templates": [{"name": "template", "template": "A={{ op://Vault/small/value }}\nB=2\n", "units": [UNIT]}],
        });
        machine.write("/etc/opnix/secrets.json", config.to_string(), "0644");
        // It is started anew some hundred times, which takes 0.4 s with all of its sandbox and 0.15 s like this.
        let lines = "RestartSec=0\nPrivateUsers=no\nSystemCallFilter=\nLoadCredential=\nSetCredential=\n\
                     LoadCredentialEncrypted=";
        machine.unit("opnix.service.d/70-death.conf", &format!("[Service]\n{lines}\n"));
        let asker = Asker::start(machine, UNIT, &values());
        let mut bench = Bench { machine, asker };
        bench.warm();
        bench
    }

    /// Every value that is to come from memory is there.
    fn warm(&mut self) {
        for credential in ["small", "template", "large", "cold"] {
            let later = self.later(credential);
            assert!(later.is_none(), "{credential}: {}", later.unwrap_or_default());
        }
    }

    /// Asks for a value that must come now, sooner or later. What is wrong about that.
    fn later(&mut self, credential: &'static str) -> Option<String> {
        let end = Instant::now() + LONG;
        loop {
            let number = self.asker.ask(right(credential));
            match self.asker.answer(number, LONG).as_deref() {
                Some("right") => return None,
                // After an error of the system a refusal may stand for a while.
                Some("refused") if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
                answer => return Some(answer.unwrap_or("NO ANSWER").to_owned()),
            }
        }
    }

    fn mains_and_workers(&self) -> (Option<u32>, Option<u32>) {
        let ours: Vec<u32> =
            self.machine.processes(SERVICE).into_iter().filter(|&pid| is_service(pid)).collect();
        let main = ours.iter().copied().find(|&pid| parent(pid).is_none_or(|parent| !ours.contains(&parent)));
        let worker = ours.iter().copied().find(|&pid| parent(pid) == main && main.is_some());
        (main, worker.or(main))
    }

    /// The process that answers: the main process' child, where the main process keeps the descriptors only.
    fn worker(&self) -> u32 {
        let mut found = None;
        self.machine.wait(
            "a worker",
            || {
                found = self.mains_and_workers().1;
                found.is_some()
            },
            LONG,
        );
        found.expect("it was waited for")
    }

    fn held(&self, old: Option<u32>) -> u32 {
        let mut found = None;
        self.machine.wait(
            "a fetch at the held vault",
            || {
                found = self.mains_and_workers().1.filter(|&worker| Some(worker) != old && is_held(worker));
                found.is_some()
            },
            LONG,
        );
        found.expect("it was waited for")
    }

    /// One request of this kind, while `watch` is attached to the worker.
    /// `None`: there is no such thread.
    fn attempt(&mut self, kind: &Kind, watch: &dyn Fn(u32) -> Option<Strace>) -> Option<Outcome> {
        let Kind { question, course, .. } = *kind;
        let mut vault: Option<Lease> = None;
        let mut number = None;
        if matches!(course, Course::Adopted | Course::Reload | Course::Drain | Course::Handover) {
            vault = Some(slow_vault(self.machine));
            number = Some(self.asker.ask(question));
            let worker = self.held(None);
            if course == Course::Adopted {
                end(worker);
                self.held(Some(worker));
            }
        }
        let worker = self.worker();
        self.until(|| is_quiet(worker), STUCK);
        let Some(strace) = watch(worker) else {
            drop(vault);
            number.map(|number| self.asker.answer(number, LONG));
            return None;
        };
        let mut restart: Option<Running> = None;
        match course {
            Course::Plain => number = Some(self.asker.ask(question)),
            Course::Adopted => vault = None,
            Course::Reload | Course::AfterReload => {
                if let (Some(main), _) = self.mains_and_workers() {
                    signal(main, Signal::SIGHUP);
                }
                if course == Course::AfterReload {
                    number = Some(self.asker.ask(question));
                } else {
                    self.until(|| is_gone(worker) || is_quiet(worker), STUCK);
                    vault = None;
                }
            }
            Course::Drain | Course::Handover => {
                restart = Some(self.machine.spawn(&["systemctl", "restart", SERVICE]));
                if course == Course::Drain {
                    let machine = self.machine;
                    let stopping = || machine.show(SERVICE, "SubState").starts_with("stop");
                    self.until(|| is_gone(worker) || stopping(), STUCK);
                    vault = None;
                } else {
                    self.until(|| is_gone(worker), LONG);
                }
            }
        }
        let number = number.expect("every course asks");
        let mut answer = None;
        let done = |asker: &mut Asker, answer: &mut Option<String>| {
            *answer = answer.take().or_else(|| asker.answer(number, Duration::ZERO));
            is_gone(worker) || (restart.is_none() && answer.is_some() && is_quiet(worker))
        };
        let limit = Instant::now() + STUCK;
        while !done(&mut self.asker, &mut answer) && Instant::now() < limit {
            std::thread::sleep(Duration::from_micros(200));
        }
        let trace = strace.end(is_gone(worker));
        drop(vault);
        if answer.is_none() && !is_gone(worker) && !trace.killed {
            // What it waits for may come with the next try, now that nothing fails any more; or with the next instance.
            answer = self.asker.answer(number, Duration::from_secs(1));
            if answer.is_none() {
                end(worker);
            }
        }
        let answer = answer.or_else(|| self.asker.answer(number, LONG)).unwrap_or_else(|| "NO ANSWER".into());
        if let Some(restart) = restart {
            restart.wait().ok();
        }
        if trace.killed {
            self.machine.wait("the end of the worker", || is_gone(worker), LONG);
        }
        let later = self.later(question.value.unwrap_or("small"));
        Some(Outcome { trace, answer, later })
    }

    fn until(&self, mut so: impl FnMut() -> bool, limit: Duration) {
        let end = Instant::now() + limit;
        while !so() && Instant::now() < end {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // It may have ended in the meantime.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

fn end(pid: u32) {
    signal(pid, Signal::SIGKILL);
    let limit = Instant::now() + LONG;
    while !is_gone(pid) {
        assert!(Instant::now() < limit, "{pid} does not die");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Not the child that asks 1Password, nor what a reload runs.
fn is_service(pid: u32) -> bool {
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let is_opnix = program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("opnix"));
    let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    is_opnix && !arguments.split('\0').any(|argument| argument == "fetch" || argument == "check")
}

/// The fields of /proc/…/stat from the state on.
fn stat(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().map(str::to_owned).collect()
}

fn parent(pid: u32) -> Option<u32> {
    stat(&format!("/proc/{pid}/stat")).get(1)?.parse().ok()
}

fn is_gone(pid: u32) -> bool {
    stat(&format!("/proc/{pid}/stat")).first().is_none_or(|state| state == "Z" || state == "X")
}

/// Each thread of it waits for something, and did a moment ago.
fn is_quiet(pid: u32) -> bool {
    let waits = || {
        threads(pid).iter().all(|thread| {
            stat(&format!("/proc/{pid}/task/{}/stat", thread.tid)).first().is_some_and(|state| state == "S")
        })
    };
    waits() && {
        std::thread::sleep(Duration::from_millis(2));
        waits()
    }
}

/// A thread of it stands before the vault that is held.
fn is_held(pid: u32) -> bool {
    threads(pid).iter().any(|thread| {
        fs::read_to_string(format!("/proc/{pid}/task/{}/wchan", thread.tid))
            .is_ok_and(|place| place.contains("break_lease"))
    })
}

struct Thread {
    tid: u32,
    /// Its name, and the place in the kernel where it waits: the same in each instance that has nothing to do.
    role: String,
}

fn threads(pid: u32) -> Vec<Thread> {
    let tids = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let tids = tids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let thread = |tid: u32| {
        let told =
            |file: &str| fs::read_to_string(format!("/proc/{pid}/task/{tid}/{file}")).unwrap_or_default();
        Thread { tid, role: format!("{} in {}", told("comm").trim_end(), told("wchan")) }
    };
    tids.map(thread).collect()
}

fn in_role(pid: u32, role: &str) -> Vec<u32> {
    threads(pid).into_iter().filter(|thread| thread.role == role).map(|thread| thread.tid).collect()
}

/// A system call of a thread, by its name and its number among those of this name since the thread is watched.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    role: String,
    call: String,
    at: usize,
}

impl Bench<'_> {
    /// All that threads call in a request of this kind, from a first look at it.
    fn points(&mut self, kind: &Kind) -> Vec<Point> {
        let mut points = Vec::new();
        // The first request makes what is made once for all. And no two take quite the same way.
        for round in 0..3 {
            let roles = RefCell::new(BTreeMap::new());
            let outcome = self.attempt(kind, &|pid| {
                *roles.borrow_mut() =
                    threads(pid).into_iter().map(|thread| (thread.tid, thread.role)).collect();
                Some(Strace::process(pid))
            });
            let outcome = outcome.expect("a process has threads");
            assert!(outcome.fault(kind).is_none(), "{} without any harm: {}", kind.name, outcome.answer);
            if round == 0 {
                continue;
            }
            let roles = roles.into_inner();
            let mut counts: BTreeMap<(u32, String), usize> = BTreeMap::new();
            for Call { thread, name } in outcome.trace.calls {
                // Threads that came after the look have no role: the next time they are there from the beginning.
                let Some(role) = roles.get(&thread) else { continue };
                let at = counts.entry((thread, name.clone())).or_default();
                *at += 1;
                let point = Point { role: role.clone(), call: name, at: *at };
                if !points.contains(&point) {
                    points.push(point);
                }
            }
        }
        points
    }

    fn strike(&mut self, kind: &Kind, point: &Point, what: &str, plus: &str) -> Option<Outcome> {
        let Point { role, call, at } = point;
        let inject = format!("{call}:{what}:when={at}{plus}");
        self.attempt(kind, &|pid| {
            let threads = in_role(pid, role);
            (!threads.is_empty()).then(|| Strace::threads(&threads, &inject))
        })
    }
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

pub fn a_kill_at_any_system_call_leaves_no_wrong_answer(machine: &Machine) {
    let mut bench = Bench::set_up(machine);
    let only = std::env::var("OPNIX_DEATH_KIND").ok();
    for kind in KINDS.iter().filter(|kind| only.as_deref().is_none_or(|only| only == kind.name)) {
        let points = bench.points(kind);
        let mut tally: BTreeMap<String, usize> = BTreeMap::new();
        let start = Instant::now();
        let mut count = 0;
        for point in points.iter().filter(|point| point.at <= 6 || point.at.is_power_of_two()) {
            if std::env::var("OPNIX_DEATH_TRACE").is_ok() {
                eprintln!("{} {} {}", point.role, point.call, point.at);
                continue;
            }
            let one = Instant::now();
            let key = match bench.strike(kind, point, "signal=KILL", "") {
                None => "no such thread".to_owned(),
                Some(outcome) if !outcome.trace.killed => format!("not reached {}", outcome.answer),
                Some(outcome) => {
                    count += 1;
                    outcome.fault(kind).unwrap_or(outcome.answer)
                }
            };
            eprintln!(
                "  {} {} {} {}: {key} {:?}",
                kind.name,
                point.role,
                point.call,
                point.at,
                one.elapsed()
            );
            *tally.entry(key).or_default() += 1;
        }
        eprintln!("== {}: {count} of {} points in {:?}: {tally:?}", kind.name, points.len(), start.elapsed());
    }
}
