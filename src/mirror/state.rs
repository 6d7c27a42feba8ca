//! What the mirror remembers through its own restarts: in its runtime directory, which is in memory and gone at reboot.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use chacha20poly1305::aead::Generate;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tracing::warn;

use super::plan::{Contents, Written};
use super::recover::Left;
use crate::config::MIRROR_ROOT;
use crate::files::StateDirectory;
use crate::secret::Secret;

const FILE: &str = "mirror.json";
/// In bytes.
const KEY_LENGTH: usize = 32;

#[derive(Debug, Clone)]
pub struct Memory(pub Option<StateDirectory>);

#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// The key that values are hashed with: without one, short values could be guessed from their hashes.
    key: String,
    pub seen: Contents,
    pub files: BTreeMap<PathBuf, Written>,
    pub links: BTreeSet<PathBuf>,
    /// What could not start.
    #[serde(default)]
    pub left: Left,
    /// There was a mirror before, but what it saw and wrote is not known.
    #[serde(skip)]
    pub forgotten: bool,
}

impl Memory {
    /// What the last mirror knew. Fails when there is nothing and no new key can be made.
    pub fn load(&self) -> io::Result<State> {
        let Some(directory) = &self.0 else { return State::new() };
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

    pub fn save(&self, state: &State) -> io::Result<()> {
        let Some(directory) = &self.0 else { return Ok(()) };
        directory.replace(FILE, &serde_json::to_vec(state)?)
    }
}

impl State {
    fn new() -> io::Result<Self> {
        let key = <[u8; KEY_LENGTH]>::try_generate()
            .map_err(|_| io::Error::other("the system gives no random numbers"))?;
        Ok(Self {
            key: hex(&key),
            seen: Contents::new(),
            files: BTreeMap::new(),
            links: BTreeSet::new(),
            left: Left::default(),
            forgotten: false,
        })
    }

    fn checked(self) -> io::Result<Self> {
        let is_key = self.key.len() == 2 * KEY_LENGTH;
        if is_key { Ok(self) } else { Err(io::Error::other("its key is damaged")) }
    }

    pub fn fingerprint(&self, value: &Secret) -> String {
        let mac =
            Hmac::<Sha256>::new_from_slice(self.key.as_bytes()).map(|mac| mac.chain_update(value.expose()));
        // This kind of hash takes keys of any length.
        mac.map_or_else(|_| String::new(), |mac| hex(&mac.finalize().into_bytes()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_damaged_counts_as_forgotten_and_what_is_not_there_as_new() {
        let place = std::env::temp_dir().join(format!("opnix-mirror-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        let memory = Memory(Some(StateDirectory::new(&place)));
        let new = memory.load().unwrap();
        assert!(!new.forgotten && new.key.len() == 2 * KEY_LENGTH);
        memory.save(&new).unwrap();
        let value = Secret::copy_from(b"made-up").unwrap();
        let known = memory.load().unwrap();
        assert!(!known.forgotten);
        assert_eq!(known.fingerprint(&value), new.fingerprint(&value));
        let whole = fs::read_to_string(place.join(FILE)).unwrap();
        for damaged in ["", "{}", &whole[..whole.len() / 2], &whole.replacen(&new.key, "", 1)] {
            fs::write(place.join(FILE), damaged).unwrap();
            let state = memory.load().unwrap();
            assert!(state.forgotten && state.key.len() == 2 * KEY_LENGTH, "{damaged}");
        }
        fs::remove_dir_all(place).unwrap();
    }
}
