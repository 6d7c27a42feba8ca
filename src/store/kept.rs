//! The values in memory, with what is known of their age.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::decide::{Decision, Health, Keep, Known, Settings, decide};
use crate::moment::{Moment, Now, Stamp};
use crate::providers::Comparable;
use crate::reference::Reference;
use crate::secret::Secret;

/// A value that is kept. Its times tell ages, which go on through a reboot.
#[derive(Debug, Clone)]
pub struct Kept {
    pub value: Arc<Secret>,
    /// When 1Password was last asked for it, and gave or confirmed it.
    pub fetched: Stamp,
    /// When 1Password first said that it is not there, or not ours, any more.
    pub denied: Option<Stamp>,
    /// When it was last read, and not only confirmed.
    pub read: Moment,
    /// See [`Known::doubtful`].
    pub doubtful: bool,
    /// Fetched since the provider's versions were noted, so that they tell whether it still holds.
    pub comparable: Comparable,
    /// The number that the store gave to the fetch or confirmation that this value last came from; it is higher than
    /// the numbers of all that began earlier. 0 if that was before this store: for what is read from disk, or taken
    /// over at a reload.
    pub asked: u64,
    /// It was in the sealed cache, and the provider has not given it since, though it may have confirmed it.
    pub from_disk: bool,
}

/// When 1Password was asked for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// See [`Kept::asked`].
    pub number: u64,
    pub at: Moment,
}

/// How long the version of a vault is believed that says that nothing has changed in it. Then a value is read all the same: should a
/// version ever stand still, no value is old for ever.
const READ_ANEW: Duration = Duration::from_secs(24 * 60 * 60);

impl Kept {
    /// Whether 1Password can be asked if it still holds.
    pub fn is_confirmable(&self, now: Moment) -> bool {
        self.comparable.is_some() && now.since(self.read) < READ_ANEW
    }

    pub fn known(&self, now: Now) -> Known {
        Known {
            age: self.fetched.age(now),
            denied_for: self.denied.map(|denied| denied.age(now).unwrap_or_default()),
            doubtful: self.doubtful,
        }
    }
}

/// The references of the configuration, each with its settings and, where there is one, its value. What is not in the
/// configuration is not in here.
#[derive(Debug, Default)]
pub struct Values {
    settings: HashMap<Reference, Settings>,
    entries: HashMap<Reference, Kept>,
}

impl Values {
    /// Drops values that the settings do not allow to be kept, or do not know.
    pub fn new(
        settings: HashMap<Reference, Settings>,
        known: impl IntoIterator<Item = (Reference, Kept)>,
    ) -> Self {
        let keeps = |reference: &Reference| settings.get(reference).is_some_and(|s| s.keep > Keep::Never);
        let entries = known.into_iter().filter(|(reference, _)| keeps(reference)).collect();
        Self { settings, entries }
    }

    pub fn decide(&self, reference: &Reference, now: Now, health: Health) -> Decision {
        let known = self.entries.get(reference).map(|entry| entry.known(now));
        match self.settings.get(reference) {
            Some(settings) => decide(known, settings, health),
            // A request that began before a reload took the reference out of the configuration.
            None => Decision::Fetch { fall_back: false },
        }
    }

    pub fn get(&self, reference: &Reference) -> Option<&Kept> {
        self.entries.get(reference)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Reference, &Kept)> {
        self.entries.iter()
    }

    /// The same, of another store.
    pub fn take_over(&mut self, reference: Reference, kept: Kept) -> bool {
        if self.settings.get(&reference).is_none_or(|settings| settings.keep == Keep::Never) {
            return false;
        }
        let value = kept.value.clone();
        let before = self.entries.insert(reference, kept);
        before.is_none_or(|before| !before.value.is_same_as(&value))
    }

    /// Forgets all others.
    pub fn retain(&mut self, keep: impl Fn(&Reference) -> bool) {
        self.settings.retain(|reference, _| keep(reference));
        self.entries.retain(|reference, _| keep(reference));
        self.settings.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    pub fn settings(&self) -> &HashMap<Reference, Settings> {
        &self.settings
    }

    /// Those that may be written to disk.
    pub fn sealable(&self) -> impl Iterator<Item = (&Reference, &Kept)> {
        self.entries.iter().filter(|(reference, _)| self.settings[*reference].keep == Keep::Sealed)
    }

    /// Keeps a value, if it may be kept, and says whether it differs from the one before.
    pub fn insert(
        &mut self,
        reference: &Reference,
        value: Arc<Secret>,
        asked: Asked,
        comparable: Comparable,
    ) -> bool {
        let entry = Kept {
            value,
            fetched: asked.at.into(),
            denied: None,
            read: asked.at,
            doubtful: false,
            comparable,
            asked: asked.number,
            from_disk: false,
        };
        self.take_over(reference.clone(), entry)
    }

    /// The provider says that these values are unchanged since the baseline `before`. The others it cannot confirm any more:
    /// they have to be fetched. Returns whether all are confirmed.
    pub fn confirm(
        &mut self,
        unchanged: &HashSet<Reference>,
        (before, now): (Comparable, Comparable),
        asked: Asked,
    ) -> bool {
        let mut all = true;
        for (reference, entry) in &mut self.entries {
            let is_comparable = before.is_some() && entry.comparable == before;
            if is_comparable && unchanged.contains(reference) {
                // A fetch that began later may have ended before.
                if entry.asked < asked.number {
                    (entry.fetched, entry.asked) = (asked.at.into(), asked.number);
                }
                (entry.denied, entry.doubtful, entry.comparable) = (None, false, now);
            } else {
                // What was read since is comparable with a later one.
                entry.comparable = entry.comparable.filter(|_| !is_comparable);
                all = false;
            }
        }
        all
    }

    /// 1Password says that there is no such value. The value is dropped when the grace is over; says whether it was.
    pub fn deny(&mut self, reference: &Reference, now: Now) -> bool {
        let Some(entry) = self.entries.get_mut(reference) else { return false };
        // Of one from an earlier boot that lies in the future, the grace is not to last until then.
        let before = entry.denied.filter(|denied| denied.age(now).is_some());
        entry.denied = Some(before.unwrap_or(now.moment.into()));
        let grace = self.settings[reference].grace;
        let over = entry.known(now).denied_for.is_some_and(|denied| denied >= grace);
        if over {
            self.entries.remove(reference);
        }
        over
    }
}
