//! The units of opnix, which are stopped, and those of others that hold what they were given.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::cli::control::SERVICE;
use crate::cli::output::{complain, say};
use crate::systemd::SOCKET;
use crate::systemd::manager::{Manager, Unit};

/// All that are shipped: what listens first, then what asks, then what answers, then what the others need.
pub const UNITS: [&str; 8] = [
    "opnix.socket",
    "opnix-control.socket",
    "opnix-mirror.service",
    "opnix-token.service",
    SERVICE,
    "opnix-key.service",
    "opnix-setup.service",
    "opnix-mount.service",
];
/// How long they may take to stop: longer than systemd waits before it kills one that hangs (`TimeoutStopSec=` and
/// `TimeoutAbortSec=` of opnix.service). It is never killed from here: who waits for it would be left with an empty secret.
const PATIENCE: Duration = Duration::from_secs(45);
const LOOK: Duration = Duration::from_millis(100);
/// After this it is said who is waited for.
const QUIET: Duration = Duration::from_secs(3);
/// Where systemd keeps what units that run were given.
const HELD: &str = "/run/credentials";

pub struct Units {
    /// There is no systemd here at all, and so nothing runs by it.
    is_without: bool,
}

impl Units {
    pub fn find() -> Self {
        Self { is_without: !Path::new("/run/systemd/system").exists() }
    }

    /// Those of opnix's that are not down.
    pub fn running(&self) -> Vec<&'static str> {
        let Ok(mut manager) = Manager::connect() else { return Vec::new() };
        let mut is_up = |name: &&str| manager.unit(name).is_ok_and(|unit| is_up(&unit));
        UNITS.into_iter().filter(|name| is_up(name)).collect()
    }

    /// Stops them all, and waits for that. Returns what is in the way.
    pub fn stop(&self) -> Vec<String> {
        if self.is_without {
            return Vec::new();
        }
        let mut manager = match Manager::connect() {
            Ok(manager) => manager,
            Err(error) => return vec![format!("nothing was stopped: systemd does not answer: {error}")],
        };
        let mut troubles = Vec::new();
        for name in self.running() {
            say!("stopping {name}");
            // One that is being started is not any more.
            if let Err(error) = manager.queue("StopUnit", name, "replace") {
                troubles.push(format!("{name} cannot be stopped: {error}"));
            }
        }
        let begun = Instant::now();
        let mut said = false;
        while begun.elapsed() < PATIENCE && !self.running().is_empty() {
            if !said && begun.elapsed() >= QUIET {
                complain!("waiting for {}, which does not stop at once ...", self.running().join(", "));
                said = true;
            }
            sleep(LOOK);
        }
        let waits = self.running();
        if waits.contains(&SERVICE) {
            return troubles;
        }
        // systemd keeps for the next instance what still waits, and what was to be written to the journal.
        if manager.unit(SERVICE).is_ok_and(|unit| unit.stored() > 0)
            && let Err(error) = manager.close_stored(SERVICE)
        {
            troubles.push(format!("what systemd keeps for {SERVICE} cannot be closed: {error}"));
        }
        for name in UNITS {
            // One that failed is not left in the list of failed ones.
            let _ = manager.reset_failed(name);
        }
        troubles
    }

    /// Units that run and have a credential of opnix's.
    pub fn holders(&self) -> Vec<String> {
        let Ok(mut manager) = Manager::connect() else { return Vec::new() };
        let names = fs::read_dir(HELD).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let mut holds = |name: &String| {
            manager.unit(name).is_ok_and(|unit| unit.loads().iter().any(|load| load.source == SOCKET))
        };
        let mut holders: Vec<String> =
            names.filter(|name| !UNITS.contains(&name.as_str())).filter(|name| holds(name)).collect();
        holders.sort();
        holders
    }
}

fn is_up(unit: &Unit) -> bool {
    unit.is_known() && !["inactive", "failed"].contains(&unit.state())
}
