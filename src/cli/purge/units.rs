//! The units of opnix, which are stopped, and those of others that hold what they were given.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::cli::control::SERVICE;
use crate::cli::output::{complain, say};
use crate::config::{Config, MIRROR_ROOT};
use crate::mirror::mount;
use crate::mirror::unserved::who_asks;
use crate::server::given;
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
/// How long systemd may be without an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// `RuntimeDirectory=` of opnix.service.
const MISSED: &str = "/run/opnix-missed";
/// Where systemd keeps what units that run were given.
const HELD: &str = "/run/credentials";
/// After this it is said who is waited for.
const QUIET: Duration = Duration::from_secs(3);

pub struct Units {
    /// There is no systemd here at all, and so nothing runs by it.
    is_without: bool,
    /// Where files of opnix's are, or were.
    roots: BTreeSet<PathBuf>,
    /// Whom the service gave something in this boot: whose unit file says another thing now may still hold it.
    given: BTreeSet<String>,
}

impl Units {
    pub fn find(config: Option<&Config>) -> Self {
        let roots = mount::shown().into_iter().chain(config.map(|config| config.mirror_root.clone()));
        let roots = roots.chain([MIRROR_ROOT.into()]).collect();
        Self { is_without: !Path::new("/run/systemd/system").exists(), roots, given: given::units_of(MISSED) }
    }

    /// Those of opnix's that are not down.
    pub fn running(&self) -> io::Result<Vec<&'static str>> {
        self.asked(|manager| those(manager, is_up))
    }

    /// What systemd says. While it executes itself anew it answers nobody: it is asked again, because what was not looked at is not
    /// taken for down.
    fn asked<T: Default>(&self, ask: impl Fn(&mut Manager) -> io::Result<T>) -> io::Result<T> {
        if self.is_without {
            return Ok(T::default());
        }
        let end = Instant::now() + ANSWER;
        loop {
            match Manager::connect().and_then(|mut manager| ask(&mut manager)) {
                Err(_) if Instant::now() < end => sleep(LOOK),
                answer => return answer,
            }
        }
    }

    /// Stops them all, and waits for that. Returns what is in the way.
    pub fn stop(&self) -> Vec<String> {
        self.try_to_stop().unwrap_or_else(|error| vec![format!("systemd does not answer: {error}")])
    }

    fn try_to_stop(&self) -> io::Result<Vec<String>> {
        if let Some(trouble) = self.end_those_that_wait()? {
            return Ok(vec![trouble]);
        }
        let mut troubles = Vec::new();
        for name in self.running()? {
            say!("stopping {name}");
            // One that is being started is not any more.
            if let Err(error) = self.asked(|manager| manager.queue("StopUnit", name, "replace").map(drop)) {
                troubles.push(format!("{name} cannot be stopped: {error}"));
            }
        }
        let begun = Instant::now();
        let mut said = false;
        while begun.elapsed() < PATIENCE && !self.running()?.is_empty() {
            if !said && begun.elapsed() >= QUIET {
                complain!("waiting for {}, which does not stop at once ...", self.running()?.join(", "));
                said = true;
            }
            sleep(LOOK);
        }
        if self.running()?.contains(&SERVICE) {
            return Ok(troubles);
        }
        // systemd keeps for the next instance what was to be written to the journal.
        let close = |manager: &mut Manager| {
            let service = manager.unit(SERVICE)?;
            // Without a unit file, systemd lets go of it by itself.
            if service.stored() > 0 && service.is_known() { manager.close_stored(SERVICE) } else { Ok(()) }
        };
        if let Err(error) = self.asked(close) {
            troubles.push(format!("what systemd keeps for {SERVICE} cannot be closed: {error}"));
        }
        self.asked(|manager| {
            // One that failed is not left in the list of failed ones.
            UNITS.into_iter().for_each(|name| drop(manager.reset_failed(name)));
            Ok(())
        })?;
        Ok(troubles)
    }

    /// Where the service ends without an answer, as one that fails at each start does, the end of a connection that systemd keeps for it
    /// is an empty secret: so the starts that wait are ended first. Returns what is in the way of that.
    pub fn end_those_that_wait(&self) -> io::Result<Option<String>> {
        let end = Instant::now() + PATIENCE;
        let who = |manager: &mut Manager| {
            let asking = who_asks(manager, Path::new(SOCKET))?;
            Ok(asking.into_iter().filter(waits).map(|unit| unit.id).collect())
        };
        let mut told = BTreeSet::new();
        loop {
            let waiting: Vec<String> = self.asked(who)?;
            if waiting.is_empty() {
                return Ok(None);
            }
            if Instant::now() >= end {
                let waiting = waiting.join(" ");
                return Ok(Some(format!(
                    "these wait for {SERVICE}, and do not stop: stop them and run this again: systemctl stop {waiting}"
                )));
            }
            for name in &waiting {
                if told.insert(name.clone()) {
                    say!("stopping {name}, which waits for its secret");
                    self.asked(|manager| manager.queue("StopUnit", name, "replace").map(drop))?;
                }
            }
            sleep(LOOK);
        }
    }

    /// Those that could be started again although opnix is closed: by an older unit file, or one of the administrator's.
    pub fn open(&self) -> io::Result<Vec<&'static str>> {
        let is_open = |unit: &Unit| unit.is_known() && !unit.is_masked() && !is_closed(unit);
        self.asked(|manager| those(manager, is_open))
    }

    /// Units that run and have a credential of opnix's, from its socket or from a file of its.
    pub fn holders(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(HELD).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let names: Vec<String> = names.filter(|name| !UNITS.contains(&name.as_str())).collect();
        let is_ours = |source: &str| {
            source == SOCKET || self.roots.iter().any(|root| Path::new(source).starts_with(root))
        };
        let holds = |manager: &mut Manager, name: &str| -> io::Result<bool> {
            let loads = manager.unit(name)?.loads();
            Ok(self.given.contains(name) || loads.iter().any(|load| is_ours(&load.source)))
        };
        let mut holders = self.asked(|manager| {
            let mut holders = Vec::new();
            for name in &names {
                if holds(manager, name)? {
                    holders.push(name.clone());
                }
            }
            Ok(holders)
        })?;
        holders.sort();
        Ok(holders)
    }
}

fn those(manager: &mut Manager, are: impl Fn(&Unit) -> bool) -> io::Result<Vec<&'static str>> {
    let mut found = Vec::new();
    for name in UNITS {
        if are(&manager.unit(name)?) {
            found.push(name);
        }
    }
    Ok(found)
}

/// Whether it waits for a credential: systemd shows one when it has all of it. One that has exited, and counts as active, waits for
/// nothing, whatever became of its credentials.
fn waits(unit: &Unit) -> bool {
    let is_missing = |id: &str| !Path::new(HELD).join(&unit.id).join(id).exists();
    let may_wait = unit.state() == "activating" || unit.main_pid() != 0;
    may_wait && unit.loads().iter().any(|load| load.source == SOCKET && is_missing(&load.id))
}

/// Whoever took its unit file away did not stop it by that.
fn is_up(unit: &Unit) -> bool {
    !["inactive", "failed"].contains(&unit.state())
}

fn is_closed(unit: &Unit) -> bool {
    let closes = |test: &Test| test.kind == "AssertPathExists" && test.negated && test.parameter == PURGED;
    unit.tests().iter().any(closes)
}
