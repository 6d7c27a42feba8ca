//! One look at files: each is written when its value comes, in the directories of others beside the rest ([`Hands`]).

mod asking;
mod leaving;
mod looking;
mod telling;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tracing::warn;

use self::telling::Telling;
use super::accounts::{Accounts, Owner};
use super::ask::NoValue;
use super::install::{self, Found, Mark, Removal, Wanted};
use super::plan::{self, Contents, Task, Tasks, Written};
use super::state::State;
use super::{FIRST_PAUSE, LONGEST_PAUSE, Mirror, TELL_OF_OTHERS, mount};
use crate::config::{Config, MirrorFile};
use crate::secret::Secret;

pub struct Pass<'p> {
    mirror: &'p mut Mirror,
    config: &'p Config,
    accounts: OnceCell<Accounts>,
    /// Why nothing can be written in our memory.
    no_memory: Option<String>,
    by_content: BTreeMap<String, Vec<&'p MirrorFile>>,
    /// What came, and what did not.
    contents: Contents,
    missing: BTreeMap<String, NoValue>,
    /// The files that are being written, or whose links are being made.
    open: BTreeMap<PathBuf, Open>,
    /// The links that were not there before, and the paths at which was something else of ours.
    new_links: BTreeSet<PathBuf>,
    moved: BTreeSet<PathBuf>,
    /// What is being looked at, or removed.
    looked_at: BTreeSet<PathBuf>,
    removed: BTreeSet<PathBuf>,
    /// The files that are not as they were left.
    differing: BTreeSet<PathBuf>,
    written: usize,
    telling: Telling,
    /// What was written is not remembered yet.
    is_unsaved: bool,
}

struct Open {
    owner: Owner,
    is_written: bool,
    links: BTreeSet<PathBuf>,
}

/// What was done, in the directory of somebody else or in ours.
pub enum Done {
    /// `now`: how it was to be; `turn`: in which look.
    Put {
        path: PathBuf,
        turn: u64,
        now: Written,
        result: io::Result<(Found, Mark)>,
    },
    Linked {
        file: PathBuf,
        link: PathBuf,
        result: io::Result<Found>,
    },
    /// `at`: the file or a link to it.
    Looked {
        path: PathBuf,
        at: PathBuf,
        is_as_left: bool,
    },
    /// `mark`: that of the file that was to be removed; else it was a link.
    Removed {
        path: PathBuf,
        mark: Option<Option<Mark>>,
        result: io::Result<Removal>,
    },
    /// What was left unfinished is gone.
    Cleaned,
}

impl<'p> Pass<'p> {
    /// `mounts`: our memory is mounted if it is not.
    pub fn new(mirror: &'p mut Mirror, config: &'p Config, mounts: bool) -> Self {
        let root = &config.mirror_root;
        let no_memory = config.needs_memory().then(|| mount::trouble(root, mounts)).flatten();
        if mounts {
            let pause = mirror.mounts_again.map_or(FIRST_PAUSE, |(_, pause)| (pause * 2).min(LONGEST_PAUSE));
            mirror.mounts_again = no_memory.as_ref().map(|_| (Instant::now() + pause, pause));
        }
        mirror.turn += 1;
        mirror.root = mount::shown().unwrap_or_else(|| root.clone());
        let mut by_content: BTreeMap<String, Vec<&MirrorFile>> = BTreeMap::new();
        for file in &config.files {
            by_content.entry(file.entry.content.mirror_name().to_string()).or_default().push(file);
        }
        Self {
            mirror,
            config,
            accounts: OnceCell::new(),
            no_memory,
            by_content,
            contents: Contents::new(),
            missing: BTreeMap::new(),
            open: BTreeMap::new(),
            new_links: BTreeSet::new(),
            moved: BTreeSet::new(),
            looked_at: BTreeSet::new(),
            removed: BTreeSet::new(),
            differing: BTreeSet::new(),
            written: 0,
            telling: Telling::new(),
            is_unsaved: false,
        }
    }

