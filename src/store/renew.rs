//! What administrators ask of the store: to renew values now, and to report its state. They never get a value.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::breaker::Down;
use super::decide::{Decision, Health, Keep};
use super::disk::Trouble;
use super::failure::Failure;
use super::state::Acts;
use super::{Progress, Store};
use crate::moment::{Moment, Now};
use crate::policy::Entry;
use crate::providers::FetchError;
use crate::providers::budget::Budget;
use crate::providers::ledger::Ledger;
use crate::reference::Reference;
use crate::remedy::Remedy;
use crate::secret::Secret;

/// How many secrets are looked at while the state is locked.
const TOGETHER: usize = 16;

/// What became of one secret or template.
pub struct Renewal {
    pub name: String,
    pub outcome: Outcome,
    /// Why it failed.
    pub error: Option<String>,
    /// What kind of error that is, if it is one of fetching.
    pub kind: Option<&'static str>,
}

/// For a template, the outcome of one of its references that comes last in this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It is never kept: every start asks 1Password.
    NotKept,
    Unchanged,
    /// There was no value before.
    Fetched,
    /// The value differs from the one before.
    Changed,
    /// It could not be fetched; what was kept stays.
    Failed,
}

/// How the provider is, as far as the last requests tell.
pub struct ProviderReport {
    pub account: Option<String>,
    /// The account before, of which values are still kept and none is served.
    pub account_before: Option<String>,
    pub health: Health,
    pub down: Option<Down>,
    /// What is wrong with the token, if one is needed.
    pub token_error: Option<FetchError>,
    /// Before when it is not to be asked again, as it said itself.
    pub told_until: Option<Moment>,
    pub next_refresh: Option<Moment>,
}

pub struct CacheReport {
    /// Why nothing is sealed on disk, if that is so.
    pub unsealed_because: Option<String>,
    pub in_memory: usize,
    pub sealable: usize,
    pub written: Option<SystemTime>,
    /// How many values that file has; `None`: that is not known.
    pub on_disk: Option<usize>,
    /// Why and since when nothing can be written, if that is so.
    pub trouble: Option<Trouble>,
}

/// The state of one secret or template, by its references.
pub struct SecretReport {
    pub decisions: Vec<Decision>,
    /// Of the oldest value.
    pub age: Option<Duration>,
    pub denied_for: Option<Duration>,
    pub failure: Option<Failure>,
    /// Whether a unit would be given it now, as far as the last answers tell.
    pub is_servable: bool,
}

impl ProviderReport {
    /// Whether it gives what it is asked for, as far as its last answers tell.
    pub fn answers(&self, limited: bool) -> bool {
        // A budget that is used up keeps no start from asking, unlike a limit of the provider's.
        let is_up = self.health == Health::Up || self.health == Health::Spent && !limited;
        is_up && self.token_error.is_none()
    }
}

impl Store {
    pub fn provider_report(&self) -> ProviderReport {
        // Not while the state is locked: the token may be in a file.
        let token_error = self.0.provider.token_error();
        let now = Now::read();
        let told_until = self.0.meter.ledger().told_until(now);
        let state = self.0.state();
        ProviderReport {
            account: state.account.clone().or_else(|| self.0.provider.account()),
            account_before: state.former.as_ref().map(|(account, _)| account.clone()),
            health: state.health(&self.0.limits(), now),
            down: state.breaker.down().cloned(),
            token_error,
            told_until,
            next_refresh: state.next_refresh,
        }
    }

    pub fn cache_report(&self) -> CacheReport {
        // Not while the state is locked: the disk may stall.
        let written = self.0.disk.written_at();
        let state = self.0.state();
        let keeps = |keep| state.values.settings().values().any(|settings| settings.keep == keep);
        let because = self.0.disk.unsealable();
        let because = because.or((!keeps(Keep::Sealed)).then_some("the configuration has nothing sealed"));
        CacheReport {
            unsealed_because: because.map(str::to_owned),
            in_memory: state.values.iter().count(),
            sealable: state.values.sealable().count(),
            written,
            on_disk: written.map_or(Some(0), |_| self.0.disk.holds()),
            trouble: self.0.disk.trouble(),
        }
    }

