//! The units of opnix, which are stopped, and those of others that hold what they were given.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::cli::control::SERVICE;
use crate::cli::output::{complain, say};
use crate::config::{Config, MIRROR_ROOT};
use crate::mirror::mount;
use crate::systemd::manager::{Manager, Test, Unit};
use crate::systemd::{PURGED, SOCKET};

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
    /// Where files of opnix's are, or were.
    roots: BTreeSet<PathBuf>,
}

impl Units {
    pub fn find(config: Option<&Config>) -> Self {
        let roots = mount::shown().into_iter().chain(config.map(|config| config.mirror_root.clone()));
        let roots = roots.chain([MIRROR_ROOT.into()]).collect();
        Self { is_without: !Path::new("/run/systemd/system").exists(), roots }
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

    /// Those that could be started again although opnix is closed: by an older unit file, or one of the administrator's.
    pub fn open(&self) -> Vec<&'static str> {
        let Ok(mut manager) = Manager::connect() else { return Vec::new() };
        let mut is_open = |name: &&str| {
            manager.unit(name).is_ok_and(|unit| unit.is_known() && !unit.is_masked() && !is_closed(&unit))
        };
        UNITS.into_iter().filter(|name| is_open(name)).collect()
    }

    /// Units that run and have a credential of opnix's, from its socket or from a file of its.
    pub fn holders(&self) -> Vec<String> {
        let Ok(mut manager) = Manager::connect() else { return Vec::new() };
        let names = fs::read_dir(HELD).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let is_ours = |source: &str| {
            source == SOCKET || self.roots.iter().any(|root| Path::new(source).starts_with(root))
        };
        let mut holds = |name: &String| {
            manager.unit(name).is_ok_and(|unit| unit.loads().iter().any(|load| is_ours(&load.source)))
        };
        let mut holders: Vec<String> =
            names.filter(|name| !UNITS.contains(&name.as_str())).filter(|name| holds(name)).collect();
        holders.sort();
        holders
    }
}

/// Whoever took its unit file away did not stop it by that.
fn is_up(unit: &Unit) -> bool {
    !["inactive", "failed"].contains(&unit.state())
}

fn is_closed(unit: &Unit) -> bool {
    let closes = |test: &Test| test.kind == "AssertPathExists" && test.negated && test.parameter == PURGED;
    unit.tests().iter().any(closes)
}
