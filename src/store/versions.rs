//! Which values of the fields of one item belong together: those that the item had at one time. Pure.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use super::state::State;
use crate::reference::{Kind, Reference};
use crate::secret::Secret;

/// What is made of an SSH key, by a request of its own.
const DERIVED: [&str; 3] = ["public key", "fingerprint", "key type"];

/// Vault and item, as they are compared.
pub type Item = (String, String);

/// The item of a reference that is read together with its other fields; `None`: it is read by itself.
pub fn item(reference: &Reference) -> Option<Item> {
    let is_derived = DERIVED.iter().any(|name| reference.field.eq_ignore_ascii_case(name));
    let is_read = reference.kind == Kind::Field && reference.query.is_none() && !is_derived;
    is_read.then(|| (reference.vault.to_lowercase(), reference.item.to_lowercase()))
}

/// What is from disk was there before all that is read; what 1Password had denied by then, perhaps not together with the others.
const FROM_DISK: u64 = 1;
const DENIED: u64 = 0;

#[derive(Clone)]
pub struct Versions {
    /// With a key of its own, that nobody knows.
    hasher: RandomState,
    /// How many items were read, or values confirmed.
    count: u64,
    seen: HashMap<Reference, Seen>,
}

/// A value, by its hash, and when it was there: from one reading to another.
#[derive(Clone, Copy)]
struct Seen {
    print: u64,
    first: u64,
    last: u64,
}

impl Default for Versions {
    fn default() -> Self {
        Self { hasher: RandomState::new(), count: FROM_DISK, seen: HashMap::new() }
    }
}

impl Versions {
    /// A value from disk which 1Password had denied before that was written.
    pub fn was_denied(&mut self, reference: &Reference, value: &Secret) {
        let seen = Seen { print: self.print_of(value), first: DENIED, last: DENIED };
        self.seen.entry(reference.clone()).or_insert(seen);
    }

    /// What arrives from here on was read together.
    pub fn next(&mut self) {
        self.count += 1;
    }

    /// `before`: what was kept.
    pub fn arrived(&mut self, reference: &Reference, value: &Secret, before: Option<&Secret>) {
        let print = self.print_of(value);
        let known = self.seen.get(reference).map(|seen| (seen.print, seen.first));
        let known = known.or_else(|| before.map(|before| (self.print_of(before), FROM_DISK)));
        let first = known.filter(|(known, _)| *known == print).map_or(self.count, |(_, first)| first);
        self.seen.insert(reference.clone(), Seen { print, first, last: self.count });
    }

    /// These values are still there.
    pub fn confirmed<'r>(&mut self, values: impl Iterator<Item = (&'r Reference, &'r Secret)>) {
        self.next();
        for (reference, value) in values {
            self.arrived(reference, value, Some(value));
        }
    }

    pub fn print_of(&self, value: &Secret) -> u64 {
        self.hasher.hash_one(value.expose())
    }

    /// Of the value that came last, whether it is kept or not.
    pub fn print(&self, reference: &Reference) -> Option<u64> {
        self.seen.get(reference).map(|seen| seen.print)
    }

    /// Whether the values that came last of all these were there at one time, as far as they are of one item.
    pub fn agree<'r>(&self, references: impl Iterator<Item = &'r Reference>) -> bool {
        let mut items: HashMap<Item, (u64, u64)> = HashMap::new();
        let distinct: HashSet<&Reference> = references.collect();
        for reference in distinct {
            let Some(item) = item(reference) else { continue };
            let seen = self.seen.get(reference);
            let (first, last) = seen.map_or((FROM_DISK, FROM_DISK), |seen| (seen.first, seen.last));
            let common = items.entry(item).or_insert((first, last));
            *common = (common.0.max(first), common.1.min(last));
        }
        items.values().all(|(first, last)| first <= last)
    }
}

impl State {
    /// Tells whether the value of a reference is the one from before: what was given last, or is kept.
    pub fn print(&self, reference: &Reference) -> Option<u64> {
        let kept = || self.values.get(reference).map(|kept| self.versions.print_of(&kept.value));
        self.versions.print(reference).or_else(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(field: &str) -> Reference {
        format!("op://v/i/{field}").parse().unwrap()
    }

    fn secret(text: &str) -> Secret {
        Secret::copy_from(text.as_bytes()).unwrap()
    }

    /// Reads an item with these fields.
    fn read(versions: &mut Versions, fields: &[(&str, &str)]) {
        versions.next();
        for (field, value) in fields {
            versions.arrived(&of(field), &secret(value), None);
        }
    }

    #[test]
    fn values_that_were_there_at_one_time_belong_together() {
        let mut versions = Versions::default();
        let agree = |versions: &Versions, fields: &[&str]| {
            let references: Vec<Reference> = fields.iter().map(|field| of(field)).collect();
            versions.agree(references.iter())
        };
        read(&mut versions, &[("cert", "c1"), ("key", "k1")]);
        assert!(agree(&versions, &["cert", "key"]));
        // One of them is gone, the other one as it was.
        read(&mut versions, &[("cert", "c1")]);
        assert!(agree(&versions, &["cert", "key"]));
        read(&mut versions, &[("cert", "c2")]);
        assert!(
            !agree(&versions, &["cert", "key"]) && agree(&versions, &["key"]) && agree(&versions, &["cert"])
        );
        // It is found to be still there, or anew.
        versions.confirmed([(&of("key"), &secret("k1"))].into_iter());
        assert!(agree(&versions, &["cert", "key"]));
        read(&mut versions, &[("key", "k2")]);
        assert!(!agree(&versions, &["cert", "key"]));
        read(&mut versions, &[("cert", "c2"), ("key", "k2")]);
        assert!(agree(&versions, &["cert", "key"]));
    }

    #[test]
    fn what_is_from_disk_was_there_before_all_that_is_read() {
        let mut versions = Versions::default();
        versions.next();
        versions.arrived(&of("cert"), &secret("c1"), Some(&secret("c1")));
        assert!(versions.agree([of("cert"), of("key")].iter()));
        versions.next();
        versions.arrived(&of("cert"), &secret("c2"), Some(&secret("c1")));
        assert!(!versions.agree([of("cert"), of("key")].iter()));
        let mut versions = Versions::default();
        assert!(versions.agree([of("cert"), of("key")].iter()));
        versions.was_denied(&of("key"), &secret("k1"));
        assert!(!versions.agree([of("cert"), of("key")].iter()) && versions.agree([of("key")].iter()));
        versions.next();
        versions.arrived(&of("key"), &secret("k1"), None);
        versions.arrived(&of("cert"), &secret("c2"), None);
        assert!(versions.agree([of("cert"), of("key")].iter()));
        // Of other items, and of what is read by itself, nothing is said.
        let others = ["op://v/j/key", "op://v/i/key?attribute=otp", "op://v/i/public key"];
        for other in others {
            assert!(versions.agree([of("cert"), other.parse().unwrap()].iter()), "{other}");
        }
    }
}
