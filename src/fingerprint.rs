//! Fingerprints of values: they tell whether two are the same, and nothing else to who does not have the key.

use std::io;

use chacha20poly1305::aead::Generate;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// In bytes.
const LENGTH: usize = 32;

/// The key that values are hashed with: without one, short values could be guessed from their hashes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Key(String);

impl Key {
    pub fn new() -> io::Result<Self> {
        let key = <[u8; LENGTH]>::try_generate()
            .map_err(|_| io::Error::other("the system gives no random numbers"))?;
        Ok(Self(hex(&key)))
    }

    /// Whether it is whole.
    pub fn is_whole(&self) -> bool {
        self.0.len() == 2 * LENGTH
    }

    pub fn hash(&self, value: &[u8]) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).map(|mac| mac.chain_update(value));
        // This kind of hash takes keys of any length.
        mac.map_or_else(|_| String::new(), |mac| hex(&mac.finalize().into_bytes()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
