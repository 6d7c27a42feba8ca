//! What units were refused for want of: it is looked for, and told when it is there. Pure, as [`State`] is.

use super::decide::{Decision, Health, Limits};
use super::failure::Failure;
use super::state::State;
use crate::moment::{Moment, Now};
use crate::reference::Reference;

impl State {
    /// A unit was refused for want of this: the background looks for it.
    pub fn await_value(&mut self, reference: &Reference, limits: &Limits<'_>, now: Now) {
        // It may have been refused for another reason.
        let is_kept = self.is_kept(reference, limits, now);
        self.awaited.insert(reference.clone(), is_kept);
    }

    fn is_kept(&self, reference: &Reference, limits: &Limits<'_>, now: Now) -> bool {
        use Decision::{Fetch, Serve, ServeAndRefresh};
        matches!(self.decide(reference, limits, now), Serve | ServeAndRefresh | Fetch { fall_back: true })
    }

    /// Whether a unit that was refused for want of this would get it now.
    pub fn has(&self, reference: &Reference, limits: &Limits<'_>, now: Now) -> bool {
        // Or it is never kept, but was seen to be there.
        let was_seen = || {
            self.decide(reference, limits, now) == Decision::Fetch { fall_back: false }
                && self.health(limits, now) == Health::Up
                && self.awaited.get(reference) == Some(&true)
        };
        self.is_kept(reference, limits, now) || was_seen()
    }

    /// What units were refused for want of and still is not there, with when to ask for it next; not what is being fetched.
    pub fn missing(&self, limits: &Limits<'_>, now: Now) -> Vec<(Reference, Moment)> {
        let missing = self.awaited.keys().filter(|reference| {
            !self.is_fetching(reference)
                && self.values.settings().contains_key(*reference)
                && !self.has(reference, limits, now)
        });
        let next = |reference: &Reference| self.failures.get(reference).map_or(now.moment, Failure::next);
        missing.map(|reference| (reference.clone(), next(reference))).collect()
    }
}
