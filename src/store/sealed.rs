//! The cache on disk: one file, sealed with a key that only systemd can give us.
//!
//! ```text
//! "opnix sealed cache 1\n"          what it is, and the version of its format
//! nonce (24 bytes)                  of the index
//! length (4 bytes, big-endian)      of the sealed index
//! sealed index                      JSON: the account, and of each value its reference, times and length
//! for each value, in that order:
//!     nonce (24 bytes)
//!     sealed value                  its length and 16 bytes
//! ```
//!
//! Sealed with XChaCha20-Poly1305, whose nonces may be drawn at random. The index is bound to the first line; each value to
//! the first line, the index's nonce, the account, and its own line of the index. So no value can be moved to
//! another reference, account or file, and a file of which a single byte is wrong, missing or too many does not open.

use std::fmt;
use std::time::{Duration, SystemTime};

use chacha20poly1305::aead::{AeadInOut, Generate, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::kept::Entry;
use crate::reference::Reference;
use crate::secret::Secret;

/// The first line of the file.
const FIRST_LINE: &[u8] = b"opnix sealed cache 1\n";
/// The first line without the version.
const KIND: &[u8] = b"opnix sealed cache ";
pub const KEY_LENGTH: usize = 32;
const NONCE_LENGTH: usize = 24;
const TAG_LENGTH: usize = 16;

/// What the file is sealed with.
pub struct Key(Zeroizing<[u8; KEY_LENGTH]>);

/// What a file holds.
#[derive(Debug)]
pub struct Contents {
    /// Whose values they are.
    pub account: String,
    pub entries: Vec<(Reference, Entry)>,
}

/// Why a file cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("it is no sealed cache")]
    Foreign,
    #[error("it was written by another version of opnix")]
    Version,
    #[error("it is cut off")]
    Truncated,
    #[error("it is damaged, or was sealed with another key")]
    Sealed,
}

#[derive(Serialize, Deserialize)]
struct Index {
    account: String,
    values: Vec<Line>,
}

/// One value, in the index.
#[derive(Serialize, Deserialize)]
struct Line {
    reference: Reference,
    /// Milliseconds since 1970.
    fetched: u64,
    denied: Option<u64>,
    /// In bytes.
    length: u32,
}

impl Key {
    /// `None` unless it has the length of a key.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(bytes.try_into().ok()?)))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

/// The file's content. Fails when the system has no randomness, or a value is larger than the format can say.
pub fn seal<'a>(
    key: &Key,
    account: &str,
    entries: impl IntoIterator<Item = (&'a Reference, &'a Entry)>,
) -> Option<Vec<u8>> {
    let cipher = key.cipher();
    let mut values = Vec::new();
    let mut lines = Vec::new();
    for (reference, entry) in entries {
        lines.push(Line {
            reference: reference.clone(),
            fetched: to_millis(entry.fetched),
            denied: entry.denied.map(to_millis),
            length: u32::try_from(entry.value.len()).ok()?,
        });
        values.push(entry.value.clone());
    }
    let index = Index { account: account.to_owned(), values: lines };
    let mut index_text = serde_json::to_vec(&index).ok()?;
    let nonce = XNonce::try_generate().ok()?;
    cipher.encrypt_in_place(&nonce, FIRST_LINE, &mut index_text).ok()?;

    let sizes = values.iter().map(|value| NONCE_LENGTH + value.len() + TAG_LENGTH);
    let size = FIRST_LINE.len() + NONCE_LENGTH + 4 + index_text.len() + sizes.sum::<usize>();
    // Of its final size from the start: what grows leaves copies behind, and values pass through in clear.
    let mut file = Vec::with_capacity(size);
    file.extend_from_slice(FIRST_LINE);
    file.extend_from_slice(&nonce);
    file.extend_from_slice(&u32::try_from(index_text.len()).ok()?.to_be_bytes());
    file.extend_from_slice(&index_text);
    for (line, value) in index.values.iter().zip(values) {
        let value_nonce = XNonce::try_generate().ok()?;
        file.extend_from_slice(&value_nonce);
        let start = file.len();
        file.extend_from_slice(value.expose());
        let bound = binding(&nonce, account, line)?;
        let tag = cipher.encrypt_inout_detached(&value_nonce, &bound, (&mut file[start..]).into()).ok()?;
        file.extend_from_slice(&tag);
    }
    Some(file)
}

