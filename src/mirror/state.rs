//! What the mirror remembers through its own restarts: in its runtime directory, which is in memory and gone at reboot. What it
//! wrote elsewhere than in memory is remembered through a reboot, too: it is to be removed when it leaves the configuration.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::install::Mark;
use super::plan::{Contents, Tasks, Written};
use super::recover::Left;
use crate::config::MIRROR_ROOT;
use crate::files::StateDirectory;
use crate::fingerprint::Key;

const FILE: &str = "mirror.json";
/// In the state directory.
const LASTING: &str = "files.json";

#[derive(Debug, Clone)]
pub struct Memory {
    pub runtime: Option<StateDirectory>,
    pub state: Option<StateDirectory>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    pub key: Key,
    pub seen: Contents,
    pub files: BTreeMap<PathBuf, Written>,
    /// Where our links point at.
    #[serde(default)]
    pub targets: BTreeMap<PathBuf, PathBuf>,
    /// What is still to be done to units whose secret changed.
    #[serde(default)]
    pub untold: Tasks,
    /// What could not start.
    #[serde(default)]
    pub left: Left,
    /// There was a mirror before, but what it saw and wrote is not known.
    #[serde(default)]
    pub forgotten: bool,
}

/// What lies elsewhere than in our memory.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Lasting {
    /// With whether it was being written.
    files: BTreeMap<PathBuf, (Option<Mark>, bool)>,
    links: BTreeMap<PathBuf, PathBuf>,
}

impl Memory {
    /// What the last mirror knew. Fails when there is nothing and no new key can be made.
    pub fn load(&self) -> io::Result<State> {
        let mut state = self.of_this_boot()?;
        for (path, written) in &mut state.files {
            for link in std::mem::take(&mut written.symlinks) {
                state.targets.entry(link).or_insert_with(|| path.clone());
            }
        }
        let lasting = self.lasting();
        for (path, (mark, is_coming)) in lasting.files {
            let coming = is_coming.then(String::new);
            state.files.entry(path).or_insert_with(|| Written { mark, coming, ..Written::default() });
        }
        for (link, target) in lasting.links {
            state.targets.entry(link).or_insert(target);
        }
        Ok(state)
    }

    /// What was written and not removed since, as far as it is known; and what of that cannot be known.
    pub fn known(&self) -> (io::Result<State>, Vec<String>) {
        let damaged = |directory: &Option<StateDirectory>, name| {
            let directory = directory.as_ref()?;
            let known = match directory.read(name) {
                Ok(None) => return None,
                Ok(Some(text)) if name == FILE => serde_json::from_slice::<State>(&text)
                    .map_err(io::Error::from)
                    .and_then(State::checked)
                    .map(drop),
                Ok(Some(text)) => serde_json::from_slice::<Lasting>(&text).map_err(io::Error::from).map(drop),
                Err(error) => Err(error),
            };
            known.err().map(|error| format!("{}: {error}", directory.path(name).display()))
        };
        let doubts = [damaged(&self.runtime, FILE), damaged(&self.state, LASTING)];
        (self.load(), doubts.into_iter().flatten().collect())
    }

    fn of_this_boot(&self) -> io::Result<State> {
        let Some(directory) = &self.runtime else { return State::new() };
        let known = match directory.read(FILE) {
            Ok(None) => return State::new(),
            Ok(Some(text)) => serde_json::from_slice(&text).map_err(io::Error::from).and_then(State::checked),
            Err(error) => Err(error),
        };
        known.or_else(|error| {
            warn!(
                "what the last mirror saw is not known: {}: {error}; each secret counts as changed, and files that left the \
                 configuration stay: look for them below {MIRROR_ROOT}",
                directory.path(FILE).display()
            );
            Ok(State { forgotten: true, ..State::new()? })
        })
    }

    fn lasting(&self) -> Lasting {
        let Some(directory) = &self.state else { return Lasting::default() };
        let known = directory.read(LASTING).and_then(|text| match text {
            Some(text) => Ok(serde_json::from_slice(&text)?),
            None => Ok(Lasting::default()),
        });
        known.unwrap_or_else(|error| {
            warn!(
                "which files were written before this boot is not known: {}: {error}; those that left the configuration stay",
                directory.path(LASTING).display()
            );
            Lasting::default()
        })
    }

    /// `root`: what is below it is in our memory.
    pub fn save(&self, state: &State, root: &Path) -> io::Result<()> {
        if let Some(directory) = &self.runtime {
            directory.replace(FILE, &serde_json::to_vec(state)?)?;
        }
        let Some(directory) = &self.state else { return Ok(()) };
        let is_elsewhere = |path: &&PathBuf| !path.starts_with(root);
        let files = state.files.iter().filter(|(path, _)| is_elsewhere(path));
        let links = state.targets.iter().filter(|(path, _)| is_elsewhere(path));
        let lasting = Lasting {
            files: files
                .map(|(path, written)| (path.clone(), (written.mark.clone(), written.coming.is_some())))
                .collect(),
            links: links.map(|(link, target)| (link.clone(), target.clone())).collect(),
        };
        let text = serde_json::to_vec(&lasting)?;
        let is_known = directory.read(LASTING)?.is_some_and(|known| *known == text);
        if is_known { Ok(()) } else { directory.replace(LASTING, &text) }
    }
}

impl State {
    fn new() -> io::Result<Self> {
        Ok(Self {
            key: Key::new()?,
            seen: Contents::new(),
            files: BTreeMap::new(),
            targets: BTreeMap::new(),
            untold: Tasks::new(),
            left: Left::default(),
            forgotten: false,
        })
    }

    fn checked(self) -> io::Result<Self> {
        if self.key.is_whole() { Ok(self) } else { Err(io::Error::other("its key is damaged")) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_damaged_counts_as_forgotten_and_what_is_not_there_as_new() {
        let place = std::env::temp_dir().join(format!("opnix-mirror-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        let memory = Memory { runtime: Some(StateDirectory::new(&place)), state: None };
        let root = Path::new("/run/secrets");
        let new = memory.load().unwrap();
        assert!(!new.forgotten && new.key.is_whole());
        memory.save(&new, root).unwrap();
        let known = memory.load().unwrap();
        assert!(!known.forgotten);
        assert_eq!(known.key.hash(b"made-up"), new.key.hash(b"made-up"));
        let whole = fs::read_to_string(place.join(FILE)).unwrap();
        let key = serde_json::to_value(&new.key).unwrap().as_str().unwrap().to_owned();
        for damaged in ["", "{}", &whole[..whole.len() / 2], &whole.replacen(&key, "", 1)] {
            fs::write(place.join(FILE), damaged).unwrap();
            let state = memory.load().unwrap();
            assert!(state.forgotten && state.key.is_whole(), "{damaged}");
        }
        fs::remove_dir_all(place).unwrap();
    }
}
