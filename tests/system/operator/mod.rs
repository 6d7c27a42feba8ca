//! One look says what is wrong: each fault is made for real, named by `opnix doctor` and by the exit code of `opnix status`, mended, and
//! then gone. A host that is well has no finding.

mod healthy;
mod machine_faults;
mod onepassword_faults;

use std::time::{Duration, Instant};

use serde_json::Value;

pub use self::healthy::*;
pub use self::machine_faults::*;
pub use self::onepassword_faults::*;
use crate::machine::Machine;

/// How long after a fault, or its end, until it is told. The service looks at its token and units every few seconds.
const SOON: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(200);

/// What doctor says.
struct Diagnosis {
    code: Option<i32>,
    findings: Vec<Value>,
}

impl Diagnosis {
    fn of(machine: &Machine, arguments: &[&str]) -> Self {
        let output = machine.run(&[&["opnix", "doctor", "--json"], arguments].concat());
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {} {}", output.text(), output.stderr));
        let findings = report["findings"].as_array().expect("a list").clone();
        Self { code: output.code, findings }
    }

    /// Those that say that something is wrong.
    fn wrong(&self) -> Vec<&Value> {
        let is_wrong =
            |finding: &&Value| ["fault", "warning"].contains(&finding["level"].as_str().unwrap_or("?"));
        self.findings.iter().filter(is_wrong).collect()
    }

    /// The finding of this kind, which has these words in it.
    fn names(&self, kind: &str, words: &str) -> Option<&Value> {
        self.wrong().into_iter().find(|finding| finding["id"] == kind && finding.to_string().contains(words))
    }
}

/// A fault, as an operator meets it.
struct Fault<'f> {
    name: &'f str,
    /// A script; anything else is done by who calls.
    breaks: &'f str,
    /// What doctor calls it, and words that it says of it.
    kind: &'f str,
    words: &'f str,
    /// How `opnix status` exits meanwhile.
    status: i32,
    mends: &'f str,
}

impl Fault<'_> {
    /// Made, named, mended and gone; or what was otherwise.
    fn run(&self, machine: &Machine, break_it: impl FnOnce(), mend_it: impl FnOnce()) -> Result<(), String> {
        let begun = Instant::now();
        machine.sh(self.breaks).ok();
        break_it();
        let named = self.is_named(machine);
        let after = begun.elapsed();
        machine.sh(self.mends).ok();
        mend_it();
        let gone = is_well(machine);
        let then = begun.elapsed() - after;
        eprintln!("    {:5.1} s and {:5.1} s  {}", after.as_secs_f64(), then.as_secs_f64(), self.name);
        let of_it = |why| format!("{}: {why}", self.name);
        let outcome = named.map_err(of_it).and(gone.map_err(|why| format!("{}, mended: {why}", self.name)));
        // Whoever looks on need not wait for the others.
        outcome.inspect_err(|why| eprintln!("{why}"))
    }

    fn is_named(&self, machine: &Machine) -> Result<(), String> {
        soon(|| {
            let diagnosis = Diagnosis::of(machine, &[]);
            let status = machine.run(&["opnix", "status"]);
            let otherwise = || {
                let said = format!("doctor ({:?}) says {:#?}", diagnosis.code, diagnosis.wrong());
                format!(
                    "{said}, status ({:?}, not {}): {}{}",
                    status.code,
                    self.status,
                    status.text(),
                    status.stderr
                )
            };
            let finding = diagnosis.names(self.kind, self.words).ok_or_else(otherwise)?;
            let is_fault = finding["level"] == "fault";
            if (is_fault && diagnosis.code != Some(69)) || status.code != Some(self.status) {
                return Err(otherwise());
            }
            let is_empty = |member: &&str| finding[*member].as_str().unwrap_or_default().trim().is_empty();
            match ["what", "why", "remedy"].iter().find(|member| is_empty(member)) {
                Some(member) => Err(format!("no {member} in {finding}")),
                None => Ok(()),
            }
        })
    }
}

/// Neither doctor nor status finds anything, soon.
fn is_well(machine: &Machine) -> Result<(), String> {
    soon(|| {
        let diagnosis = Diagnosis::of(machine, &[]);
        let status = machine.run(&["opnix", "status"]);
        if diagnosis.wrong().is_empty() && diagnosis.code == Some(0) && status.code == Some(0) {
            return Ok(());
        }
        let said = format!("doctor ({:?}) still says {:#?}", diagnosis.code, diagnosis.wrong());
        Err(format!("{said}; status ({:?}): {}{}", status.code, status.text(), status.stderr))
    })
}

fn soon(mut look: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        match look() {
            Err(why) if begun.elapsed() >= SOON => return Err(why),
            Err(_) => std::thread::sleep(PAUSE),
            Ok(()) => return Ok(()),
        }
    }
}