/// Opens all of it or nothing.
pub fn open(key: &Key, file: &[u8]) -> Result<Contents, OpenError> {
    let Some(mut rest) = file.strip_prefix(FIRST_LINE) else {
        return Err(match file {
            _ if file.starts_with(KIND) => OpenError::Version,
            _ if FIRST_LINE.starts_with(file) => OpenError::Truncated,
            _ => OpenError::Foreign,
        });
    };
    let cipher = key.cipher();
    let nonce = take_nonce(&mut rest)?;
    let length = take(&mut rest, 4)?.try_into().map_or(0, u32::from_be_bytes);
    let mut index = take(&mut rest, length as usize)?.to_vec();
    cipher.decrypt_in_place(&nonce, FIRST_LINE, &mut index).map_err(|_| OpenError::Sealed)?;
    // It is authentic, so it is ours; if it makes no sense, the program that wrote it was another.
    let Index { account, values } = serde_json::from_slice(&index).map_err(|_| OpenError::Version)?;

    let mut entries = Vec::with_capacity(values.len());
    for line in values {
        let value_nonce = take_nonce(&mut rest)?;
        let mut value = Zeroizing::new(take(&mut rest, line.length as usize)?.to_vec());
        let tag = take(&mut rest, TAG_LENGTH)?.try_into().map_err(|_| OpenError::Truncated)?;
        let bound = binding(&nonce, &account, &line).ok_or(OpenError::Version)?;
        cipher
            .decrypt_inout_detached(&value_nonce, &bound, value.as_mut_slice().into(), &tag)
            .map_err(|_| OpenError::Sealed)?;
        let entry = Entry {
            value: Secret::take(value).map_err(|_| OpenError::Version)?.into(),
            fetched: from_millis(line.fetched),
            denied: line.denied.map(from_millis),
            doubtful: false,
            comparable: false,
            asked: 0,
        };
        entries.push((line.reference, entry));
    }
    if rest.is_empty() { Ok(Contents { account, entries }) } else { Err(OpenError::Sealed) }
}

/// What a value is bound to, besides the key.
fn binding(index: &XNonce, account: &str, line: &Line) -> Option<Vec<u8>> {
    let what = serde_json::to_vec(&(account, line)).ok()?;
    Some([FIRST_LINE, index, &what].concat())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], OpenError> {
    let (taken, left) = rest.split_at_checked(length).ok_or(OpenError::Truncated)?;
    *rest = left;
    Ok(taken)
}

fn take_nonce(rest: &mut &[u8]) -> Result<XNonce, OpenError> {
    take(rest, NONCE_LENGTH)?.try_into().map_err(|_| OpenError::Truncated)
}

