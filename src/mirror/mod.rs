//! The mirror, opnix's half with root's rights and without network: files for software that only reads files, what happens to
//! units whose secret changed, and the start of units that missed theirs.
//!
//! It asks the service for values exactly as systemd does, over the same socket, under the same checks: its unit is
//! [`crate::policy::MIRROR`], and the names it asks by are derived from the content that it wants
//! ([`crate::template::Template::mirror_name`]). So a value always goes the way of a credential, and two
//! configurations that differ for a moment never mix up two secrets. Over the control socket it learns when to look
//! again, and what units missed.

mod ask;
pub mod install;
pub mod mount;
pub mod plan;
mod recover;
pub mod reload;
mod startable;
mod state;
mod units;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use self::ask::{Answers, NoValue, Patience, ask};
use self::install::Accounts;
use self::plan::{Contents, plan};
use self::recover::Provided;
pub use self::state::Memory;
use self::state::State;
use crate::config::{self, Config, MIRROR_ROOT, MirrorFile, OnChange};
use crate::policy::Entry;
use crate::systemd::manager::{Ended, Manager};

/// How long the files of a start may keep those waiting that come after it, even if units may wait longer.
const START: Duration = Duration::from_secs(30);
/// When to try again what stands in the way here; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

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
    /// The files that are not as they should be.
    troubles: BTreeMap<PathBuf, Trouble>,
    /// What left the configuration and could not be removed, and why.
    stuck: BTreeMap<PathBuf, String>,
    /// What is still to be done to units whose secret changed.
    untold: BTreeMap<String, OnChange>,
    /// Why the configuration that is there now is not used.
    faults: Option<String>,
    /// Something came that units may have been waiting for, or a start failed.
    has_news: bool,
    /// What was known when units were last looked at, and when that was.
    looked: Option<(Option<BTreeMap<String, bool>>, Instant)>,
}