    /// How many of these no unit would be given now, as far as the last answers tell.
    pub fn unservable<'e>(&self, entries: impl Iterator<Item = &'e Entry>) -> usize {
        let (answers, limits) = (self.answers(), self.0.limits());
        let mut entries = entries.peekable();
        let mut count = 0;
        // Answers from memory are not to wait for all of them.
        while entries.peek().is_some() {
            let (state, now) = (self.0.state(), Now::read());
            let servable = state.servable(&limits, now, answers);
            let is_servable = |entry: &&Entry| entry.content.references().all(&servable);
            count += entries.by_ref().take(TOGETHER).filter(|entry| !is_servable(entry)).count();
        }
        count
    }

    pub fn is_down(&self) -> bool {
        self.0.state().breaker.down().is_some()
    }

    /// How far what is being fetched is; `None`: nothing is.
    pub fn progress(&self) -> Option<Progress> {
        self.0.state().fetching.progress()
    }

    /// How many requests may be made, and how many were.
    pub fn budget(&self) -> (Budget, Ledger) {
        (self.0.budget, self.0.meter.ledger().clone())
    }

    /// Whether the provider gives what it is asked for, as far as its last answers tell: see [`Self::secret_report`].
    pub fn answers(&self) -> bool {
        let limited = self.0.meter.ledger().limited_until(Now::read()).is_some();
        self.provider_report().answers(limited)
    }

    /// `answers`: the provider gives what it is asked for, see [`Self::answers`].
    pub fn secret_report(&self, entry: &Entry, answers: bool) -> SecretReport {
        let now = Now::read();
        let state = self.0.state();
        let limits = self.0.limits();
        let known = |reference: &Reference| state.values.get(reference).map(|kept| kept.known(now));
        let all = || entry.content.references();
        SecretReport {
            is_servable: all().all(state.servable(&limits, now, answers)),
            decisions: all().map(|reference| state.decide(reference, &limits, now)).collect(),
            age: all().filter_map(|reference| known(reference)?.age).max(),
            denied_for: all().filter_map(|reference| known(reference)?.denied_for).max(),
            failure: all().find_map(|reference| state.failures.get(reference)).cloned(),
        }
    }

    /// Asks the provider for the values of these entries now; one fetch for all of them.
    pub async fn refresh(&self, entries: &[&Entry]) -> Vec<Renewal> {
        let mut all = Acts::default();
        let mut join = |reference: &Reference| {
            let mut state = self.0.state();
            if state.values.settings().get(reference)?.keep == Keep::Never {
                // A unit that was refused is helped now all the same.
                state.failures.remove(reference);
                self.0.news.notify_one();
                return None;
            }
            let before = state.values.get(reference).map(|kept| kept.value.clone());
            let (waiter, acts) = state.join_anew(reference);
            all.0.extend(acts.0);
            Some((waiter, before))
        };
        let joined: Vec<Vec<_>> =
            entries.iter().map(|entry| entry.content.references().map(&mut join).collect()).collect();
        self.0.act(all);
        let mut renewals = Vec::new();
        for (entry, waiters) in entries.iter().zip(joined) {
            let mut renewal = Renewal::of(entry);
            for (mut waiter, before) in waiters.into_iter().flatten() {
                let outcome = waiter.outcome().await;
                let now = outcome.as_ref().map(|outcome| outcome.as_ref().map(|value| &**value));
                renewal.add(now, before.as_deref());
            }
            renewals.push(renewal);
        }
        // Whoever is told that a value was renewed may rely on it after a power cut, too.
        let saved = self.0.save().await;
        if self.0.retired.load(Ordering::Relaxed) {
            let why = "the configuration was replaced meanwhile: refresh once more";
            renewals.iter_mut().for_each(|renewal| renewal.fails(why));
        } else if let (Err(trouble), Some(_)) = (saved, self.0.state().values.sealable().next()) {
            let why = format!("it is served, but nothing can be written to disk: {}", trouble.why);
            // What is never kept is not to be there.
            for renewal in renewals.iter_mut().filter(|renewal| renewal.outcome != Outcome::NotKept) {
                renewal.error.get_or_insert_with(|| why.clone());
            }
        }
        renewals
    }

    /// What a refresh would bring, and what a start would get of what is never kept; nothing of it is kept.
    pub async fn peek(&self, entries: &[&Entry]) -> Vec<Renewal> {
        let mut wanted: Vec<Reference> =
            entries.iter().flat_map(|entry| entry.content.references()).cloned().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let fetched = self.0.provider.fetch_all(&wanted, self.deadline()).await;
        let state = self.0.state();
        let keeps = |reference: &Reference| {
            state.values.settings().get(reference).is_some_and(|settings| settings.keep > Keep::Never)
        };
        let renewal = |entry: &&Entry| {
            let mut renewal = Renewal::of(entry);
            for reference in entry.content.references() {
                let Ok(at) = wanted.binary_search(reference) else { continue };
                let before = state.values.get(reference).map(|kept| &*kept.value);
                if fetched[at].is_err() || keeps(reference) {
                    renewal.add(Some(fetched[at].as_ref()), before);
                }
            }
            renewal
        };
        entries.iter().map(renewal).collect()
    }
}

impl Renewal {
    fn fails(&mut self, why: &str) {
        self.outcome = Outcome::Failed;
        self.error = Some(why.to_owned());
    }

    fn of(entry: &Entry) -> Self {
        Self { name: entry.name.clone(), outcome: Outcome::NotKept, error: None, kind: None }
    }

    /// What a fetch brought for one reference, compared with what was kept. `None`: the fetch was given up.
    fn add(&mut self, now: Option<Result<&Secret, &FetchError>>, before: Option<&Secret>) {
        let (outcome, error) = match (now, before) {
            (Some(Ok(now)), Some(before)) if now.is_same_as(before) => (Outcome::Unchanged, None),
            (Some(Ok(_)), Some(_)) => (Outcome::Changed, None),
            (Some(Ok(_)), None) => (Outcome::Fetched, None),
            (Some(Err(error)), _) => (Outcome::Failed, Some(error.lines())),
            (None, _) => (Outcome::Failed, Some("the fetch was given up".to_owned())),
        };
        self.outcome = self.outcome.max(outcome);
        if self.error.is_none() {
            self.kind = now.and_then(|now| now.err()).map(FetchError::kind);
            self.error = error;
        }
    }
}
