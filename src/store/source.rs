//! Where a unit gets the value of one reference: from memory, or from a fetch. Pure, as [`State`] is.

use std::time::Duration;

use super::decide::{Decision, Health, Limits};
use super::failure::Failure;
use super::served::{Caveat, Part};
use super::state::{Act, Acts, State, Waiter};
use crate::counters::Origin;
use crate::moment::Now;
use crate::providers::FetchError;
use crate::reference::Reference;
use crate::remedy::Remedy;

/// Where a unit gets the value of one reference.
pub enum Source {
    Kept(Part),
    Fetch(Waiter),
    /// From the fetch, unless the provider is found not to work or takes too long.
    FetchOrKept(Waiter),
}

impl State {
    pub fn health(&self, limits: &Limits<'_>, now: Now) -> Health {
        limits.health(self.breaker.down().is_some(), now)
    }

    /// What a unit that asks now comes to.
    pub fn decide(&self, reference: &Reference, limits: &Limits<'_>, now: Now) -> Decision {
        self.decide_for(reference, || self.health(limits, now), limits, now)
    }

    fn decide_for(
        &self,
        reference: &Reference,
        health: impl FnOnce() -> Health,
        limits: &Limits<'_>,
        now: Now,
    ) -> Decision {
        // What is fresh is served whatever the provider's health, which is looked at only otherwise.
        if self.values.decide(reference, now, Health::Up) == Decision::Serve {
            return Decision::Serve;
        }
        match self.values.decide(reference, now, health()) {
            Decision::Fetch { fall_back: true } if self.standing(reference, now).is_some() => {
                Decision::ServeAndRefresh
            }
            Decision::Fetch { fall_back: false }
                if self.held(limits, now).is_some() || self.standing(reference, now).is_some() =>
            {
                Decision::Refuse
            }
            decision => decision,
        }
    }

