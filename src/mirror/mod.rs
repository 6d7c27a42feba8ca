//! The mirror, opnix's half with root's rights and without network: files for software that only reads files, what happens to
//! units whose secret changed, and the start of units that missed theirs.
//!
//! It asks the service for values exactly as systemd does, over the same socket, under the same checks: its unit is
//! [`crate::policy::MIRROR`], and the names it asks by are derived from the content that it wants
//! ([`crate::template::Template::mirror_name`]). So a value always goes the way of a credential, and two
//! configurations that differ for a moment never mix up two secrets. Over the control socket it learns when to look
//! again, and what units missed.

pub mod accounts;
mod ask;
mod hands;
pub mod install;
mod lacks;
pub mod mount;
mod pass;
pub mod plan;
mod recover;
pub mod report;
mod startable;
mod state;
pub mod traces;
mod units;
pub mod unserved;
pub mod watch;
pub mod way;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracing::warn;

use self::ask::{NoValue, Patience};
use self::hands::Hands;
use self::install::Mark;
pub use self::lacks::Missed;
use self::pass::{Done, Pass};
use self::plan::Tasks;
use self::recover::Provided;
use self::report::Report;
pub use self::state::Memory;
use self::state::State;
use self::units::Acts;
pub use self::units::{meant, suited};
use crate::config::{self, Config, MIRROR_ROOT, MirrorFile};
use crate::policy::Entry;
use crate::systemd::manager::{Ended, Manager};
use crate::systemd::reload;

/// How long the files of a start may keep those waiting that come after it, even if units may wait longer.
const START: Duration = Duration::from_secs(30);
/// When to try again what stands in the way here; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often to read the files, to see whether they are as they were left; in between it is enough to look at what says that
/// they were written to.
const READ_FILES: Duration = Duration::from_secs(5 * 60);
/// How often units are told of a file that somebody else changed and that was put back.
const TELL_OF_OTHERS: Duration = Duration::from_secs(60 * 60);

/// How often to look at all units that are down although nothing new is known.
const LOOK_AT_UNITS: Duration = Duration::from_secs(60);

/// What the mirror works on.
pub struct Mirror {
    files: Vec<PathBuf>,
    /// The service's socket.
    socket: PathBuf,
    /// Where it remembers what it has seen; it is lost at reboot, and then nothing counts as changed.
    memory: Memory,
    state: State,
    /// The configuration that was valid last.
    config: Option<Config>,
    hands: Hands<Done>,
    /// What is below it is in our memory.
    root: PathBuf,
    /// When the files were last looked at, and read.
    mended: Option<Instant>,
    read: Option<Instant>,
    /// When to try again to have our memory mounted.
    mounts_again: Option<(Instant, Duration)>,
    /// Counts the looks.
    turn: u64,
    /// The files that somebody else changed, and when units were last told of it.
    touched: BTreeMap<PathBuf, Instant>,
    /// The files that are not as they should be.
    troubles: BTreeMap<PathBuf, Trouble>,
    /// What left the configuration and could not be removed, and why.
    stuck: BTreeMap<PathBuf, String>,
    /// Why the configuration that is there now is not used.
    faults: Option<String>,
    acts: Acts,
    /// Something came that units may have been waiting for, or a start failed.
    has_news: bool,
    /// What was known when units were last looked at, and when that was.
    looked: Option<(Option<BTreeMap<String, bool>>, Instant)>,
    /// What was said last.
    reported: Option<Report>,
    /// Why the service refused us what we asked for, by the name that it was asked for by.
    reasons: BTreeMap<String, String>,
}

/// Why a file is not as it should be.
struct Trouble {
    why: String,
    /// When to try again; `None`: when the service says that something changed.
    again: Option<Instant>,
    pause: Duration,
    since: SystemTime,
}

/// When the mirror looks at everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// Units that come after it wait for it.
    Start,
    /// An administrator waits for it.
    Reload,
    /// The service says that something changed.
    Change,
}

impl Mirror {
    pub fn new(files: Vec<PathBuf>, socket: PathBuf, memory: Memory) -> io::Result<Self> {
        let state = memory.load()?;
        Ok(Self {
            files,
            socket,
            memory,
            state,
            config: None,
            hands: Hands::new(),
            root: MIRROR_ROOT.into(),
            mended: None,
            read: None,
            mounts_again: None,
            turn: 0,
            touched: BTreeMap::new(),
            troubles: BTreeMap::new(),
            stuck: BTreeMap::new(),
            faults: None,
            acts: Acts::default(),
            has_news: true,
            looked: None,
            reported: None,
            reasons: BTreeMap::new(),
        })
    }

