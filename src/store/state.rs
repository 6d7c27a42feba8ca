//! What is known, and what is being asked for. Pure: no clock, no runtime and no lock in here. A method that changes
//! something returns what is to be done about it, and `Shared` does it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::breaker::Breaker;
use super::decide::Keep;
use super::disk::Snapshot;
use super::failure::Failure;
use super::kept::{Asked, Kept, Values};
use crate::moment::{Moment, Now};
use crate::providers::FetchError;
use crate::reference::Reference;
use crate::secret::Secret;

/// The outcome of a fetch for one reference.
pub type Outcome = Result<Arc<Secret>, FetchError>;

#[derive(Default)]
pub struct State {
    /// Whose values they are; not known before there is a token.
    pub account: Option<String>,
    pub values: Values,
    pub breaker: Breaker,
    /// Why the last fetch of a reference failed.
    pub failures: HashMap<Reference, Failure>,
    /// What is being fetched, or will be with the next fetch.
    fetching: HashMap<Reference, Fetching>,
    /// What the next fetch is for.
    wanted: Vec<Wanted>,
    /// Counts the fetches and confirmations that began. This tells which of two began first, because the wall clock can
    /// be set back between them.
    began: u64,
    /// How often the provider was asked what changed.
    generation: u64,
    /// When all values that are kept were last found to hold.
    pub renewed: Option<Moment>,
    /// When values are renewed next in the background.
    pub next_refresh: Option<Moment>,
    /// Whether the values have changed since they were written to disk.
    pub unsaved: bool,
}

struct Fetching {
    outcome: Waiter,
    /// Whether somebody waits who has no other value: a failure that may pass is then tried again.
    urgent: bool,
}

/// Where those who asked for one reference wait for it.
#[derive(Clone)]
pub struct Waiter(watch::Receiver<Option<Outcome>>);

/// A reference that is to be fetched.
pub struct Wanted {
    pub reference: Reference,
    /// How many fetches and confirmations had begun when it was asked for: what those bring is too old for it.
    since: u64,
    sender: watch::Sender<Option<Outcome>>,
}

/// A fetch that has begun.
#[derive(Clone, Copy)]
pub struct Begun {
    asked: Asked,
    generation: u64,
}

/// The values that the provider is asked to confirm.
pub struct Confirmation {
    pub references: Vec<Reference>,
    asked: Asked,
    at: Moment,
}

/// What is to be done.
pub enum Act {
    /// Begin a fetch for what is wanted.
    Fetch,
    /// Tell those who wait for this reference.
    Deliver(Wanted, Outcome),
    /// Count a value that changed.
    Changed,
    /// Note in the ledger that a limit is reached, and until when if that is known, or that none is any more.
    Limit(Option<SystemTime>),
    Lift,
    /// Tell all who have a value to fall back on that the provider does not work; with the error, if this is new.
    Down(Option<FetchError>),
    /// Say that the provider works again.
    Up,
    /// Write what changed to disk.
    Save,
}

#[derive(Default)]
#[must_use]
pub struct Acts(pub Vec<Act>);

impl Waiter {
    /// `None`: the fetch was given up.
    pub async fn outcome(&mut self) -> Option<Outcome> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

impl Wanted {
    /// It does not matter if nobody waits any more.
    pub fn deliver(self, outcome: Outcome) {
        let _ = self.sender.send(Some(outcome));
    }
}

impl State {
    /// `count` is how many values there were before those that may not be kept were dropped.
    pub fn new(account: Option<String>, values: Values, count: usize) -> Self {
        // What is no longer in the configuration leaves the disk.
        let unsaved = values.sealable().count() != count;
        Self { account, values, unsaved, ..Self::default() }
    }

    /// Has a reference fetched, unless that is under way. `urgent`: a failure that may pass is tried again.
    pub fn join(&mut self, reference: &Reference, urgent: bool) -> (Waiter, Acts) {
        if let Some(fetching) = self.fetching.get_mut(reference) {
            fetching.urgent |= urgent;
            return (fetching.outcome.clone(), Acts::default());
        }
        let (sender, receiver) = watch::channel(None);
        let outcome = Waiter(receiver);
        self.fetching.insert(reference.clone(), Fetching { outcome: outcome.clone(), urgent });
        let begin = self.wanted.is_empty().then_some(Act::Fetch);
        self.wanted.push(Wanted { reference: reference.clone(), since: self.began, sender });
        (outcome, Acts(begin.into_iter().collect()))
    }

    /// Has everything that may be kept fetched, with the next fetch.
    pub fn join_all(&mut self) -> (Vec<Waiter>, Acts) {
        let settings = self.values.settings().iter();
        let kept = settings.filter(|(_, settings)| settings.keep > Keep::Never);
        let kept: Vec<Reference> = kept.map(|(reference, _)| reference.clone()).collect();
        let mut all = Acts::default();
        let join = |reference| {
            let (waiter, acts) = self.join(reference, false);
            all.0.extend(acts.0);
            waiter
        };
        (kept.iter().map(join).collect(), all)
    }

    /// What the fetch that begins now is for, without the references whose value has come meanwhile: it is delivered.
    pub fn take_wanted(&mut self) -> (Vec<Wanted>, Acts) {
        let mut acts = Acts::default();
        let mut still = Vec::new();
        for wanted in std::mem::take(&mut self.wanted) {
            let had = |kept: &&Kept| kept.asked > wanted.since && kept.denied.is_none();
            match self.values.get(&wanted.reference).filter(had) {
                Some(kept) => {
                    self.fetching.remove(&wanted.reference);
                    acts.0.push(Act::Deliver(wanted, Ok(kept.value.clone())));
                }
                None => still.push(wanted),
            }
        }
        (still, acts)
    }

