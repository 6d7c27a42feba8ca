//! Whose the values are, and what is to be on disk of them. Pure, as [`State`] is.

use super::disk::Snapshot;
use super::kept::Values;
use super::state::State;
use crate::moment::Now;

impl State {
    /// What was fetched with the token of another account is not ours to serve.
    /// It is kept until the other account has given something: the token may be the wrong one, and be replaced once more.
    pub fn belongs_to(&mut self, account: &str) {
        if let Some(known) = self.account.take_if(|known| known != account) {
            let none = Values::new(self.values.settings().clone(), []);
            let values = std::mem::replace(&mut self.values, none);
            let (before, values) = self.former.take().unwrap_or((known, values));
            if before == account {
                self.values = values;
            } else {
                self.former = Some((before, values));
            }
            self.unsaved = true;
            self.disown_fetches();
        }
        self.account = Some(account.to_owned());
    }

    /// The last account that gave something, and its values.
    pub fn proven(&self) -> (Option<&str>, &Values) {
        match &self.former {
            Some((account, values)) => (Some(account), values),
            None => (self.account.as_deref(), &self.values),
        }
    }

    /// Whether the clock was set since values were written to disk: after the next boot their dates would be wrong.
    pub fn is_misdated(&self, now: Now) -> bool {
        self.dated.is_some_and(|clock| clock.differs(now.setting()))
    }

    /// What is to be written to disk, if anything.
    pub fn take_unsaved(&mut self, now: Now) -> Option<Snapshot> {
        let (account, values) = self.proven();
        let account = account.filter(|_| self.unsaved || self.is_misdated(now))?.to_owned();
        let entries = values.sealable().map(|(reference, kept)| (reference.clone(), kept.clone())).collect();
        (self.unsaved, self.dated) = (false, Some(now.setting()));
        Some(Snapshot { account, entries, now })
    }

    /// It could not be written.
    pub fn mark_unsaved(&mut self) {
        self.unsaved = true;
    }
}
