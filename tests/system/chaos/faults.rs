//! What is done to opnix and around it while units start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use super::units::{Unit, Vault};
use crate::machine::Machine;
use crate::opnix::{LONG, upgrade_to_another_program};
use crate::simulators::http::Fault as Broken;
use crate::worker::{Instance, SERVICE, is_gone, signal, until};

/// Its library, and the file with what the clock of the service is to show, in the machine.
const FAKETIME: &str = "/usr/lib/opnix-test/libfaketimeMT.so.1";
const CLOCK: &str = "/run/chaos/clock";

/// What faults are done to.
pub struct Scene<'a> {
    pub machine: &'a Machine,
    pub vault: &'a Vault,
    pub units: &'a [Unit],
    /// Tells the faults to end.
    pub over: AtomicBool,
    faults: Mutex<BTreeMap<&'static str, usize>>,
}

/// Its name, and what does it; false: this time it did not come about.
pub type Fault = (&'static str, fn(&Scene<'_>, &mut StdRng) -> bool);

/// What ends or stops the service.
pub const DEATHS: &[Fault] = &[
    ("kill", |scene, _| end_worker(scene, Signal::SIGKILL)),
    ("segv", |scene, _| end_worker(scene, Signal::SIGSEGV)),
    ("abrt", |scene, _| end_worker(scene, Signal::SIGABRT)),
    ("pause", pause),
    ("restart", |scene, _| scene.machine.systemctl(&["restart", SERVICE]).code == Some(0)),
    ("reload", |scene, _| scene.machine.systemctl(&["reload", SERVICE]).code == Some(0)),
    ("upgrade", |scene, _| {
        upgrade_to_another_program(scene.machine, &[SERVICE]);
        true
    }),
];

/// What happens around it.
pub const WEATHER: &[Fault] =
    &[("journal", journal), ("failure", failure), ("stall", stall), ("limit", limit), ("clock", clock)];

pub const KEEPER: &[Fault] =
    &[("keeper", |scene, random| end_both(scene, random, |instance| vec![instance.main]))];

pub const BOTH: &[Fault] = &[
    ("both", |scene, random| end_both(scene, random, |instance| vec![instance.main, instance.worker])),
    ("worker, keeper", |scene, random| {
        end_both(scene, random, |instance| vec![instance.worker, instance.main])
    }),
    ("all", |scene, random| {
        settle(scene, random);
        scene.machine.systemctl(&["kill", "--signal=KILL", SERVICE]).code == Some(0)
    }),
];

impl<'a> Scene<'a> {
    pub fn new(machine: &'a Machine, vault: &'a Vault, units: &'a [Unit]) -> Self {
        Scene { machine, vault, units, over: AtomicBool::new(false), faults: Mutex::default() }
    }

