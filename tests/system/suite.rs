//! Runs the tests one after another on one machine; says so loudly when it cannot.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::boot::SANE_PATH;
use crate::machine::{Machine, root};

/// A name (a sentence about behaviour) and what shows it.
pub type Test = (&'static str, fn(&Machine));

/// `tests![requests::a_unit_gets_its_secret, …]`: a test's name is its function's.
macro_rules! tests {
    ($($test:path),* $(,)?) => { &[$((stringify!($test), $test as fn(&$crate::machine::Machine))),*] };
}
pub(crate) use tests;

/// What takes longer is told, for whoever looks for room.
const LONG: Duration = Duration::from_secs(10);
const OPT_OUT: &str = "OPNIX_SKIP_SYSTEM_TESTS";

pub fn run(tests: &[Test]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share one machine. And one thread means the main thread, to whose life the container's is bound.
    arguments.test_threads = Some(1);
    let opted_out = std::env::var(OPT_OUT).is_ok_and(|value| value == "1");
    let machine: Arc<OnceLock<Machine>> = Arc::default();
    let trial = |&(name, test): &Test| {
        let machine = machine.clone();
        let run = move || {
            let begun = Instant::now();
            let result = attempt(machine.get().expect("it boots before the first test"), test);
            took().push((begun.elapsed(), name));
            result
        };
        Trial::test(name, run).with_ignored_flag(opted_out)
    };
    let trials: Vec<Trial> = tests.iter().map(trial).collect();

    let chosen = trials.iter().any(|trial| !arguments.is_filtered_out(trial));
    let runs = trials.iter().any(|trial| !arguments.is_filtered_out(trial) && !arguments.is_ignored(trial));
    if !arguments.list && runs {
        match requirements().and_then(|()| Machine::boot()) {
            Ok(booted) => {
                eprintln!("\nsystem tests: on systemd {}, of {}", booted.systemd_version(), root().display());
                let _ = machine.set(booted);
            }
            Err(why) => {
                shout("DID NOT RUN", &why);
                return ExitCode::FAILURE;
            }
        }
    } else if !arguments.list && chosen && opted_out {
        shout("WERE SKIPPED", &format!("{OPT_OUT}=1 is set"));
    }
    // The last holders of the machine are the trials: when this returns, it is gone but for our own handle.
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(machine);
    let mut took = took().clone();
    took.sort_unstable();
    for (time, name) in took.iter().rev().filter(|(time, _)| *time >= LONG) {
        eprintln!("{:5} s  {name}", time.as_secs());
    }
    conclusion.exit_code()
}

/// How long each took.
fn took() -> MutexGuard<'static, Vec<(Duration, &'static str)>> {
    static TOOK: Mutex<Vec<(Duration, &'static str)>> = Mutex::new(Vec::new());
    TOOK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A failed test comes with what the machine said while it ran.
fn attempt(machine: &Machine, test: fn(&Machine)) -> Result<(), Failed> {
    let attempted = catch_unwind(AssertUnwindSafe(|| {
        machine.begin();
        test(machine);
    }));
    attempted.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let journal = catch_unwind(AssertUnwindSafe(|| machine.journal_text()));
        let journal = journal.unwrap_or_else(|_| "cannot be read".to_owned());
        format!("{}\n--- journal of the machine\n{journal}", text.unwrap_or_default()).into()
    })
}

fn requirements() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("they boot a container, which takes root".to_owned());
    }
    let there = |tool: &&str| SANE_PATH.split(':').any(|directory| Path::new(directory).join(tool).exists());
    let missing: Vec<&str> =
        ["systemd-nspawn", "unshare", "nsenter", "setpriv", "python3", "strace", "mkfs.ext4"]
            .into_iter()
            .filter(|tool| !there(tool))
            .collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("not installed here: {}", missing.join(", "))) }
}

fn shout(what: &str, why: &str) {
    let bar = "=".repeat(100);
    eprintln!(
        "\n{bar}\nTHE SYSTEM TESTS {what}: {why}\n\n\
         Nothing was shown about opnix on a real systemd.\n\
         To run them:        as root; `tests/run` installs what they need (systemd-container, python3, strace, e2fsprogs)\n\
         To do without them: {OPT_OUT}=1\n{bar}\n"
    );
}
