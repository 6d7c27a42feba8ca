//! What a store still fetches after another one has taken over is known to that one as well: who asks there next is not to get an
//! older value than who waited here.

use std::sync::{Arc, MutexGuard, PoisonError, Weak};

use super::failure::Failure;
use super::kept::Kept;
use super::state::{Act, Acts, State};
use super::{InForce, Shared, Store};
use crate::moment::Now;
use crate::reference::Reference;

impl Store {
    /// This store takes over from that one.
    pub fn succeeds(&self, before: &Self) {
        *self.0.in_force.store() = Arc::downgrade(&self.0);
        let state = before.0.state();
        // What came since it handed over.
        let values = state.values.iter().map(|(reference, kept)| (reference.clone(), kept.clone())).collect();
        let account = state.account.clone();
        drop(state);
        self.0.learn(account.as_deref(), values);
    }
}

impl InForce {
    fn store(&self) -> MutexGuard<'_, Weak<Shared>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// The values of these have just arrived.
    pub(super) fn hand_on<'r>(&self, references: impl IntoIterator<Item = &'r Reference>) {
        let in_force = self.in_force.store().upgrade();
        let Some(in_force) = in_force.filter(|in_force| !std::ptr::eq(Arc::as_ptr(in_force), self)) else {
            return;
        };
        let state = self.state();
        let kept = |reference: &Reference| Some((reference.clone(), state.values.get(reference)?.clone()));
        let values = references.into_iter().filter_map(kept).collect();
        let account = state.account.clone();
        drop(state);
        in_force.learn(account.as_deref(), values);
    }

    fn learn(self: &Arc<Self>, account: Option<&str>, values: Vec<(Reference, Kept)>) {
        let acts = {
            let mut state = self.state();
            let acts = state.take_over(account, values, Now::read());
            if !acts.0.is_empty() {
                self.disk.unsaved();
            }
            acts
        };
        self.act(acts);
    }
}

impl State {
    /// What another store of the same account knows, as far as it is newer. It does not count as fresh.
    fn take_over(&mut self, account: Option<&str>, values: Vec<(Reference, Kept)>, now: Now) -> Acts {
        let mut acts = Acts::default();
        if self.account.as_deref() != account {
            return acts;
        }
        self.versions.next();
        for (reference, new) in values {
            let Some(age) = new.fetched.age(now) else { continue };
            let known = self.values.get(&reference);
            let is_older = |known: &Kept| known.fetched.age(now).is_none_or(|known| age < known);
            let is_newer = known.is_none_or(|known| known.denied.is_none() && is_older(known));
            // 1Password may have said since that there is none any more.
            let was_denied = |failure: &Failure| {
                !failure.error.consequences().cached_may_stand_in && now.moment.since(failure.at) <= age
            };
            if new.denied.is_some() || !is_newer || self.failures.get(&reference).is_some_and(was_denied) {
                continue;
            }
            let before = known.map(|known| &*known.value);
            self.versions.arrived(&reference, &new.value, before);
            let new = Kept { doubtful: true, comparable: None, asked: 0, ..new };
            self.unsaved = true;
            if self.values.take_over(reference, new) {
                acts.0.push(Act::Changed);
            }
        }
        if !acts.0.is_empty() {
            acts.0.push(Act::Save);
        }
        acts
    }
}