    /// Looks at everything once: asks, compares, writes files, and acts on units whose secret changed. A faulty configuration
    /// changes nothing.
    pub fn round(&mut self, occasion: Occasion) -> Result<(), config::Faults> {
        let config = match config::load(&self.files) {
            Ok(config) => config,
            Err(faults) => {
                self.faults = Some(faults.line());
                return Err(faults);
            }
        };
        self.faults = None;
        let mounts = occasion != Occasion::Change || self.may_mount();
        let long = START.min(config.timing.deadline);
        let short = config.timing.short_deadline.min(long);
        let patience = match occasion {
            Occasion::Start => Patience { first: long, others: short },
            Occasion::Reload => Patience { first: short, others: short },
            // Nobody waits for the first of them; what has come is to be acted on soon.
            Occasion::Change => Patience { first: long, others: short },
        };
        let mut pass = Pass::new(self, &config, mounts);
        if occasion == Occasion::Start {
            pass.remove_unfinished();
        }
        pass.remove_what_left();
        pass.intend();
        pass.ask(&names(entries(&config)), patience);
        if occasion == Occasion::Reload {
            // The service may read the new configuration in this moment, and still refuse what only that one has.
            pass.ask_again(short);
        }
        let units = pass.finish();
        self.tell(units);
        self.config = Some(config);
        Ok(())
    }

    /// Looks whether the files are as they were left, and tries again what stood in the way, where it is time.
    pub fn mend(&mut self) {
        let Some(config) = self.config.take() else { return };
        let now = Instant::now();
        self.mended = Some(now);
        let mounts = self.may_mount();
        let reads = self.read.is_none_or(|read| now >= read + READ_FILES);
        if reads {
            self.read = Some(now);
        }
        let is_due = |trouble: &Trouble| trouble.again.is_some_and(|again| again <= now);
        let mut due: BTreeSet<PathBuf> = self
            .troubles
            .iter()
            .filter(|(_, trouble)| is_due(trouble))
            .map(|(path, _)| path.clone())
            .collect();
        let mut pass = Pass::new(self, &config, mounts);
        due.extend(pass.look(reads));
        let files = config.files.iter().filter(|file| due.contains(&file.path));
        let asked = names(files.map(|file| &file.entry));
        let short = config.timing.short_deadline.min(START);
        pass.ask(&asked, Patience { first: short, others: short });
        let units = pass.finish();
        if !(units.is_empty() && self.state.untold.is_empty()) {
            self.tell(units);
        }
        self.config = Some(config);
    }

    /// What needs nothing from the service: tells units, and removes what could not be removed.
    pub fn catch_up(&mut self) {
        if !self.state.untold.is_empty() {
            self.tell(Tasks::new());
        }
        if !self.stuck.is_empty()
            && let Some(config) = self.config.take()
        {
            let mut pass = Pass::new(self, &config, false);
            pass.remove_what_left();
            let units = pass.finish();
            self.tell(units);
            self.config = Some(config);
        }
    }

    fn may_mount(&self) -> bool {
        self.mounts_again.is_none_or(|(again, _)| again <= Instant::now())
    }

    /// When to try again what stands in the way.
    pub fn next_try(&self) -> Option<Instant> {
        let next = self.troubles.values().filter_map(|trouble| trouble.again).min()?;
        Some(self.mended.map_or(next, |mended| next.max(mended + FIRST_PAUSE)))
    }

    /// Acts on units whose secret changed. What could not be done is done at the next look, also by a mirror that begins anew.
    fn tell(&mut self, units: Tasks) {
        for (unit, task) in units {
            plan::add(&mut self.state.untold, unit, task);
        }
        self.save();
        if self.state.untold.is_empty() {
            return;
        }
        if let Err(error) = units::act(&mut self.state.untold, &self.socket, &mut self.acts) {
            warn!(
                "a secret changed, and not all units were told yet: the service manager does not answer: {error}"
            );
        }
        self.save();
    }

    /// A file could not be written. `again`: what stands in the way is here, and nobody tells when it is gone.
    fn note(&mut self, file: &MirrorFile, why: String, again: bool) {
        let before = self.troubles.get(&file.path);
        if before.is_none_or(|before| before.why != why) {
            let path = file.path.display();
            let is_there = self.is_written(file);
            warn!("{path} {}: {why}", if is_there { "stays as it was" } else { "is not there" });
        }
        let pause = before.map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
        let again = again.then(|| Instant::now() + pause);
        let since = before.map_or_else(SystemTime::now, |before| before.since);
        self.troubles.insert(file.path.clone(), Trouble { why, again, pause, since });
    }

