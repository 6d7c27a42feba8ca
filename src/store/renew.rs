//! What the store tells about itself: never a value.

use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use super::Store;
use super::fetch::Flight;
use crate::control::interface::{self, Outcome, Provider, Renewal, State, Window};
use crate::moment::Moment;
use crate::policy::Entry;
use crate::providers::FetchError;
use crate::providers::ledger::Ledger;
use crate::reference::Reference;
use crate::remedy::Remedy;
use crate::secret::Secret;
use crate::store::decide::{Decision, Health, Keep};

impl Store {
    /// The provider, as far as the last requests tell.
    pub fn provider_report(&self, kind: &str) -> Provider {
        let now = SystemTime::now();
        let state = self.0.state();
        let down = state.breaker.down();
        Provider {
            kind: kind.to_owned(),
            account: state.account.clone().or_else(|| self.0.provider.account()),
            health: self.0.health(&state, now).into(),
            down_since: down.map(|down| seconds(down.since.date())),
            error: down.map(|down| down.error.lines()),
            next_refresh: state.next_refresh.map(|moment| seconds(moment.date())),
        }
    }

    pub fn cache_report(&self) -> interface::Cache {
        let state = self.0.state();
        let because = self.0.disk.unsealable();
        let keeps = |keep| state.memory.settings().values().any(|settings| settings.keep == keep);
        let because = because.or((!keeps(Keep::Sealed)).then_some("the configuration has nothing sealed"));
        interface::Cache {
            sealed: because.is_none(),
            unsealed_because: because.map(str::to_owned),
            in_memory: state.memory.iter().count() as u64,
            sealable: state.memory.sealable().count() as u64,
            written_at: self.0.disk.written().map(seconds),
        }
    }

    pub fn budget_report(&self) -> interface::Budget {
        let now = SystemTime::now();
        let ledger: Ledger = self.0.meter.ledger().clone();
        let window = |used: u32, limit: Option<u32>| Window {
            used: used.into(),
            left: limit.map(|limit| limit.saturating_sub(used).into()),
            limit: limit.map(Into::into),
        };
        interface::Budget {
            hour: window(ledger.last_hour(now), self.0.budget.hourly),
            day: window(ledger.last_day(now), self.0.budget.daily),
            limited_until: ledger.limited_until(now, Moment::now()).map(seconds),
        }
    }

    /// One secret or template: the worst of its references counts.
    pub fn secret_report(&self, entry: &Entry) -> interface::Secret {
        let now = SystemTime::now();
        let state = self.0.state();
        let health = self.0.health(&state, now);
        let known = |reference: &Reference| state.memory.get(reference).map(|entry| entry.known(now));
        let all = || entry.content.references();
        let is = |reference: &Reference| match state.memory.decide(reference, now, health) {
            Decision::Serve => State::Fresh,
            Decision::ServeAndRefresh | Decision::Fetch { fall_back: true } => State::Stale,
            Decision::Fetch { fall_back: false } => State::Missing,
            Decision::Refuse => State::Refused,
        };
        let oldest = all().filter_map(|reference| known(reference)?.age).max();
        let denied = all().filter_map(|reference| known(reference)?.denied_for).max();
        let error = all().find_map(|reference| state.errors.get(reference));
        interface::Secret {
            name: entry.name.clone(),
            state: all().map(is).max().unwrap_or(State::Missing),
            age: oldest.map(|age| age.as_secs()),
            denied_for: denied.map(|denied| denied.as_secs()),
            error: error.map(|failure| failure.error.lines()),
            error_at: error.map(|failure| seconds(failure.at.date())),
        }
    }

    /// Asks the provider for the values of these entries now; one fetch for all of them.
    pub async fn refresh(&self, entries: &[&Entry]) -> Vec<Renewal> {
        let board = |reference: &Reference| {
            let mut state = self.0.state();
            let kept = state.memory.settings().get(reference)?.keep > Keep::Never;
            let before = state.memory.get(reference).map(|entry| entry.value.clone());
            kept.then(|| (self.0.board(&mut state, reference, false), before))
        };
        let boarded: Vec<Vec<_>> =
            entries.iter().map(|entry| entry.content.references().map(board).collect()).collect();
        let mut renewals = Vec::new();
        for (entry, flights) in entries.iter().zip(boarded) {
            let mut renewal = Renewal { name: entry.name.clone(), outcome: Outcome::NotKept, error: None };
            for (flight, before) in flights.into_iter().flatten() {
                let (outcome, error) = self.landed(flight, before.as_deref()).await;
                renewal.outcome = renewal.outcome.max(outcome);
                renewal.error = renewal.error.or(error);
            }
            renewals.push(renewal);
        }
        // Who is told that a value was renewed may rely on it after a power cut, too.
        self.save().await;
        renewals
    }

    /// What a refresh would bring; nothing is kept of it.
    pub async fn peek(&self, entries: &[&Entry]) -> Vec<Renewal> {
        let keeps = |reference: &&Reference| {
            let state = self.0.state();
            state.memory.settings().get(*reference).is_some_and(|settings| settings.keep > Keep::Never)
        };
        let all = entries.iter().flat_map(|entry| entry.content.references());
        let mut wanted: Vec<Reference> = all.filter(keeps).cloned().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let late = FetchError::TimedOut(self.deadline());
        let fetch = async {
            match self.0.provider.prepare().await {
                Ok(()) => self.0.provider.fetch(wanted.clone()).await,
                Err(error) => wanted.iter().map(|_| Err(error.clone())).collect(),
            }
        };
        let fetched = timeout(self.deadline(), fetch).await;
        let fetched = fetched.unwrap_or_else(|_| wanted.iter().map(|_| Err(late.clone())).collect());
        let state = self.0.state();
        let renewal = |entry: &&Entry| {
            let mut renewal = Renewal { name: entry.name.clone(), outcome: Outcome::NotKept, error: None };
            for reference in entry.content.references() {
                let Ok(at) = wanted.binary_search(reference) else { continue };
                let before = state.memory.get(reference).map(|entry| &*entry.value);
                let (outcome, error) = compare(Some(fetched[at].as_ref()), before);
                renewal.outcome = renewal.outcome.max(outcome);
                renewal.error = renewal.error.or(error);
            }
            renewal
        };
        entries.iter().map(renewal).collect()
    }

    async fn landed(&self, mut flight: Flight, before: Option<&Secret>) -> (Outcome, Option<String>) {
        let landed = flight.landed().await;
        compare(landed.as_ref().map(|outcome| outcome.as_ref().map(|value| &**value)), before)
    }
}

/// What a fetch brought, held against what was kept.
fn compare(now: Option<Result<&Secret, &FetchError>>, before: Option<&Secret>) -> (Outcome, Option<String>) {
    match (now, before) {
        (Some(Ok(now)), Some(before)) if now.is_same_as(before) => (Outcome::Unchanged, None),
        (Some(Ok(_)), Some(_)) => (Outcome::Changed, None),
        (Some(Ok(_)), None) => (Outcome::Fetched, None),
        (Some(Err(error)), _) => (Outcome::Failed, Some(error.lines())),
        (None, _) => (Outcome::Failed, Some("the fetch was given up".to_owned())),
    }
}

impl From<Health> for interface::Health {
    fn from(health: Health) -> Self {
        match health {
            Health::Up => Self::Up,
            Health::Down => Self::Down,
            Health::Spent => Self::Spent,
            Health::Limited => Self::Limited,
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since: Duration| since.as_secs())
}
