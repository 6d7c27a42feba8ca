//! What left the configuration is removed, if it is still ours.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::{Done, Pass};
use crate::mirror::install::{self, Left, Mark, Removal};

impl Pass<'_> {
    /// A mirror that was killed may have left a secret in a file that has no name yet.
    pub fn remove_unfinished(&mut self) {
        let files = self.config.files.iter().flat_map(|file| file.symlinks.iter().chain([&file.path]));
        let state = &self.mirror.state;
        let known: BTreeSet<PathBuf> =
            files.chain(state.files.keys()).chain(state.targets.keys()).cloned().collect();
        for path in known {
            let named = path.clone();
            self.give(&path, move |at| {
                if let Err(error) = install::remove_unfinished(at) {
                    let named = named.display();
                    warn!("what may be left unfinished of {named} cannot be removed: {error}");
                }
                Done::Cleaned
            });
        }
    }

    /// Removes files and links that left the configuration: first, to make room.
    pub fn remove_what_left(&mut self) {
        let config = self.config;
        let files: BTreeSet<&PathBuf> = config.files.iter().map(|file| &file.path).collect();
        let links: BTreeSet<&PathBuf> = config.files.iter().flat_map(|file| &file.symlinks).collect();
        let state = &self.mirror.state;
        let mut left: Vec<(PathBuf, Left)> = Vec::new();
        // A file takes the place of a link by itself.
        let is_left = |link: &PathBuf| !links.contains(link) && !files.contains(link);
        for (link, target) in state.targets.iter().filter(|(link, _)| is_left(link)) {
            left.push((link.clone(), Left::Link(target.clone())));
        }
        for (path, written) in state.files.iter().filter(|(path, _)| !files.contains(path)) {
            let (mark, hash, coming) =
                (written.mark.clone(), written.fingerprint.clone(), written.coming.clone());
            left.push((path.clone(), Left::File { mark, hash, coming, key: state.key.clone() }));
        }
        if self.no_memory.is_some() {
            // What is shown elsewhere stays until there is another place.
            left.retain(|(path, _)| !path.starts_with(&self.mirror.root));
        }
        // What came back meanwhile.
        self.mirror.stuck.retain(|path, _| left.iter().any(|(left, _)| left == path));
        for (path, left) in left {
            let mark = match &left {
                Left::File { mark, .. } => Some(mark.clone()),
                _ => None,
            };
            self.take_away(path, left, mark);
        }
    }

    /// A file that holds what the configuration said before goes when what it is to hold cannot be had: who starts now would read
    /// another secret than is configured.
    pub(super) fn remove_what_is_of_another_content(&mut self) {
        let state = &self.mirror.state;
        let mut others: Vec<(PathBuf, Left, Option<Mark>)> = Vec::new();
        for name in self.missing.keys() {
            for file in self.by_content.get(name).into_iter().flatten() {
                let Some(written) = state.files.get(&file.path) else { continue };
                if written.mark.is_none() || written.content.is_empty() || written.content == *name {
                    continue;
                }
                let (mark, hash, coming) =
                    (written.mark.clone(), written.fingerprint.clone(), written.coming.clone());
                let left = Left::File { mark: mark.clone(), hash, coming, key: state.key.clone() };
                others.push((file.path.clone(), left, mark));
            }
        }
        for (path, left, mark) in others {
            self.take_away(path, left, Some(mark));
        }
    }

    fn take_away(&mut self, path: PathBuf, left: Left, mark: Option<Option<Mark>>) {
        self.removed.insert(path.clone());
        let (is_ours, named) = (path.starts_with(&self.mirror.root), path.clone());
        self.give(&path, move |at| {
            let left = if is_ours { Left::Ours } else { left };
            Done::Removed { path: named, mark, result: install::remove(at, &left) }
        });
    }

    pub(super) fn was_removed(
        &mut self,
        path: &Path,
        mark: Option<&Option<Mark>>,
        result: io::Result<Removal>,
    ) {
        self.removed.remove(path);
        let state = &mut self.mirror.state;
        // Written meanwhile, by what began before it left.
        let is_newer =
            mark.is_some_and(|mark| state.files.get(path).is_some_and(|written| written.mark != *mark));
        let removal = match result {
            Ok(Removal::NotOurs) if is_newer => {
                return self.is_stuck(path, "it was just written".into());
            }
            Ok(Removal::Unsure) => {
                let why = "it may be a secret that opnix wrote, and was changed since: remove it";
                return self.is_stuck(path, why.into());
            }
            Ok(removal) => removal,
            Err(error) => return self.is_stuck(path, error.to_string()),
        };
        let (mut files, mut is_to_come) = (self.config.files.iter(), false);
        if mark.is_none() {
            if !files.any(|file| file.symlinks.iter().any(|link| link == path)) {
                state.targets.remove(path);
            }
        } else if !files.any(|file| file.path == path) {
            state.files.remove(path);
        } else if let Some(written) = state.files.get_mut(path) {
            // What it held is still known, so that its readers are told when the other content comes.
            written.mark = None;
            is_to_come = true;
        }
        self.mirror.stuck.remove(path);
        self.is_unsaved = true;
        let path = path.display();
        match (removal, is_to_come) {
            (Removal::Gone, false) => info!("removed {path}: it left the configuration"),
            (Removal::Gone, true) => {
                warn!("removed {path}: the configuration has another secret for it, which cannot be had now");
            }
            _ => warn!("{path} left the configuration and stays: it is not what opnix wrote any more"),
        }
    }

    pub(super) fn is_stuck(&mut self, path: &Path, why: String) {
        if self.mirror.stuck.get(path) != Some(&why) {
            warn!("cannot remove {}: {why}", path.display());
        }
        self.mirror.stuck.insert(path.to_owned(), why);
    }
}
