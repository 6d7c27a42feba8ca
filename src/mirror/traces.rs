//! What the mirror left on this machine, for who wants to be rid of it: files elsewhere than in memory, and links.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::install::{self, Left, Removal, Whose};
use super::state::{Memory, State};
use crate::config::Config;
use crate::files::StateDirectory;

/// `RuntimeDirectory=` and `StateDirectory=` of opnix-mirror.service.
pub const REMEMBERED: [&str; 2] = ["/run/opnix-mirror", "/var/lib/opnix-mirror"];
/// How long one file may take: its directory may be a server's that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was written and is not known to be gone.
pub struct Traces {
    left: Vec<(PathBuf, Left)>,
    /// Files that the configuration names, and that the mirror does not know to have written.
    strange: Vec<PathBuf>,
    /// What of it all is not known, and why.
    pub doubts: Vec<String>,
}

/// A file or link, as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    pub path: PathBuf,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// It is as opnix wrote it.
    Ours,
    /// Somebody else has put something in its place.
    Others,
    /// Somebody else put it there, and the secret is in it.
    Copy,
    /// It may be a secret that opnix wrote, and was changed since.
    Unsure,
    /// The configuration names it, and nobody knows who wrote it.
    Strange,
    /// It cannot be looked at, or removed.
    Trouble(String),
}

impl Traces {
    /// Without a configuration, what it would name is not missed: what was written is remembered. `others` are known to be somebody
    /// else's.
    pub fn find(config: Option<&Config>, others: &BTreeSet<PathBuf>) -> Self {
        let [runtime, state] = REMEMBERED.map(|path| Some(StateDirectory::new(path)));
        let (known, mut doubts) = Memory { runtime, state }.known();
        let left = known.map(|state| left(&state)).unwrap_or_else(|error| {
            doubts.push(error.to_string());
            Vec::new()
        });
        let known: BTreeSet<&PathBuf> = left.iter().map(|(path, _)| path).collect();
        let files = config.iter().flat_map(|config| &config.files).map(|file| &file.path);
        let is_known = |path: &PathBuf| known.contains(path) || others.contains(path);
        let is_strange = |path: &&PathBuf| !is_known(path) && path.symlink_metadata().is_ok();
        let strange = files.filter(is_strange).cloned().collect();
        Self { left, strange, doubts }
    }

    /// What is there now.
    pub fn look(&self) -> Vec<Trace> {
        let kind = |path: &Path, left: &Left| match within(path, left, install::look_at) {
            Ok(Whose::Nobodys) => None,
            Ok(Whose::Ours) => Some(Kind::Ours),
            Ok(Whose::Others) => Some(Kind::Others),
            Ok(Whose::Unsure) => Some(Kind::Unsure),
            Err(error) => Some(Kind::Trouble(error.to_string())),
        };
        self.each(kind)
    }

    /// Removes what is ours, and returns what is still there.
    pub fn remove(&self) -> Vec<Trace> {
        let kind = |path: &Path, left: &Left| match within(path, left, install::remove) {
            Ok(Removal::Gone) => None,
            Ok(Removal::NotOurs) if within(path, left, install::holds_the_value).unwrap_or(false) => {
                Some(Kind::Copy)
            }
            Ok(Removal::NotOurs) => Some(Kind::Others),
            Ok(Removal::Unsure) => Some(Kind::Unsure),
            Err(error) => Some(Kind::Trouble(error.to_string())),
        };
        self.each(kind)
    }

    fn each(&self, kind: impl Fn(&Path, &Left) -> Option<Kind>) -> Vec<Trace> {
        let of = |path: &PathBuf, kind| Trace { path: path.clone(), kind };
        let left = self.left.iter().filter_map(|(path, left)| Some(of(path, kind(path, left)?)));
        let is_there = |path: &&PathBuf| path.symlink_metadata().is_ok();
        left.chain(self.strange.iter().filter(is_there).map(|path| of(path, Kind::Strange))).collect()
    }
}

/// Links first: without its file, a link would lead nowhere for a moment.
fn left(state: &State) -> Vec<(PathBuf, Left)> {
    let links = state.targets.iter().map(|(link, target)| (link.clone(), Left::Link(target.clone())));
    let files = state.files.iter().map(|(path, written)| {
        let (mark, hash, coming) =
            (written.mark.clone(), written.fingerprint.clone(), written.coming.clone());
        (path.clone(), Left::File { mark, hash, coming, key: state.key.clone() })
    });
    links.chain(files).collect()
}

fn within<T: Send + 'static>(
    path: &Path,
    left: &Left,
    work: fn(&Path, &Left) -> io::Result<T>,
) -> io::Result<T> {
    let (say, hear) = channel();
    let (path, left) = (path.to_owned(), left.clone());
    thread::spawn(move || {
        let _ = say.send(work(&path, &left));
    });
    let late = |_| Err(io::Error::other("its directory does not answer"));
    hear.recv_timeout(PATIENCE).unwrap_or_else(late)
}