    fn accounts(&self) -> &Accounts {
        self.accounts.get_or_init(|| Accounts::look_up(&self.config.files))
    }

    /// Remembers what is to be written before it is.
    pub fn intend(&mut self) {
        let mirror = &mut *self.mirror;
        let state = &mut mirror.state;
        let was_file =
            |state: &State, path: &Path| state.files.get(path).is_some_and(|written| written.mark.is_some());
        let mut is_new = false;
        for file in &self.config.files {
            if !was_file(state, &file.path) && state.targets.contains_key(&file.path) {
                self.moved.insert(file.path.clone());
            }
            for link in &file.symlinks {
                let before = state.targets.insert(link.clone(), file.path.clone());
                if before.as_ref() != Some(&file.path) {
                    is_new = true;
                    if before.is_some() || was_file(state, link) {
                        self.moved.insert(link.clone());
                    }
                    self.new_links.insert(link.clone());
                }
            }
            is_new |= !state.files.contains_key(&file.path);
            state.files.entry(file.path.clone()).or_default();
        }
        if is_new {
            mirror.save();
        }
    }

    /// Does something with this path: at once in our memory, beside the rest elsewhere.
    fn give(&mut self, path: &Path, work: impl FnOnce(&Path) -> Done + Send + 'static) {
        let at = mount::writable(path, &self.mirror.root);
        if at == path {
            let directory = path.parent().unwrap_or(path);
            self.mirror.hands.give(directory, move || work(&at));
        } else {
            let done = work(&at);
            self.take(done);
        }
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Put { path, turn, now, result } => {
                self.telling.one_is_done();
                self.was_put(&path, turn, now, result);
            }
            Done::Linked { file, link, result } => self.was_linked(&file, &link, result),
            Done::Looked { path, at, is_as_left } => {
                self.looked_at.remove(&at);
                if !is_as_left {
                    self.differing.insert(path);
                }
            }
            Done::Removed { path, mark, result } => self.was_removed(&path, mark.as_ref(), result),
            Done::Cleaned => {}
        }
    }

    fn wait(&mut self) {
        while let Some(done) = self.mirror.hands.next() {
            self.take(done);
        }
    }

    fn came(&mut self, name: &str, value: &Arc<Secret>) {
        let files = self.by_content.get(name).cloned().unwrap_or_default();
        let is_momentary = files.iter().any(|file| plan::is_momentary(&file.entry.content));
        let hash =
            if is_momentary { plan::MOMENTARY.into() } else { self.mirror.state.key.hash(value.expose()) };
        self.missing.remove(name);
        self.contents.insert(name.to_owned(), hash.clone());
        if self.mirror.state.forgotten {
            // Counts as different from everything that is known now.
            self.mirror.state.seen.entry(name.to_owned()).or_default();
        }
        let files: Vec<_> = files.into_iter().filter_map(|file| Some((file, self.owner_of(file)?))).collect();
        self.expect(files.iter().map(|(file, _)| *file), &hash);
        for (file, owner) in files {
            self.put(file, owner, value.clone(), hash.clone());
        }
        self.take_what_is_done();
    }

    /// Remembers what is about to be written: after a kill nobody would know the file for ours.
    fn expect<'f>(&mut self, files: impl Iterator<Item = &'f MirrorFile>, hash: &str) {
        let mirror = &mut *self.mirror;
        let mut is_new = false;
        for file in files {
            let written = mirror.state.files.entry(file.path.clone()).or_default();
            if written.fingerprint != hash || written.mark.is_none() {
                written.coming = Some(hash.to_owned());
                is_new |= !file.path.starts_with(&mirror.root);
            }
        }
        if is_new {
            mirror.save();
        }
    }

    fn take_what_is_done(&mut self) {
        while let Some(done) = self.mirror.hands.done() {
            self.take(done);
        }
        if std::mem::take(&mut self.is_unsaved) {
            self.mirror.save();
        }
    }

    /// `None`: it cannot be written for now, and that is noted.
    fn owner_of(&mut self, file: &MirrorFile) -> Option<Owner> {
        if self.no_memory.is_some() && file.path.starts_with(&self.config.mirror_root) {
            self.put_off(file);
            return None;
        }
        self.accounts().of(file).map_err(|why| self.mirror.note(file, why, true)).ok()
    }

    fn put(&mut self, file: &MirrorFile, owner: Owner, value: Arc<Secret>, fingerprint: String) {
        let mode = file.mode;
        let content = file.entry.content.mirror_name().to_string();
        let now = Written { fingerprint, ids: Some(owner.ids()), mode, content, ..Written::default() };
        let links = file.symlinks.iter().cloned().collect();
        self.open.insert(file.path.clone(), Open { owner, is_written: false, links });
        let (path, turn) = (file.path.clone(), self.mirror.turn);
        self.give(&file.path, move |at| {
            // It may have been unmounted since this look began, and what is below it is no place for a secret.
            let result = if at != path && !mount::is_there() {
                Err(io::Error::other("the memory for files was unmounted"))
            } else {
                install::put(&Wanted { path: at.to_owned(), owner, mode, value })
            };
            Done::Put { path, turn, now, result }
        });
    }

    fn put_off(&mut self, file: &MirrorFile) {
        let why = self.no_memory.clone().unwrap_or_default();
        self.mirror.note(file, why, true);
    }

    fn file(&self, path: &Path) -> Option<&'p MirrorFile> {
        self.config.files.iter().find(|file| file.path == path)
    }

    /// Also what was begun in an earlier look, and took its time.
    fn was_put(&mut self, path: &Path, turn: u64, now: Written, result: io::Result<(Found, Mark)>) {
        let file = self.file(path);
        let is_of_now = turn == self.mirror.turn;
        let (found, mark) = match result {
            Ok(done) => done,
            Err(_) if !is_of_now => return,
            Err(error) => {
                self.open.remove(path);
                return file.into_iter().for_each(|file| self.mirror.note(file, error.to_string(), true));
            }
        };
        let now = Written { mark: Some(mark), ..now };
        let before = self.mirror.state.files.insert(path.to_owned(), now.clone());
        let Some(file) = file else {
            self.mirror.stuck.insert(path.to_owned(), "it was written late".into());
            return;
        };
        self.mirror.state.targets.remove(path);
        let seen = self.mirror.state.seen.get(file.entry.content.mirror_name().as_str());
        let was_known = before.as_ref().is_some_and(|before| before.mark.is_some());
        let is_as_before = before.as_ref().is_some_and(|before| before.fingerprint == now.fingerprint);
        // What was written before the boot is known by its place only.
        let is_other_since = was_known
            && found == Found::Other
            && before.as_ref().is_some_and(|before| before.fingerprint.is_empty());
        self.is_unsaved |= before.as_ref().and_then(|before| before.mark.as_ref()) != now.mark.as_ref();
        if plan::is_news(before.as_ref(), &now, seen) || is_other_since || self.moved.contains(path) {
            self.tell(file);
        } else if found == Found::Other && was_known && is_as_before && now.fingerprint != plan::MOMENTARY {
            self.was_changed_by_others(path, path);
        }
        if found != Found::Same {
            self.written += 1;
            self.mirror.has_news = true;
        }
        let Some(open) = self.open.get_mut(path).filter(|_| is_of_now) else { return };
        open.is_written = true;
        let owner = open.owner;
        for link in &file.symlinks {
            if self.no_memory.is_some() && link.starts_with(&self.config.mirror_root) {
                self.open.remove(path);
                return self.put_off(file);
            }
            let (file, named) = (path.to_owned(), link.clone());
            self.give(link, move |at| {
                let result = install::link(at, &file, owner);
                Done::Linked { file, link: named, result }
            });
        }
        self.settle(path);
    }

    fn was_linked(&mut self, path: &Path, link: &Path, result: io::Result<Found>) {
        match result {
            Ok(found) => {
                if found == Found::Other && !self.new_links.contains(link) {
                    self.was_changed_by_others(path, link);
                } else if found != Found::Same && self.moved.contains(link) {
                    // It led to another file before.
                    self.file(path).into_iter().for_each(|file| self.tell(file));
                }
                if found != Found::Same {
                    self.mirror.has_news = true;
                }
                if let Some(open) = self.open.get_mut(path) {
                    open.links.remove(link);
                    self.settle(path);
                }
            }
            Err(error) => {
                self.open.remove(path);
                let why = format!("its link {}: {error}", link.display());
                self.file(path).into_iter().for_each(|file| self.mirror.note(file, why.clone(), true));
            }
        }
    }

    /// Whoever goes on changing a file, or a link to it, has nobody restarted each time.
    fn was_changed_by_others(&mut self, path: &Path, what: &Path) {
        let last = self.mirror.touched.get(path).copied();
        if last.is_none_or(|last| last.elapsed() >= TELL_OF_OTHERS) {
            self.mirror.touched.insert(path.to_owned(), Instant::now());
            warn!("{} was changed by somebody else, and is put back", what.display());
            self.file(path).into_iter().for_each(|file| self.tell(file));
        }
    }

    /// Notes whom to tell, to be saved together with what was written.
    fn tell(&mut self, file: &MirrorFile) {
        self.is_unsaved = true;
        for (unit, action) in &file.services {
            plan::add(&mut self.mirror.state.untold, unit.to_string(), Task::of_a_file(action));
        }
    }

    /// Nothing is wrong with a file that is written, and all of whose links are made.
    fn settle(&mut self, path: &Path) {
        if self.open.get(path).is_some_and(|open| open.is_written && open.links.is_empty()) {
            self.open.remove(path);
            self.mirror.troubles.remove(path);
        }
    }

    /// Whoever owns these directories lets nobody look into them, or their server does not answer.
    fn is_late(&mut self) {
        self.mirror.hands.give_up();
        let looked_at = std::mem::take(&mut self.looked_at);
        let open = std::mem::take(&mut self.open);
        for file in &self.config.files {
            let mut looked = file.symlinks.iter().chain([&file.path]);
            if looked.any(|path| looked_at.contains(path)) || open.contains_key(&file.path) {
                let why = "its directory, or that of a link to it, does not answer".to_owned();
                self.mirror.note(file, why, true);
            }
        }
        for path in std::mem::take(&mut self.removed) {
            self.is_stuck(&path, "its directory does not answer".into());
        }
    }

    /// Waits for what is being written. Returns what is to be done to units.
    pub fn finish(mut self) -> Tasks {
        self.remove_what_is_of_another_content();
        self.wait();
        self.is_late();
        for (name, why) in &self.missing {
            for file in self.by_content.get(name).into_iter().flatten() {
                let is_refused = *why == NoValue::Refused;
                if is_refused && file.optional && !self.differing.contains(&file.path) {
                    self.mirror.troubles.remove(&file.path);
                } else {
                    // The service tells when it has what it refused.
                    self.mirror.note(file, why.describe(), !is_refused);
                }
            }
            for change in &self.config.changes {
                if change.entry.content.mirror_name().as_str() == name {
                    warn!("whether {} has changed is not known: {}", change.entry.name, why.describe());
                }
            }
        }
        self.telling.end(self.written);
        let Self { mirror, config, contents, is_unsaved, .. } = self;
        mirror.troubles.retain(|path, _| config.files.iter().any(|file| file.path == *path));
        let units = plan::units(config, &BTreeSet::new(), &contents, &mirror.state.seen);
        let known: BTreeSet<String> = super::names(super::entries(config)).into_iter().collect();
        let seen = &mut mirror.state.seen;
        seen.extend(contents);
        seen.retain(|name, _| known.contains(name));
        mirror.state.forgotten &= known.iter().any(|name| !seen.contains_key(name));
        if is_unsaved && units.is_empty() {
            mirror.save();
        }
        units
    }
}