    /// Whether it was written once, as far as that is known.
    fn is_written(&self, file: &MirrorFile) -> bool {
        self.state.files.get(&file.path).is_some_and(|written| written.mark.is_some())
    }

    fn save(&self) {
        if let Err(error) = self.memory.save(&self.state, &self.root) {
            warn!("what was seen cannot be remembered through a restart of the mirror: {error}");
        }
    }

    /// What units may have been waiting for, with what the service says they missed.
    fn provided(&self, missed: Option<BTreeMap<String, bool>>) -> Provided {
        let mut provided = Provided { missed, ..Provided::default() };
        for file in self.config.iter().flat_map(|config| &config.files) {
            let readers: BTreeSet<String> = file.services.iter().map(|(unit, _)| unit.to_string()).collect();
            for path in file.symlinks.iter().chain([&file.path]) {
                provided.files.entry(path.clone()).or_default().extend(readers.iter().cloned());
                if !path.starts_with(&self.root) {
                    let written = self.state.files.get(&file.path).and_then(|written| written.mark.as_ref());
                    // A file that cannot be written anew, or linked to, is there all the same.
                    let is_sure = *path == file.path || !self.troubles.contains_key(&file.path);
                    let written = written.filter(|_| is_sure);
                    provided.elsewhere.insert(path.clone(), written.map(Mark::modified));
                }
            }
        }
        provided
    }

    /// Whether the end of this job tells something.
    pub fn is_concerned(&self, ended: &Ended) -> bool {
        self.acts.concerns(ended) || self.may_lack_a_file(ended)
    }

    /// The ends of jobs.
    fn ended(&mut self, ended: &[Ended], missed: Option<Missed>) {
        let missed = self.take_in(missed);
        let known = self.looked.as_ref().map(|(known, _)| known.clone()).unwrap_or_default();
        let provided = self.provided(missed.or(known));
        ended.iter().for_each(|ended| self.acts.ended(ended));
        let ended: Vec<&Ended> = ended.iter().filter(|ended| self.may_lack_a_file(ended)).collect();
        if ended.is_empty() {
            return;
        }
        match Manager::connect() {
            Ok(mut manager) => {
                for Ended { unit, result, .. } in ended {
                    self.state.left.ended(unit, result, &provided, &mut manager);
                }
                self.tell_what_they_lack(&provided, &mut manager);
            }
            Err(error) => warn!("why {} units did not start is not known: {error}", ended.len()),
        }
    }

    /// Starts units that were left behind, where they can go on.
    fn recover(&mut self, missed: Option<Missed>) {
        let missed = self.take_in(missed);
        let is_news = |(before, at): &(Option<BTreeMap<String, bool>>, Instant)| {
            *before != missed || at.elapsed() >= LOOK_AT_UNITS
        };
        let scans = std::mem::take(&mut self.has_news) || self.looked.as_ref().is_none_or(is_news);
        if scans {
            self.looked = Some((missed.clone(), Instant::now()));
        }
        let provided = self.provided(missed);
        let nobody_asks =
            provided.files.is_empty() && provided.missed.as_ref().is_none_or(BTreeMap::is_empty);
        if self.state.left.is_empty() && (nobody_asks || !scans) {
            return;
        }
        let recovered = units::recover(&mut self.state.left, &provided, scans);
        if let Err(error) = recovered.map(|mut manager| self.tell_what_they_lack(&provided, &mut manager)) {
            self.has_news = true;
            warn!(
                "units that miss a secret are not started for now: the service manager does not answer: {error}"
            );
        }
        self.save();
    }

    /// The reload that was asked for last.
    fn wanted_reload(&self) -> u64 {
        self.memory.runtime.as_ref().map_or(0, reload::wanted)
    }

    fn tell_reloaded(&self, wanted: u64) {
        if let Some(directory) = &self.memory.runtime {
            reload::tell_done(directory, wanted, self.faults.is_none());
        }
    }
}

impl NoValue {
    fn describe(&self) -> String {
        match self {
            Self::Refused => "the service refused it: see `opnix status` and its journal".to_owned(),
            Self::Late => "its value did not come in time: see `opnix status`".to_owned(),
            Self::NoService(why) => why.clone(),
        }
    }
}

/// All entries that the mirror asks for, once for each use.
fn entries(config: &Config) -> impl Iterator<Item = &Arc<Entry>> {
    config.files.iter().map(|file| &file.entry).chain(config.changes.iter().map(|change| &change.entry))
}

/// The names to ask for these entries by.
fn names<'c>(entries: impl Iterator<Item = &'c Arc<Entry>>) -> Vec<String> {
    let names: BTreeSet<String> = entries.map(|entry| entry.content.mirror_name().to_string()).collect();
    names.into_iter().collect()
}