    /// How often each fault came about.
    pub fn faults(&self) -> BTreeMap<&'static str, usize> {
        self.faults.lock().expect("nobody panics while holding this").clone()
    }

    /// One after the other, each as often as the others, in an order that the seed says.
    pub fn inject(&self, faults: &[Fault], seed: u64, pause: std::ops::Range<u64>) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut left: Vec<&Fault> = Vec::new();
        while !self.is_over() {
            if left.is_empty() {
                left.extend(faults);
                left.shuffle(&mut random);
            }
            sleep(Duration::from_millis(random.random_range(pause.clone())));
            let Some((name, act)) = left.pop() else { continue };
            if act(self, &mut random) {
                *self.faults.lock().expect("nobody panics while holding this").entry(name).or_default() += 1;
            }
        }
    }

    /// New versions of values, without end.
    pub fn edit(&self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let numbers: Vec<usize> =
            (0..self.units.len()).filter(|&number| self.units[number].kind.starts()).collect();
        while !self.is_over() {
            self.vault.change(self.units, *numbers.choose(&mut random).expect("some start"));
            sleep(Duration::from_millis(random.random_range(0..40)));
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// Again and again: Rust has a handler for SIGSEGV, which lets the process live when there was no fault.
fn end_worker(scene: &Scene<'_>, by: Signal) -> bool {
    let Some(Instance { main, worker }) = Instance::now(scene.machine) else { return false };
    let ends = || {
        signal(worker, by);
        until(|| is_gone(worker), Duration::from_millis(20))
    };
    worker != main && until(ends, LONG)
}

/// Returns when both are gone.
fn end_both(scene: &Scene<'_>, random: &mut StdRng, whom: impl Fn(&Instance) -> Vec<u32>) -> bool {
    settle(scene, random);
    let Some(instance) = Instance::now(scene.machine).filter(|instance| instance.worker != instance.main)
    else {
        return false;
    };
    whom(&instance).into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
    until(|| is_gone(instance.main) && is_gone(instance.worker), LONG)
}

/// Mostly until the service runs, and a little longer: each instance has time for one try for what waits, and looks at its files
/// once a second before it refuses a unit that they may allow. One that is killed sooner, again and again, refuses nobody.
fn settle(scene: &Scene<'_>, random: &mut StdRng) {
    if random.random_range(0..4) > 0 {
        scene.machine.wait("the service", || scene.machine.show(SERVICE, "SubState") == "running", LONG);
        sleep(Duration::from_millis(random.random_range(0..2000)));
    }
}

fn pause(scene: &Scene<'_>, random: &mut StdRng) -> bool {
    let Some(Instance { main, worker }) = Instance::now(scene.machine) else { return false };
    signal(worker, Signal::SIGSTOP);
    sleep(Duration::from_millis(random.random_range(10..800)));
    signal(worker, Signal::SIGCONT);
    worker != main
}

fn journal(scene: &Scene<'_>, random: &mut StdRng) -> bool {
    let send = |signal| {
        scene.machine.systemctl(&["kill", signal, "systemd-journald.service"]).ok();
    };
    send("--signal=STOP");
    sleep(Duration::from_millis(random.random_range(100..1500)));
    send("--signal=CONT");
    true
}

/// Requests of all kinds meet this for a while.
fn broken(scene: &Scene<'_>, random: &mut StdRng, fault: Broken) -> bool {
    let server = &scene.vault.simulator.server;
    let times = if random.random() { usize::MAX } else { random.random_range(1..20) };
    let met = server.faults_met().len();
    server.fault("", times, fault);
    sleep(Duration::from_millis(random.random_range(100..1200)));
    server.clear_faults();
    server.faults_met().len() > met
}

fn failure(scene: &Scene<'_>, random: &mut StdRng) -> bool {
    let fault = match random.random_range(0..6) {
        0 => Broken::Status(500),
        1 => Broken::Status(401),
        2 => Broken::Html(503),
        3 => Broken::Reset,
        4 => Broken::Truncate,
        _ => Broken::Garbage,
    };
    broken(scene, random, fault)
}

fn stall(scene: &Scene<'_>, random: &mut StdRng) -> bool {
    let fault = match random.random_range(0..3) {
        0 => Broken::Hold,
        1 => Broken::Delay(Duration::from_millis(random.random_range(10..1000))),
        _ => Broken::Slow(500, Duration::from_millis(random.random_range(1..5))),
    };
    broken(scene, random, fault)
}

fn limit(scene: &Scene<'_>, random: &mut StdRng) -> bool {
    let seconds = *[None, Some(1), Some(1)].choose(random).expect("some");
    broken(scene, random, Broken::Limited(seconds))
}

fn clock(scene: &Scene<'_>, random: &mut StdRng) -> bool {
    set_clock(scene.machine, ["+0", "-1y", "-1d", "-2", "+2", "+1h", "+1y"].choose(random).expect("some"));
    true
}

/// Gives the service a clock of its own, which can be set.
pub fn give_clock(machine: &Machine) {
    let library = [concat!("/usr/lib/", "x86_64-linux-gnu"), concat!("/usr/lib/", "aarch64-linux-gnu")]
        .into_iter()
        .map(|directory| PathBuf::from(directory).join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists());
    let library = library.expect("libfaketime is missing: tests/run installs it");
    machine.write(FAKETIME, fs::read(library).expect("it can be read"), "0755");
    set_clock(machine, "+0");
    let environment = format!(
        "LD_PRELOAD={FAKETIME} FAKETIME_TIMESTAMP_FILE={CLOCK} FAKETIME_NO_CACHE=1 \
         FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1"
    );
    machine.unit("opnix.service.d/60-chaos.conf", &format!("[Service]\nEnvironment={environment}\n"));
}

/// Relative to the real one, as in `-1d`.
pub fn set_clock(machine: &Machine, offset: &str) {
    let path = machine.path(CLOCK);
    let new = Path::new(&path).with_extension("new");
    fs::write(&new, offset).expect("the machine has memory");
    fs::rename(new, path).expect("it is there");
}
