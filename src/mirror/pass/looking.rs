//! Whether files are as they were left, asking the service for nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Done, Pass};
use crate::mirror::{install, plan};

impl Pass<'_> {
    /// The files that are not as they were left. `reads`: all of each is looked at.
    pub fn look(&mut self, reads: bool) -> BTreeSet<PathBuf> {
        for file in &self.config.files {
            if self.mirror.troubles.contains_key(&file.path) {
                continue;
            }
            let Some(written) = self.mirror.state.files.get(&file.path) else { continue };
            let Some(mark) = written.mark.clone() else { continue };
            if self.no_memory.is_some() && file.path.starts_with(&self.config.mirror_root) {
                self.put_off(file);
                continue;
            }
            if reads && self.accounts().of(file).is_ok_and(|owner| Some(owner.ids()) != written.ids) {
                self.differing.insert(file.path.clone());
            }
            let hash = written.fingerprint.clone();
            let hashed = (reads && hash != plan::MOMENTARY).then(|| (self.mirror.state.key.clone(), hash));
            self.looked_at.extend(file.symlinks.iter().chain([&file.path]).cloned());
            let path = file.path.clone();
            self.give(&file.path, move |at| {
                let hashed = hashed.as_ref().map(|(key, hash)| (key, hash.as_str()));
                Done::Looked { at: path.clone(), path, is_as_left: install::is_as_left(at, &mark, hashed) }
            });
            for link in &file.symlinks {
                let (path, named) = (file.path.clone(), link.clone());
                self.give(link, move |at| {
                    let is_as_left = install::is_link_to(at, &path);
                    Done::Looked { path, at: named, is_as_left }
                });
            }
        }
        self.wait();
        self.is_late();
        self.differing.clone()
    }
}