    /// For each of many references whether a unit would be given it now. `answers`: the provider gives what it is asked for, as far as
    /// its last answers tell.
    pub fn servable<'s>(
        &'s self,
        limits: &'s Limits<'_>,
        now: Now,
        answers: bool,
    ) -> impl Fn(&Reference) -> bool + 's {
        // The same for all of them, and not to be added up anew for each.
        let health = self.health(limits, now);
        // What failed because the provider did not work tells nothing about the value.
        let failed = |failure: &Failure| !failure.error.consequences().provider_is_down;
        move |reference| match self.decide_for(reference, || health, limits, now) {
            Decision::Serve | Decision::ServeAndRefresh | Decision::Fetch { fall_back: true } => true,
            Decision::Fetch { fall_back: false } => {
                answers && !self.failures.get(reference).is_some_and(failed)
            }
            Decision::Refuse => false,
        }
    }

    /// Why this reference could not be had, if it is too early to ask again.
    fn standing(&self, reference: &Reference, now: Now) -> Option<&FetchError> {
        self.failures
            .get(reference)
            .filter(|failure| failure.stands(now.moment))
            .map(|failure| &failure.error)
    }

    /// Why the provider does not work, if it is too early to ask for anything.
    fn held(&self, limits: &Limits<'_>, now: Now) -> Option<&FetchError> {
        let down = self.breaker.down()?;
        // While the budget is used up, only the background tries whether an outage is over.
        let is_held = down.stands(now.moment) || (now.moment < down.probe(true) && !limits.affords(now));
        is_held.then_some(&down.error)
    }

    /// The value that is kept, if it is to be served without asking.
    pub fn served(&self, reference: &Reference, limits: &Limits<'_>, now: Now) -> Option<Part> {
        match self.decide(reference, limits, now) {
            Decision::Serve => {
                let kept = self.values.get(reference)?;
                let origin = if kept.from_disk { Origin::Disk } else { Origin::Memory };
                Some(Part { value: kept.value.clone(), caveat: None, origin })
            }
            Decision::ServeAndRefresh => self.stand_in(reference, self.why_kept(reference, limits, now), now),
            Decision::Fetch { .. } | Decision::Refuse => None,
        }
    }

    fn why_kept(&self, reference: &Reference, limits: &Limits<'_>, now: Now) -> String {
        let limited = limits.meter.ledger().limited_until(now);
        let down = self.breaker.down().map(|down| &down.error);
        match (limited, down.or_else(|| self.standing(reference, now))) {
            (Some(until), _) => FetchError::RateLimited { until: Some(until) }.line(),
            (None, Some(error)) => error.line(),
            (None, None) => "this machine's budget of requests is used up".to_owned(),
        }
    }

    /// The value that is kept, with why it is not a newer one.
    fn stand_in(&self, reference: &Reference, why: String, now: Now) -> Option<Part> {
        let kept = self.values.get(reference)?;
        let caveat = Caveat { reference: reference.clone(), age: kept.known(now).age, why };
        Some(Part { value: kept.value.clone(), caveat: Some(caveat), origin: Origin::Stale })
    }

    /// After a fetch that failed: the value that is kept is served, unless 1Password has said for too long that there
    /// is none.
    pub fn fall_back(&self, reference: &Reference, error: FetchError, now: Now) -> Result<Part, FetchError> {
        self.stand_in(reference, error.line(), now).ok_or(error)
    }

    pub fn source(
        &mut self,
        reference: &Reference,
        limits: &Limits<'_>,
        now: Now,
    ) -> (Result<Source, FetchError>, Acts) {
        if let Some(served) = self.served(reference, limits, now) {
            return (Ok(Source::Kept(served)), Acts::default());
        }
        match self.decide(reference, limits, now) {
            Decision::Fetch { fall_back: true } => {
                let (waiter, acts) = self.join(reference, false);
                (Ok(Source::FetchOrKept(waiter)), acts)
            }
            Decision::Refuse => self.refuse(reference, limits, now),
            Decision::Fetch { fall_back: false } | Decision::Serve | Decision::ServeAndRefresh => {
                let (waiter, acts) = self.join(reference, true);
                (Ok(Source::Fetch(waiter)), acts)
            }
        }
    }

    /// How long a unit that can wait for these references is to leave 1Password alone, where it would have to ask;
    /// [`Duration::MAX`]: until something changes. `again`: it has asked already, and asks no more once the budget is used up.
    pub fn rest<'r>(
        &self,
        references: impl Iterator<Item = &'r Reference>,
        limits: &Limits<'_>,
        now: Now,
        again: bool,
    ) -> Duration {
        let needs_a_fetch = |reference: &&Reference| {
            matches!(
                self.decide(reference, limits, now),
                Decision::Fetch { fall_back: false } | Decision::Refuse
            )
        };
        let rest = |reference: &Reference| {
            // The background finds out when it works again.
            if self.breaker.down().is_some() || (again && !limits.affords(now)) {
                return Duration::MAX;
            }
            let limited = limits.meter.ledger().told_until(now).map(|until| until.since(now.moment));
            let failed = self.failures.get(reference).map(|failure| failure.next().since(now.moment));
            limited.max(failed).unwrap_or_default()
        };
        references.filter(needs_a_fetch).map(rest).max().unwrap_or_default()
    }

    /// Whether it is of use to have these fetched anew although there are values: 1Password works and is to be asked, and has not
    /// just said no to one of them.
    pub fn may_ask_anew<'r>(
        &self,
        mut references: impl Iterator<Item = &'r Reference>,
        limits: &Limits<'_>,
        now: Now,
    ) -> bool {
        let is_told_not_to = limits.meter.ledger().told_until(now).is_some();
        self.breaker.down().is_none()
            && !is_told_not_to
            && limits.affords(now)
            && references.all(|reference| self.standing(reference, now).is_none())
    }

    /// Why these references cannot be had, as far as that is known.
    pub fn trouble<'r>(&self, mut references: impl Iterator<Item = &'r Reference>) -> Option<&FetchError> {
        let down = self.breaker.down().map(|down| &down.error);
        down.or_else(|| references.find_map(|reference| Some(&self.failures.get(reference)?.error)))
    }

    fn refuse(
        &mut self,
        reference: &Reference,
        limits: &Limits<'_>,
        now: Now,
    ) -> (Result<Source, FetchError>, Acts) {
        let limited = limits.meter.ledger().told_until(now);
        let error = self.held(limits, now).or_else(|| self.standing(reference, now)).cloned();
        let error = error.unwrap_or(FetchError::RateLimited { until: limited });
        // A denial counts as if 1Password had said so once more: the grace may be over.
        let denied = !error.consequences().cached_may_stand_in;
        let gone = denied && self.values.deny(reference, now);
        self.unsaved |= gone;
        (Err(error), Acts(gone.then_some(Act::Save).into_iter().collect()))
    }
}
