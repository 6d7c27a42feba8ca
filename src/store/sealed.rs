//! The cache on disk: one file, sealed with a key that only systemd can give us.
//!
//! ```text
//! "opnix sealed cache 1\n"          what it is, and the version of its format
//! nonce (24 bytes)                  of the index
//! length (4 bytes, big-endian)      of the sealed index
//! sealed index                      JSON: the account; of each value its reference, dates and length; and the moments
//!                                   of what happened in the boot in which the file was written
//! for each value, in that order:
//!     nonce (24 bytes)
//!     sealed value                  its length and 16 bytes
//! ```
//!
//! Sealed with XChaCha20-Poly1305, whose nonces may be drawn at random. The index is bound to the first line; each value to
//! the first line, the index's nonce, the account, and its own line of the index. So no value can be moved to
//! another reference, account or file, and a file in which a single byte is wrong, missing or added does not open.
//!
//! Moments are counted from the boot (`src/moment.rs`). In that boot they count, in any other one the dates do. They are not
//! part of the lines, so that a version of opnix that does not know them opens the file, and this one opens a file without.

use std::collections::BTreeSet;
use std::fmt;
use std::iter::repeat;
use std::time::{Duration, SystemTime};

use chacha20poly1305::aead::{AeadInOut, Generate, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::kept::Kept;
use crate::boot::{Boot, Written};
use crate::moment::{Moment, Now, Setting, Stamp};
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
    /// Tells the file from all others, before and after it.
    pub name: String,
    /// Whose values they are.
    pub account: String,
    pub entries: Vec<(Reference, Kept)>,
    /// How the clock was set by which what is of this boot has its dates in the file, if there is any.
    pub dated: Option<Setting>,
}

/// A file that is to be written.
pub struct Sealed {
    /// See [`Contents::name`].
    pub name: String,
    pub file: Vec<u8>,
}

/// Why a file cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("it is not a sealed cache")]
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    this_boot: Option<ThisBoot>,
    /// Which lines, counted from 0, have a value that 1Password is to confirm before it counts as fresh.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    doubtful: BTreeSet<usize>,
}

/// What is known more exactly in the boot in which the file was written.
#[derive(Serialize, Deserialize)]
struct ThisBoot {
    written: Written,
    /// When each value was fetched and denied, in the order of the lines, in milliseconds since boot; what was in an earlier boot has
    /// only a date.
    moments: Vec<(Option<u64>, Option<u64>)>,
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

/// The file's content, with dates by the wall clock as it is `now`. Fails when the system has no randomness, or a value is larger than the format can express.
pub fn seal<'a>(
    key: &Key,
    account: &str,
    entries: impl IntoIterator<Item = (&'a Reference, &'a Kept)>,
    now: Now,
    boot: Option<&Boot>,
) -> Option<Sealed> {
    let cipher = key.cipher();
    let mut moments = Vec::new();
    let mut values = Vec::new();
    let mut lines = Vec::new();
    let mut doubtful = BTreeSet::new();
    for (reference, entry) in entries {
        if entry.doubtful {
            doubtful.insert(lines.len());
        }
        lines.push(Line {
            reference: reference.clone(),
            fetched: to_millis(entry.fetched.date(now)),
            denied: entry.denied.map(|denied| to_millis(denied.date(now))),
            length: u32::try_from(entry.value.len()).ok()?,
        });
        let moment = |stamp: Stamp| stamp.moment().map(Moment::millis);
        moments.push((moment(entry.fetched), entry.denied.and_then(moment)));
        values.push(entry.value.clone());
    }
    let this_boot = boot.map(|boot| ThisBoot { written: Written::new(boot, now), moments });
    let index = Index { account: account.to_owned(), values: lines, this_boot, doubtful };
    let mut index_text = serde_json::to_vec(&index).ok()?;
    let nonce = XNonce::try_generate().ok()?;
    cipher.encrypt_in_place(&nonce, FIRST_LINE, &mut index_text).ok()?;

    let sizes = values.iter().map(|value| NONCE_LENGTH + value.len() + TAG_LENGTH);
    let size = FIRST_LINE.len() + NONCE_LENGTH + 4 + index_text.len() + sizes.sum::<usize>();
    // Of its final size from the start: growing would leave copies behind, and values pass through it in clear.
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
    Some(Sealed { name: name_of(&nonce), file })
}

/// Opens all of it or nothing.
pub fn open(key: &Key, file: &[u8], now: Now, boot: Option<&Boot>) -> Result<Contents, OpenError> {
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
    // It is authentic, so it is ours; if it makes no sense, another version of the program wrote it.
    let Index { account, values, this_boot, doubtful } =
        serde_json::from_slice(&index).map_err(|_| OpenError::Version)?;

    let this_boot = this_boot.filter(|of| of.moments.len() == values.len());
    let dated = this_boot.as_ref().and_then(|of| of.written.clock_in(boot));
    let moments = this_boot.filter(|_| dated.is_some()).map_or_else(Vec::new, |of| of.moments);
    let moments = moments.into_iter().chain(repeat((None, None)));

    let mut entries = Vec::with_capacity(values.len());
    for (line, (fetched, denied)) in values.into_iter().zip(moments) {
        let value_nonce = take_nonce(&mut rest)?;
        let mut value = Zeroizing::new(take(&mut rest, line.length as usize)?.to_vec());
        let tag = take(&mut rest, TAG_LENGTH)?.try_into().map_err(|_| OpenError::Truncated)?;
        let bound = binding(&nonce, &account, &line).ok_or(OpenError::Version)?;
        cipher
            .decrypt_inout_detached(&value_nonce, &bound, value.as_mut_slice().into(), &tag)
            .map_err(|_| OpenError::Sealed)?;
        let entry = Kept {
            value: Secret::take(value).map_err(|_| OpenError::Version)?.into(),
            fetched: stamp(line.fetched, fetched, now),
            denied: line.denied.map(|date| stamp(date, denied, now)),
            doubtful: doubtful.contains(&entries.len()),
            read: Moment::BOOT,
            comparable: None,
            asked: 0,
            from_disk: true,
        };
        entries.push((line.reference, entry));
    }
    if rest.is_empty() {
        Ok(Contents { name: name_of(&nonce), account, entries, dated })
    } else {
        Err(OpenError::Sealed)
    }
}

/// No two files have the same nonce.
fn name_of(nonce: &XNonce) -> String {
    nonce.iter().map(|byte| format!("{byte:02x}")).collect()
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

/// What has not been yet cannot be of this boot.
fn stamp(date: u64, moment: Option<u64>, now: Now) -> Stamp {
    let moment = moment.map(Moment::from_millis).filter(|moment| *moment <= now.moment);
    moment.map_or_else(|| Stamp::Earlier(from_millis(date)), Stamp::from)
}

fn to_millis(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn from_millis(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
