//! A secret value: never empty, wiped when dropped, shown to nobody by accident.
//!
//! A [`Secret`] is written once, into a buffer of its final size, and read through one method,
//! [`Secret::expose`], whose callers are listed by a test (`tests/repository/code`).

use std::fmt;

use zeroize::Zeroizing;

/// The bytes of one secret. Has no `Clone`, `Display` or `Serialize`, and its `Debug` hides the value.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Copies `bytes`; the caller wipes its own.
    pub fn copy_from(bytes: &[u8]) -> Result<Self, Empty> {
        let mut draft = Draft::with_capacity(bytes.len());
        draft.push(bytes);
        draft.finish()
    }

    /// Takes a buffer over as it is: nothing is copied.
    pub fn take(bytes: Zeroizing<Vec<u8>>) -> Result<Self, Empty> {
        if bytes.is_empty() { Err(Empty) } else { Ok(Self(bytes)) }
    }

    /// The value itself. Every caller is a place where a secret could leak.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub fn is_same_as(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never true: an empty value cannot become a `Secret`.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// An empty value is a fault of the vault entry, never a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value is empty")]
pub struct Empty;

/// A secret while it is written. Its buffer never grows, because growing would leave an unwiped copy behind.
pub struct Draft(Zeroizing<Vec<u8>>);

impl Draft {
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    /// # Panics
    /// When the promised capacity is too small: a fault of the program, not of its input.
    pub fn push(&mut self, bytes: &[u8]) {
        assert!(self.0.capacity() - self.0.len() >= bytes.len(), "a secret outgrew its buffer");
        self.0.extend_from_slice(bytes);
    }

    /// The unused rest of the buffer, zeroed, for readers that fill a slice; `keep` bytes of it stay.
    pub fn fill<E>(&mut self, fill: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<(), E> {
        let start = self.0.len();
        let capacity = self.0.capacity();
        self.0.resize(capacity, 0);
        let kept = fill(&mut self.0[start..])?;
        self.0.truncate(start + kept);
        Ok(())
    }

    pub fn finish(self) -> Result<Secret, Empty> {
        Secret::take(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_value_is_no_secret() {
        assert_eq!(Secret::copy_from(b"").unwrap_err(), Empty);
    }

    #[test]
    fn debug_does_not_show_the_value() {
        assert_eq!(format!("{:?}", Secret::copy_from(b"hunter2").unwrap()), "Secret(hidden)");
    }

    #[test]
    #[should_panic(expected = "outgrew")]
    fn a_draft_never_moves_to_a_larger_buffer() {
        let mut draft = Draft::with_capacity(4);
        let room = draft.0.capacity();
        draft.push(&vec![1; room + 1]);
    }

    #[test]
    fn filling_keeps_what_the_reader_says_it_wrote() {
        let mut draft = Draft::with_capacity(8);
        draft.push(b"ab");
        draft
            .fill(|rest| {
                rest[..3].copy_from_slice(b"cde");
                Ok::<_, Empty>(3)
            })
            .unwrap();
        assert_eq!(draft.finish().unwrap().expose(), b"abcde");
    }
}