/// Why a file is not as it should be.
struct Trouble {
    why: String,
    /// When to try again; `None`: when the service says that something changed.
    again: Option<Instant>,
    pause: Duration,
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
            troubles: BTreeMap::new(),
            stuck: BTreeMap::new(),
            untold: BTreeMap::new(),
            faults: None,
            has_news: true,
            looked: None,
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
        if occasion == Occasion::Start {
            self.remove_unfinished(&config);
        }
        let long = START.min(config.timing.deadline);
        let short = config.timing.short_deadline.min(long);
        let patience = match occasion {
            Occasion::Start => Patience { first: long, others: short },
            Occasion::Reload => Patience { first: short, others: short },
            // Nobody waits for it: a value that takes its time need not be asked for again.
            Occasion::Change => Patience { first: long, others: long },
        };
        let asked = names(entries(&config));
        let mut answers = ask(&self.socket, &asked, patience);
        if occasion == Occasion::Reload {
            self.ask_again(&mut answers, short);
        }
        let units = self.take(&config, &answers);
        self.act(units);
        self.config = Some(config);
        Ok(())
    }

    /// A mirror that was killed may have left a secret in a file that has no name yet.
    fn remove_unfinished(&self, config: &Config) {
        let files = config.files.iter().flat_map(|file| file.symlinks.iter().chain([&file.path]));
        let known: BTreeSet<&PathBuf> =
            files.chain(self.state.files.keys()).chain(&self.state.links).collect();
        for path in known {
            if let Err(error) = install::remove_unfinished(path) {
                warn!("what may be left unfinished of {} cannot be removed: {error}", path.display());
            }
        }
    }

    /// The service may read the new configuration in this moment, and still refuse what only that one has.
    fn ask_again(&self, answers: &mut Answers, patience: Duration) {
        let end = Instant::now() + patience;
        let mut pause = Duration::from_millis(200);
        loop {
            let is_refused = |(name, answer): (&String, &Result<_, NoValue>)| {
                (answer.as_ref().err() == Some(&NoValue::Refused)).then(|| name.clone())
            };
            let refused: Vec<String> = answers.iter().filter_map(is_refused).collect();
            if refused.is_empty() || Instant::now() + pause > end {
                return;
            }
            std::thread::sleep(pause);
            pause *= 2;
            let left = end.saturating_duration_since(Instant::now());
            answers.extend(ask(&self.socket, &refused, Patience { first: left, others: left }));
        }
    }

    /// Tries again what stood in the way of files, where it is time, and puts back what is gone.
    pub fn mend(&mut self) {
        let Some(config) = self.config.take() else { return };
        let now = Instant::now();
        let is_due = |file: &MirrorFile| match self.troubles.get(&file.path) {
            Some(trouble) => trouble.again.is_some_and(|again| again <= now),
            None => {
                let mut paths = file.symlinks.iter().chain([&file.path]);
                self.state.files.contains_key(&file.path)
                    && paths.any(|path| path.symlink_metadata().is_err())
            }
        };
        let asked = names(config.files.iter().filter(|file| is_due(file)).map(|file| &file.entry));
        if !asked.is_empty() {
            let short = config.timing.short_deadline.min(START);
            let answers = ask(&self.socket, &asked, Patience { first: short, others: short });
            let units = self.take(&config, &answers);
            self.act(units);
        }
        if !self.untold.is_empty() {
            self.act(BTreeMap::new());
        }
        if !self.stuck.is_empty() {
            let left: Vec<PathBuf> =
                self.stuck.keys().filter(|path| self.state.files.contains_key(*path)).cloned().collect();
            self.remove(&config, &left);
            self.save();
        }
        self.config = Some(config);
    }

    /// When to try again what stands in the way.
    pub fn next_try(&self) -> Option<Instant> {
        self.troubles.values().filter_map(|trouble| trouble.again).min()
    }

    /// Puts these values where they belong. Returns what is to be done to units.
    fn take(&mut self, config: &Config, answers: &Answers) -> BTreeMap<String, OnChange> {
        let contents: Contents = answers
            .iter()
            .filter_map(|(name, answer)| Some((name.clone(), self.state.fingerprint(answer.as_ref().ok()?))))
            .collect();
        if self.state.forgotten {
            // Recorded as different from everything that is known now.
            for name in contents.keys() {
                self.state.seen.entry(name.clone()).or_default();
            }
        }
        let links: BTreeMap<&Path, &[PathBuf]> =
            config.files.iter().map(|file| (file.path.as_path(), &file.symlinks[..])).collect();
        let is_there = |path: &Path| {
            let links = links.get(path).copied().unwrap_or_default();
            links.iter().map(PathBuf::as_path).chain([path]).all(|path| path.symlink_metadata().is_ok())
        };
        let plan = plan(config, &contents, &self.state.seen, &self.state.files, is_there);
        for change in &config.changes {
            if let Some(Err(why)) = answers.get(change.entry.content.mirror_name().as_str()) {
                warn!("whether {} has changed is not known: {}", change.entry.name, why.describe());
            }
        }
        let accounts = Accounts::look_up(&config.files);
        let no_memory = mount::trouble(config.files.iter().any(|file| file.path.starts_with(MIRROR_ROOT)));
        // First, to make room.
        self.remove(config, &plan.remove);
        let mut written = 0;
        for file in &config.files {
            let Some(answer) = answers.get(file.entry.content.mirror_name().as_str()) else { continue };
            let below = no_memory.as_ref().filter(|_| file.path.starts_with(MIRROR_ROOT));
            let done = match (answer, plan.write.get(&file.path), below) {
                // The service tells when it has what it refused.
                (Err(why), ..) => Err((why.describe(), *why != NoValue::Refused)),
                (Ok(_), _, Some(why)) => Err((why.clone(), true)),
                (Ok(_), None, None) => Ok(false),
                (Ok(value), Some(_), None) => accounts
                    .of(file)
                    .and_then(|owner| install::install(file, owner, value).map_err(|error| error.to_string()))
                    .map(|()| true)
                    .map_err(|why| (why, true)),
            };
            match done {
                Ok(is_new) => {
                    self.troubles.remove(&file.path);
                    if let Some(write) = plan.write.get(&file.path).filter(|_| is_new) {
                        self.state.files.insert(file.path.clone(), write.clone());
                        self.state.links.extend(file.symlinks.iter().cloned());
                        written += 1;
                        self.has_news = true;
                    }
                }
                // Nobody waits for it.
                Err((_, false)) if file.optional => {}
                Err((why, is_ours)) => self.note(file, why, is_ours),
            }
        }
        if written > 0 {
            info!("wrote {written} file{}", if written == 1 { "" } else { "s" });
        }
        self.troubles.retain(|path, _| config.files.iter().any(|file| file.path == *path));
        let units = plan.units(config, |path| !self.troubles.contains_key(path));
        let known = plan.known;
        self.state.seen.extend(contents);
        self.state.seen.retain(|name, _| known.contains(name));
        self.state.forgotten &= known.iter().any(|name| !self.state.seen.contains_key(name));
        units
    }

    /// Acts on units whose secret changed. What could not be done is done at the next look; until it is, a mirror that begins
    /// anew sees the change once more.
    fn act(&mut self, units: BTreeMap<String, OnChange>) {
        self.untold.extend(units);
        match units::act(&self.untold) {
            Ok(()) => {
                self.untold.clear();
                self.save();
            }
            Err(error) => {
                warn!(
                    "a secret changed, and no unit was told yet: the service manager does not answer: {error}"
                );
            }
        }
    }

    /// A file could not be written. `again`: what stands in the way is here, and nobody tells when it is gone.
    fn note(&mut self, file: &MirrorFile, why: String, again: bool) {
        let before = self.troubles.get(&file.path);
        if before.is_none_or(|before| before.why != why) {
            let path = file.path.display();
            let is_there = file.path.symlink_metadata().is_ok();
            warn!("{path} {}: {why}", if is_there { "stays as it was" } else { "is not there" });
        }
        let pause = before.map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
        let again = again.then(|| Instant::now() + pause);
        self.troubles.insert(file.path.clone(), Trouble { why, again, pause });
    }

    /// Removes files and links that left the configuration.
    fn remove(&mut self, config: &Config, files: &[PathBuf]) {
        let wanted: Vec<&Path> =
            config.files.iter().flat_map(|file| file.symlinks.iter().map(PathBuf::as_path)).collect();
        let links: Vec<PathBuf> =
            self.state.links.iter().filter(|link| !wanted.contains(&link.as_path())).cloned().collect();
        for path in files.iter().chain(&links) {
            match install::remove(path) {
                Ok(()) => {
                    self.state.files.remove(path);
                    self.state.links.remove(path);
                    self.stuck.remove(path);
                    info!("removed {}: it left the configuration", path.display());
                }
                Err(error) => {
                    let why = error.to_string();
                    if self.stuck.get(path) != Some(&why) {
                        warn!("cannot remove {}: {why}", path.display());
                    }
                    self.stuck.insert(path.clone(), why);
                }
            }
        }
        let is_left = |path: &PathBuf| files.contains(path) || links.contains(path);
        self.stuck.retain(|path, _| is_left(path));
    }

    fn save(&self) {
        if let Err(error) = self.memory.save(&self.state) {
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
            }
        }
        provided
    }

    /// The ends of jobs. `missed` are the units that the service refused, and whether they would get everything now.
    fn ended(&mut self, ended: &[Ended], missed: Option<BTreeMap<String, bool>>) {
        let known = self.looked.as_ref().map(|(known, _)| known.clone()).unwrap_or_default();
        let provided = self.provided(missed.or(known));
        match Manager::connect() {
            Ok(mut manager) => {
                for Ended { unit, result } in ended {
                    self.state.left.ended(unit, result, &provided, &mut manager);
                }
            }
            Err(error) => warn!("why {} units did not start is not known: {error}", ended.len()),
        }
    }

    /// Starts units that were left behind, where they can go on.
    fn recover(&mut self, missed: Option<BTreeMap<String, bool>>) {
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
        if let Err(error) = units::recover(&mut self.state.left, &provided, scans) {
            self.has_news = true;
            warn!(
                "units that miss a secret are not started for now: the service manager does not answer: {error}"
            );
        }
        self.save();
    }

    fn tell_reloaded(&self) {
        if let Some(directory) = &self.memory.0
            && let Err(error) = reload::done(directory)
        {
            warn!("that a reload is done cannot be told: {error}");
        }
    }

    /// How everything is, in one line, for `systemctl status`.
    pub fn status(&self) -> String {
        let is_wanted = |file: &&MirrorFile| !file.optional || self.state.files.contains_key(&file.path);
        let files = self.config.iter().flat_map(|config| &config.files).filter(is_wanted);
        let missing = files.clone().filter(|file| self.troubles.contains_key(&file.path)).count();
        let mut text = match (files.count(), missing) {
            (0, _) => "There are no files to write.".to_owned(),
            (all, 0) => format!("All {all} files are in place."),
            (all, missing) => format!("{} of {all} files are in place.", all - missing),
        };
        if let Some(faults) = &self.faults {
            text.push_str(&format!(" The new configuration is faulty, the old one is in force: {faults}"));
        }
        for (path, why) in &self.stuck {
            text.push_str(&format!(
                " {} left the configuration and cannot be removed: {why};",
                path.display()
            ));
        }
        for (path, trouble) in &self.troubles {
            text.push_str(&format!(" {}: {};", path.display(), trouble.why));
        }
        text.replace('\n', "; ")
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
