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
use crate::files::StateDirectory;
use crate::secret::Secret;

const FILE: &str = "mirror.json";

#[derive(Debug, Clone)]
pub struct Memory(pub Option<StateDirectory>);

#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// What values are hashed with: without it, hashes of short values could be guessed.
    key: String,
    pub seen: Contents,
    pub files: BTreeMap<PathBuf, Written>,
    pub links: BTreeSet<PathBuf>,
}

impl Memory {
    pub fn load(&self) -> State {
        let read = self.0.as_ref().map(|directory| directory.read(FILE)).transpose();
        let text = read.unwrap_or_else(|error| {
            warn!("what the last mirror saw cannot be read: {error}");
            None
        });
        let known = text.flatten().and_then(|text| serde_json::from_slice(&text).ok());
        known.unwrap_or_else(State::new)
    }

    pub fn save(&self, state: &State) -> io::Result<()> {
        let Some(directory) = &self.0 else { return Ok(()) };
        directory.replace(FILE, &serde_json::to_vec(state)?)
    }
}

impl State {
    fn new() -> Self {
        let key = <[u8; 32]>::try_generate().map_or_else(|_| String::new(), |key| hex(&key));
        Self { key, seen: Contents::new(), files: BTreeMap::new(), links: BTreeSet::new() }
    }

    pub fn fingerprint(&self, value: &Secret) -> String {
        let mac =
            Hmac::<Sha256>::new_from_slice(self.key.as_bytes()).map(|mac| mac.chain_update(value.expose()));
        mac.map_or_else(|_| String::new(), |mac| hex(&mac.finalize().into_bytes()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