fn to_millis(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn from_millis(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> Key {
        Key::new(&[byte; KEY_LENGTH]).unwrap()
    }

    fn entry(value: &[u8], millis: u64) -> Entry {
        Entry {
            value: Secret::copy_from(value).unwrap().into(),
            fetched: from_millis(millis),
            denied: (millis % 2 == 1).then(|| from_millis(millis + 5)),
            doubtful: false,
            comparable: false,
            asked: 0,
        }
    }

    fn entries(values: &[(&str, &[u8])]) -> Vec<(Reference, Entry)> {
        let line = |(at, (field, value)): (usize, &(&str, &[u8]))| {
            (format!("op://vault/item/{field}").parse().unwrap(), entry(value, 1000 + at as u64))
        };
        values.iter().enumerate().map(line).collect()
    }

    fn sealed(entries: &[(Reference, Entry)]) -> Vec<u8> {
        seal(&key(7), "account", entries.iter().map(|(reference, entry)| (reference, entry))).unwrap()
    }

    type Shown = Vec<(String, Vec<u8>, SystemTime, Option<SystemTime>)>;

    fn shown(entries: &[(Reference, Entry)]) -> Shown {
        let show = |(reference, entry): &(Reference, Entry)| {
            (reference.to_string(), entry.value.expose().to_vec(), entry.fetched, entry.denied)
        };
        entries.iter().map(show).collect()
    }

    #[test]
    fn what_was_sealed_opens() {
        let entries = entries(&[("a", b"first"), ("b", &[0, 255, 10]), ("c", &[b'x'; 100_000])]);
        let contents = open(&key(7), &sealed(&entries)).unwrap();
        assert_eq!(contents.account, "account");
        assert_eq!(shown(&contents.entries), shown(&entries));
        assert!(open(&key(7), &sealed(&[])).unwrap().entries.is_empty());
    }

    #[test]
    fn nothing_of_it_can_be_read_in_the_file() {
        let file = sealed(&entries(&[("needle-field", b"needle-value")]));
        assert!(!file.windows(6).any(|window| window == b"needle"));
        assert!(!file.windows(7).any(|window| window == b"account"));
    }

    #[test]
    fn a_file_with_any_byte_changed_missing_or_added_does_not_open() {
        let file = sealed(&entries(&[("a", b"one"), ("b", b"two")]));
        for at in 0..file.len() {
            for change in [1, 0x80, 0xff] {
                let mut changed = file.clone();
                changed[at] ^= change;
                assert!(open(&key(7), &changed).is_err(), "byte {at}");
            }
            assert!(open(&key(7), &file[..at]).is_err(), "the first {at} bytes");
            let mut shorter = file.clone();
            shorter.remove(at);
            assert!(open(&key(7), &shorter).is_err(), "without byte {at}");
        }
        assert_eq!(open(&key(7), &[&file[..], b"x"].concat()).unwrap_err(), OpenError::Sealed);
    }

    #[test]
    fn why_a_file_does_not_open_is_told() {
        let file = sealed(&entries(&[("a", b"one")]));
        let why = |key: &Key, file: &[u8]| open(key, file).unwrap_err();
        assert_eq!(why(&key(8), &file), OpenError::Sealed);
        assert_eq!(why(&key(7), &file[..60]), OpenError::Truncated);
        assert_eq!(why(&key(7), b""), OpenError::Truncated);
        assert_eq!(why(&key(7), b"something else"), OpenError::Foreign);
        let other_version = [b"opnix sealed cache 2\n", &file[FIRST_LINE.len()..]].concat();
        assert_eq!(why(&key(7), &other_version), OpenError::Version);
    }

    #[test]
    fn values_cannot_be_swapped_within_a_file_or_between_files() {
        // Each value of one byte: nonce, value and tag are the last 41 bytes, and those before them.
        let (one, two) = (entries(&[("a", b"1"), ("b", b"2")]), entries(&[("a", b"3"), ("b", b"4")]));
        let (one, two) = (sealed(&one), sealed(&two));
        let record = NONCE_LENGTH + 1 + TAG_LENGTH;
        let (end, middle) = (one.len(), one.len() - record);
        let swapped = [&one[..middle - record], &one[middle..], &one[middle - record..middle]].concat();
        assert_eq!(swapped.len(), end);
        assert_eq!(open(&key(7), &swapped).unwrap_err(), OpenError::Sealed);
        // The same reference, account and times, but another file of the same key.
        let mixed = [&one[..middle], &two[middle..]].concat();
        assert_eq!(open(&key(7), &mixed).unwrap_err(), OpenError::Sealed);
        assert!(open(&key(7), &one).is_ok() && open(&key(7), &two).is_ok());
    }

    #[test]
    fn any_time_in_a_file_is_taken_without_panic() {
        let now = SystemTime::now();
        for millis in [0, 1, 253_402_300_800_000, i64::MAX as u64, u64::MAX - 6] {
            let name: Reference = "op://vault/item/field".parse().unwrap();
            for (_, entry) in open(&key(7), &sealed(&[(name, entry(b"x", millis))])).unwrap().entries {
                assert_eq!(entry.fetched, from_millis(millis));
                let known = entry.known(now);
                assert!(known.age.is_none() || entry.fetched <= now);
            }
        }
    }

    // The next two are fuzzing: `PROPTEST_CASES=10000000 cargo test --release --lib sealed` goes on for as long as you like.
    proptest! {
        #[test]
        fn no_input_makes_it_panic_or_open(
            head in prop_oneof![Just(FIRST_LINE.to_vec()), Just(KIND.to_vec()), Just(Vec::new())],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            prop_assert!(open(&key(7), &[head, rest].concat()).is_err());
        }

        #[test]
        fn a_true_file_that_is_cut_patched_and_put_together_anew_does_not_open(
            patches in proptest::collection::vec(
                (any::<u16>(), 0usize..80, proptest::collection::vec(any::<u8>(), 0..80)), 0..4),
            moved in proptest::option::of((any::<u16>(), any::<u16>(), 1usize..120)),
        ) {
            let whole = sealed(&entries(&[("a", b"one"), ("b", b"two"), ("c", b"three")]));
            let mut file = whole.clone();
            for (at, length, patch) in patches {
                let at = usize::from(at) % (file.len() + 1);
                let end = (at + length).min(file.len());
                file.splice(at..end, patch);
            }
            // As if blocks of the disk had changed places.
            if let Some((from, to, length)) = moved.filter(|_| !file.is_empty()) {
                let from = usize::from(from) % file.len();
                let piece: Vec<u8> = file.drain(from..(from + length).min(file.len())).collect();
                let to = usize::from(to) % (file.len() + 1);
                file.splice(to..to, piece);
            }
            prop_assert_eq!(open(&key(7), &file).is_ok(), file == whole);
        }

        #[test]
        fn any_values_come_back(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..8)) {
            let entries: Vec<_> = values
                .iter()
                .enumerate()
                .map(|(at, value)| (format!("op://v/i/f{at}").parse().unwrap(), entry(value, at as u64)))
                .collect();
            prop_assert_eq!(shown(&open(&key(7), &sealed(&entries)).unwrap().entries), shown(&entries));
        }
    }
}
