//! The service under test, a client that asks it, and what came of each request.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

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

pub const UNIT: &str = "asker.service";
/// A request that has no answer by then waits for something that does not come by itself.
const STUCK: Duration = Duration::from_secs(2);
/// How long a later request may take.
const LATER: Duration = Duration::from_secs(10);
/// How a request comes to be asked and answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It is asked while the worker is watched.
    Plain,
    /// The same, and its client reads no more than a little before the worker has died or can do nothing but wait.
    Slow,
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
    /// No unit's request, but a stranger's, which is to get nothing until it goes. It comes while the worker is watched.
    Held,
    /// It was held when its instance died. The next one is watched from its first step.
    HeldBorn,
}

impl Course {
    pub fn is_strangers(self) -> bool {
        matches!(self, Course::Held | Course::HeldBorn)
    }

    pub fn is_birth(self) -> bool {
        matches!(self, Course::Born | Course::HeldBorn)
    }
}

pub struct Kind {
    pub name: &'static str,
    /// Of a stranger: the one that is asked beside it.
    pub question: Question,
    pub course: Course,
}

pub const fn value_of(credential: &'static str) -> Question {
    Question { unit: UNIT, credential, value: Some(credential) }
}

/// A system call of a thread, by its name and its number among those of this name since the thread is watched.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// Whose it is; of an instance that is watched from its first step all threads are one.
    pub role: Option<String>,
    pub call: String,
    pub at: usize,
}

impl Point {
    pub fn shown(&self) -> String {
        format!("{} at {} {}", self.role.as_deref().unwrap_or("any thread"), self.call, self.at)
    }
}

/// What came of one point.
pub struct Outcome {
    pub trace: Trace,
    /// In the words of the client.
    pub answer: String,
    /// What a later request got, if not the value.
    pub later: Option<String>,
}

impl Outcome {
    pub fn fault(&self, kind: &Kind) -> Option<String> {
        let fine = match kind.course.is_strangers() {
            true => self.answer == "held",
            false => is_fine(&self.answer, kind.question.value),
        };
        match &self.later {
            Some(later) => Some(format!("{}, and a later request: {later}", self.answer)),
            None => (!fine).then(|| self.answer.clone()),
        }
    }
}

/// Of a unit's request.
fn is_fine(answer: &str, value: Option<&str>) -> bool {
    match answer {
        "right" => value.is_some(),
        "refused" | "reset" => true,
        _ => false,
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
pub struct Bench<'a> {
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
    SystemCallFilter=\n\
    LoadCredential=\n\
    SetCredential=\n\
    ExecStart=\n\
    ExecStart=sh -c '[ ! -e /run/death/shut ] || read _ </run/death/gate; exec /usr/bin/opnix serve'\n";

impl<'a> Bench<'a> {
    pub fn set_up(machine: &'a Machine) -> Bench<'a> {
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
        machine.systemctl(&["mask", "--runtime", "--now", "opnix-key.service"]).ok();
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
        let mut beside = None;
        if course == Course::HeldBorn {
            number = Some(self.asker.ask_as_a_stranger());
            let old = self.instance();
            until(|| is_quiet(old.worker), STUCK);
            worker = Some(self.bear(old));
            // It is answered when the new instance serves: by then it has adopted what was held.
            beside = Some(self.asker.ask(question));
        }
        // For the next instance, which is quick, at once; else when all is over.
        let (path, away) = (machine.path(VAULT), machine.path(&format!("{VAULT}.away")));
        let bring_back = || drop(fs::rename(&away, &path));
        if course == Course::Fault {
            fs::rename(&path, &away).expect("the vault is there");
        }
        let instance = self.instance();
        let worker = worker.unwrap_or(instance.worker);
        if !course.is_birth() {
            until(|| is_quiet(worker), STUCK);
        }

        // The request itself.
        let began = Instant::now();
        let strace = watch(worker);
        let attached = Instant::now();
        let mut restart: Option<Running> = None;
        match course {
            Course::Plain => number = Some(self.asker.ask(question)),
            Course::Slow | Course::Fault => {
                let asked = self.asker.ask_slowly(question);
                until(|| is_gone(worker) || is_quiet(worker), STUCK);
                if is_gone(worker) {
                    bring_back();
                }
                self.asker.go(asked);
                number = Some(asked);
            }
            Course::Held => number = Some(self.asker.ask_as_a_stranger()),
            Course::Born | Course::HeldBorn => signal(worker, Signal::SIGCONT),
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
        // Nothing tells when a stranger is held but that the worker has no more to do.
        let awaited = if course.is_strangers() { beside } else { Some(number) };
        let mut answer = None;
        let done = || {
            answer = answer.take().or_else(|| self.asker.answer(awaited?, Duration::ZERO));
            let has_answer = answer.is_some() || awaited.is_none();
            is_gone(worker) || (restart.is_none() && has_answer && is_quiet(worker))
        };
        until(done, STUCK);
        drop(vault);
        if course == Course::Fault {
            bring_back();
        }
        let gone = is_gone(worker);
        let trace = strace.map(|strace| strace.end(gone));
        let answered = Instant::now();

        // What comes of it.
        let killed = trace.as_ref().is_some_and(|trace| trace.killed);
        if let Some(awaited) = awaited {
            if answer.is_none() && !gone && !killed {
                // It may come by itself, now that nothing fails any more; if not, the next instance must find it.
                answer = self.asker.answer(awaited, Duration::from_secs(1));
                if answer.is_none() {
                    end(worker);
                }
            }
            answer = answer.or_else(|| self.asker.answer(awaited, LONG)).or_else(|| Some("NO ANSWER".into()));
        }
        if let Some(restart) = restart {
            restart.wait().ok();
        }
        let mut later = self.later(question.value.unwrap_or("small"), !killed);
        if course.is_strangers() {
            later = later.or(answer.filter(|beside| !is_fine(beside, question.value)));
            // The instance that has it now has had the time to do something to it.
            let Instance { worker, .. } = self.instance();
            until(|| is_quiet(worker), STUCK);
            answer = self.asker.let_go(number);
        }
        let answer = answer.unwrap_or_else(|| "NO ANSWER".into());
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
    pub fn points(&mut self, kind: &Kind) -> Vec<Point> {
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
                _ if kind.course.is_strangers() => "held",
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
                    (course, _) if course.is_birth() => None,
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
    pub fn strike(&mut self, kind: &Kind, point: &Point, what: &str, on: &str) -> Option<Outcome> {
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
    pub fn times(&self) -> String {
        let mean = |took: Duration| took.as_millis() / u128::from(self.tried.max(1));
        let [attached, answered, later] = self.took.map(mean);
        format!(
            "{} requests; each took {attached} ms to attach strace, {answered} ms to its answer or death, \
             {later} ms to a later answer",
            self.tried
        )
    }
}
