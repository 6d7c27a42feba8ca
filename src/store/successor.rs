//! What a store still fetches after another one has taken over is known to that one as well: who asks there next is not to get an
//! older value than who waited here.

use std::sync::{Arc, PoisonError};

use super::kept::Kept;
use super::state::{Act, Acts, State};
use super::{Shared, Store};
use crate::moment::Now;
use crate::reference::Reference;

impl Store {
    /// From here on.
    pub fn is_succeeded_by(&self, next: &Self) {
        let state = self.0.state();
        *self.0.successor.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&next.0);
        // What came since it handed over.
        let values = state.values.iter().map(|(reference, kept)| (reference.clone(), kept.clone())).collect();
        let account = state.account.clone();
        drop(state);
        next.0.learn(account.as_deref(), values);
    }
}

impl Shared {
    /// These have just arrived.
    pub(super) fn hand_on<'r>(&self, references: impl IntoIterator<Item = &'r Reference>) {
        let next = self.successor.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        let Some(next) = next else { return };
        let state = self.state();
        let kept = |reference: &Reference| Some((reference.clone(), state.values.get(reference)?.clone()));
        let values = references.into_iter().filter_map(kept).collect();
        let account = state.account.clone();
        drop(state);
        next.learn(account.as_deref(), values);
    }

    fn learn(self: &Arc<Self>, account: Option<&str>, values: Vec<(Reference, Kept)>) {
        let acts = self.state().take_over(account, values, Now::read());
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
        for (reference, new) in values {
            let Some(age) = new.fetched.age(now) else { continue };
            let known = self.values.get(&reference);
            let is_older = |known: &Kept| known.fetched.age(now).is_none_or(|known| age < known);
            let is_newer = known.is_none_or(|known| known.denied.is_none() && is_older(known));
            if new.denied.is_some() || !is_newer {
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
