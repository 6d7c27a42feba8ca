//! Where a unit gets the value of one reference: from memory, or from a fetch. Pure, as [`State`] is.

use super::decide::{Decision, Health, Limits};
use super::served::{Caveat, Served};
use super::state::{Act, Acts, State, Waiter};
use crate::moment::Now;
use crate::providers::FetchError;
use crate::reference::Reference;
use crate::remedy::Remedy;

/// Where a unit gets the value of one reference.
pub enum Source {
    Kept(Served),
    Fetch(Waiter),
    /// From the fetch, unless the provider is found not to work or takes too long.
    FetchOrKept(Waiter),
}

impl State {
    pub fn health(&self, limits: &Limits<'_>, now: Now) -> Health {
        limits.health(self.breaker.down().is_some(), now)
    }

    /// The value that is kept, if it is to be served without asking.
    pub fn served(&self, reference: &Reference, limits: &Limits<'_>, now: Now) -> Option<Served> {
        // What is fresh is served whatever the provider's health, which is looked at only otherwise.
        if self.values.decide(reference, now.date, Health::Up) == Decision::Serve {
            return Some(Served { value: self.values.get(reference)?.value.clone(), caveat: None });
        }
        if self.values.decide(reference, now.date, self.health(limits, now)) != Decision::ServeAndRefresh {
            return None;
        }
        let limited = limits.meter.ledger().limited_until(now.date, now.moment);
        let why = match (limited, self.breaker.down()) {
            (Some(until), _) => FetchError::RateLimited { until: Some(until) }.line(),
            (None, Some(down)) => down.error.line(),
            (None, None) => "this machine's budget of requests is used up".to_owned(),
        };
        self.stand_in(reference, why, now)
    }

    /// The value that is kept, with why it is not a newer one.
    fn stand_in(&self, reference: &Reference, why: String, now: Now) -> Option<Served> {
        let kept = self.values.get(reference)?;
        let caveat = Caveat { reference: reference.clone(), age: kept.known(now.date).age, why };
        Some(Served { value: kept.value.clone(), caveat: Some(caveat) })
    }

    /// After a fetch that failed: the value that is kept is served, unless 1Password has said for too long that there
    /// is none.
    pub fn fall_back(
        &self,
        reference: &Reference,
        error: FetchError,
        now: Now,
    ) -> Result<Served, FetchError> {
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
        match self.values.decide(reference, now.date, self.health(limits, now)) {
            Decision::Refuse => {
                let until = limits.meter.ledger().told_until(now.date, now.moment);
                (Err(FetchError::RateLimited { until }), Acts::default())
            }
            Decision::Fetch { fall_back: true } => {
                let (waiter, acts) = self.join(reference, false);
                (Ok(Source::FetchOrKept(waiter)), acts)
            }
            _ => {
                let stands = self.failures.get(reference).filter(|failure| failure.stands(now.moment));
                let Some(error) = stands.map(|failure| failure.error.clone()) else {
                    let (waiter, acts) = self.join(reference, true);
                    return (Ok(Source::Fetch(waiter)), acts);
                };
                // This counts as if 1Password had said so once more: the grace may be over.
                let gone = self.values.deny(reference, now.date);
                self.unsaved |= gone;
                (Err(error), Acts(gone.then_some(Act::Save).into_iter().collect()))
            }
        }
    }
}