    pub fn is_urgent(&self, wanted: &[Wanted]) -> bool {
        wanted.iter().any(|wanted| self.fetching.get(&wanted.reference).is_some_and(|of| of.urgent))
    }

    /// What was fetched with the token of another account is not ours to serve.
    pub fn belongs_to(&mut self, account: &str) {
        if self.account.as_ref().is_some_and(|known| known != account) {
            self.values = Values::new(self.values.settings().clone(), []);
            self.unsaved = true;
        }
        self.account = Some(account.to_owned());
    }

    fn ask(&mut self, now: Now) -> Asked {
        self.began += 1;
        Asked { number: self.began, at: now.date }
    }

    pub fn begin(&mut self, now: Now) -> Begun {
        Begun { asked: self.ask(now), generation: self.generation }
    }

    /// Which values the provider can be asked to confirm; `None` if none of them is wanted.
    pub fn begin_confirmation(&mut self, now: Now) -> Option<Confirmation> {
        let comparable =
            |reference: &Reference| self.values.get(reference).is_some_and(|kept| kept.comparable);
        if !self.wanted.iter().any(|wanted| comparable(&wanted.reference)) {
            return None;
        }
        let references = self.values.iter().filter(|(_, kept)| kept.comparable);
        let references = references.map(|(reference, _)| reference.clone()).collect();
        Some(Confirmation { references, asked: self.ask(now), at: now.moment })
    }

    /// What the provider says of each of them.
    pub fn confirmed(&mut self, confirmation: Confirmation, unchanged: Vec<bool>) {
        // From here on versions are compared with those of now. A value that was asked for earlier and arrives later is
        // recognized by its generation.
        self.generation += 1;
        let Confirmation { references, asked, at } = confirmation;
        let holds: HashSet<Reference> =
            references.into_iter().zip(unchanged).filter_map(|(known, same)| same.then_some(known)).collect();
        if self.values.iter().all(|(reference, _)| holds.contains(reference)) {
            // As good as a round of the background.
            self.renewed = Some(at);
        }
        self.values.confirm(&holds, asked);
        self.unsaved = true;
    }

    /// Learns from results, and has them delivered. With `again`, what is worth another try is returned instead.
    /// `chance`, from 0 to 1, keeps machines that failed together from trying again together.
    pub fn settle(
        &mut self,
        wanted: Vec<Wanted>,
        results: Vec<Result<Secret, FetchError>>,
        begun: Begun,
        again: bool,
        now: Now,
        chance: f64,
    ) -> (Vec<Wanted>, Acts) {
        let mut acts = self.learn(&results, now, chance);
        let mut left = Vec::new();
        for (wanted, result) in wanted.into_iter().zip(results) {
            let reference = &wanted.reference;
            match &result {
                Ok(_) => drop(self.failures.remove(reference)),
                Err(error) => {
                    if !error.consequences().cached_may_stand_in {
                        self.values.deny(reference, now.date);
                        self.unsaved = true;
                    }
                    let failure = Failure::new(error.clone(), now.moment, self.failures.get(reference));
                    self.failures.insert(reference.clone(), failure);
                }
            }
            if again && result.as_ref().is_err_and(|error| error.retry_in(Duration::ZERO).is_some()) {
                left.push(wanted);
                continue;
            }
            self.fetching.remove(reference);
            let outcome = result.map(Arc::new);
            if let Ok(value) = &outcome {
                let comparable = self.generation == begun.generation;
                if self.values.insert(reference, value.clone(), begun.asked, comparable) {
                    acts.0.push(Act::Changed);
                }
                self.unsaved = true;
            }
            acts.0.push(Act::Deliver(wanted, outcome));
        }
        (left, acts)
    }

    /// What the results say about the provider: any answer at all shows that it works.
    fn learn(&mut self, results: &[Result<Secret, FetchError>], now: Now, chance: f64) -> Acts {
        let failures: Vec<&FetchError> = results
            .iter()
            .filter_map(|result| result.as_ref().err())
            .filter(|error| error.consequences().cached_may_stand_in)
            .collect();
        let limit = failures.iter().find_map(|error| match error {
            FetchError::RateLimited { until } => Some(*until),
            _ => None,
        });
        match (limit, failures.first()) {
            (Some(until), _) => {
                // It is not out of order, but not worth waiting for either.
                self.breaker.works();
                Acts(vec![Act::Limit(until), Act::Down(None)])
            }
            (None, Some(error)) if failures.len() == results.len() => {
                self.fails((*error).clone(), now, chance)
            }
            (None, _) if !results.is_empty() => self.works(),
            (None, _) => Acts::default(),
        }
    }

    /// The provider does not work: whoever has a value that will do need not wait for it.
    pub fn fails(&mut self, error: FetchError, now: Now, chance: f64) -> Acts {
        let new = self.breaker.down().is_none().then(|| error.clone());
        self.breaker.fails(now.moment, error, chance);
        Acts(vec![Act::Down(new)])
    }

    pub fn works(&mut self) -> Acts {
        let back = self.breaker.down().is_some().then_some(Act::Up);
        self.breaker.works();
        Acts(back.into_iter().chain([Act::Lift]).collect())
    }

    /// What is to be written to disk, if anything.
    pub fn take_unsaved(&mut self) -> Option<Snapshot> {
        let account = self.account.clone().filter(|_| self.unsaved)?;
        self.unsaved = false;
        let entries = self.values.sealable().map(|(reference, kept)| (reference.clone(), kept.clone()));
        Some(Snapshot { account, entries: entries.collect() })
    }

    /// It could not be written.
    pub fn mark_unsaved(&mut self) {
        self.unsaved = true;
    }
}

#[cfg(test)]
mod tests;
