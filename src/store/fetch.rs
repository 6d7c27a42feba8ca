//! Fetches: one for any number of askers, and for all references that were asked for until it left.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::background::random;
use super::{Failure, Outcome, Shared, State};
use crate::moment::Moment;
use crate::providers::FetchError;
use crate::reference::Reference;
use crate::secret::Secret;
use crate::store::kept::{Asked, Memory};

/// How long to wait before the first of several further tries; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a fetch waits for the one before it.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Where the askers of one reference wait for it.
#[derive(Clone)]
pub struct Flight {
    arrival: watch::Receiver<Option<Outcome>>,
    /// Whether somebody waits who has nothing else to go by.
    urgent: Arc<AtomicBool>,
}

/// A reference that is to be fetched.
pub struct Passenger {
    reference: Reference,
    /// How many fetches and confirmations had begun: what the provider said to those is not what was asked for.
    boarded: u64,
    arrival: watch::Sender<Option<Outcome>>,
    urgent: Arc<AtomicBool>,
}

impl Flight {
    /// `None`: it was given up.
    pub async fn landed(&mut self) -> Option<Outcome> {
        self.arrival.wait_for(Option::is_some).await.ok()?.clone()
    }
}

impl Shared {
    /// Has a reference fetched, unless that is under way. `urgent`: what may pass is tried again until it does.
    pub fn board(self: &Arc<Self>, state: &mut State, reference: &Reference, urgent: bool) -> Flight {
        if let Some(flight) = state.flights.get(reference) {
            flight.urgent.fetch_or(urgent, Ordering::Relaxed);
            return flight.clone();
        }
        let (sender, arrival) = watch::channel(None);
        let flight = Flight { arrival, urgent: Arc::new(AtomicBool::new(urgent)) };
        state.flights.insert(reference.clone(), flight.clone());
        if state.boarding.is_empty() {
            tokio::spawn(fly(self.clone()));
        }
        state.boarding.push(Passenger {
            reference: reference.clone(),
            boarded: state.began,
            arrival: sender,
            urgent: flight.urgent.clone(),
        });
        flight
    }

    /// What was fetched with the token of another account is not ours to serve.
    fn check_account(&self) {
        let Some(account) = self.provider.account() else { return };
        let mut state = self.state();
        if state.account.as_ref().is_some_and(|known| *known != account) {
            let settings = state.memory.settings().clone();
            state.memory = Memory::new(settings, []);
            state.unsaved = true;
        }
        self.meter.ledger().belongs_to(&account);
        state.account = Some(account);
    }

    /// Asks which values still hold, if that tells about any that is wanted.
    async fn confirm(&self) -> Result<(), FetchError> {
        let (comparable, asked, now) = {
            let mut state = self.state();
            let comparable =
                |reference: &Reference| state.memory.get(reference).is_some_and(|e| e.comparable);
            if !state.boarding.iter().any(|passenger| comparable(&passenger.reference)) {
                return Ok(());
            }
            let known = state.memory.iter().filter(|(_, entry)| entry.comparable);
            let known: Vec<Reference> = known.map(|(reference, _)| reference.clone()).collect();
            (known, state.ask(), Moment::now())
        };
        let unchanged = self.provider.unchanged(&comparable).await?;
        let mut state = self.state();
        // From here on versions are compared with those of now. A value that was fetched earlier and arrives later is told
        // by the generation.
        state.generation += 1;
        let holds: HashSet<Reference> =
            comparable.into_iter().zip(unchanged).filter_map(|(known, same)| same.then_some(known)).collect();
        if state.memory.iter().all(|(reference, _)| holds.contains(reference)) {
            // As good as a round of the background.
            state.renewed = Some(now);
        }
        state.memory.confirm(&holds, asked);
        state.unsaved = true;
        Ok(())
    }

    /// Who boarded, but for those whose value was had since.
    fn leave(&self) -> Vec<Passenger> {
        let mut state = self.state();
        let State { memory, flights, boarding, .. } = &mut *state;
        let mut aboard = std::mem::take(boarding);
        aboard.retain(|Passenger { reference, boarded, arrival, .. }| {
            let had = memory.get(reference).filter(|entry| entry.asked > *boarded && entry.denied.is_none());
            let Some(entry) = had else { return true };
            flights.remove(reference);
            let _ = arrival.send(Some(Ok(entry.value.clone())));
            false
        });
        aboard
    }

    /// Learns from results, and hands them to whom they are for. What is worth another try stays aboard, if there is one.
    fn land(
        &self,
        aboard: Vec<Passenger>,
        results: Vec<Result<Secret, FetchError>>,
        asked: Asked,
        generation: u64,
        try_again: bool,
    ) -> Vec<Passenger> {
        let mut state = self.state();
        self.learn(&mut state, &results);
        let now = SystemTime::now();
        let mut staying = Vec::new();
        for (passenger, result) in aboard.into_iter().zip(results) {
            let reference = &passenger.reference;
            match &result {
                Ok(_) => drop(state.errors.remove(reference)),
                Err(error) => {
                    if !error.consequences().cached_may_stand_in {
                        state.memory.deny(reference, now);
                        state.unsaved = true;
                    }
                    let failure = Failure::of(error.clone(), Moment::now(), state.errors.get(reference));
                    state.errors.insert(reference.clone(), failure);
                }
            }
            if try_again && result.as_ref().is_err_and(|error| error.retry_in(Duration::ZERO).is_some()) {
                staying.push(passenger);
                continue;
            }
            state.flights.remove(reference);
            let outcome = result.map(Arc::new);
            if let Ok(value) = &outcome {
                let comparable = state.generation == generation;
                if state.memory.insert(reference, value.clone(), asked, comparable) {
                    self.changes.send_modify(|count| *count += 1);
                }
                state.unsaved = true;
            }
            // Nobody may be waiting any more.
            let _ = passenger.arrival.send(Some(outcome));
        }
        staying
    }

    /// What the results say about the provider: an answer of any kind speaks for it.
    fn learn(&self, state: &mut State, results: &[Result<Secret, FetchError>]) {
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
                self.meter.ledger().limit(SystemTime::now(), Moment::now(), until);
                // Not out of order, but nothing to wait for either.
                state.breaker.works();
                self.down.send_replace(());
                self.news.notify_one();
            }
            (None, Some(error)) if failures.len() == results.len() => {
                self.found_down(state, (*error).clone());
            }
            (None, _) if !results.is_empty() => self.found_up(state),
            (None, _) => {}
        }
    }
}

/// One fetch, for all that boarded until it left. It goes on when its askers leave, because the next one will want the
/// value too. What may pass, such as an outage, is tried again if somebody
/// waits who has no value that would do.
async fn fly(shared: Arc<Shared>) {
    let runway = timeout(PATIENCE, shared.runway.acquire()).await;
    let deadline = Instant::now() + shared.timing.deadline;
    // The last error is to arrive before the askers' own time is over: it says more than that.
    let last_try = deadline - shared.timing.deadline / 10;
    let late = FetchError::TimedOut(shared.timing.deadline);
    shared.check_account();
    // Who comes while the provider gets ready comes along.
    let ready = async {
        let now = SystemTime::now();
        let told = shared.meter.ledger().told_until(now, Moment::now());
        if let Some(wait) = told.and_then(|until| until.duration_since(now).ok()) {
            sleep(wait).await;
        }
        shared.provider.prepare().await?;
        shared.confirm().await
    };
    let mut prepared = timeout_at(deadline, ready).await.unwrap_or(Err(late.clone()));
    let mut aboard = shared.leave();
    if aboard.is_empty() && prepared.is_ok() {
        shared.found_up(&mut shared.state());
    }
    let mut pause = FIRST_PAUSE;
    while !aboard.is_empty() {
        let wanted: Vec<Reference> = aboard.iter().map(|passenger| passenger.reference.clone()).collect();
        let all = |error: FetchError| wanted.iter().map(|_| Err(error.clone())).collect();
        let (asked, generation) = {
            let mut state = shared.state();
            (state.ask(), state.generation)
        };
        let results: Vec<_> = match std::mem::replace(&mut prepared, Ok(())) {
            // A fetch would only fail in the same way once more.
            Err(error) => all(error),
            Ok(()) => {
                let fetch = timeout_at(deadline, shared.provider.fetch(wanted.clone())).await;
                fetch.unwrap_or_else(|_| all(late.clone()))
            }
        };
        let again =
            results.iter().filter_map(|result| result.as_ref().err()?.retry_in(jittered(pause))).max();
        let again = again.map(|pause| Instant::now() + pause).filter(|again| *again < last_try);
        let again = again.filter(|_| aboard.iter().any(|passenger| passenger.urgent.load(Ordering::Relaxed)));
        aboard = shared.land(aboard, results, asked, generation, again.is_some());
        let Some(again) = again else { break };
        sleep_until(again).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    // The next one need not wait for the disk.
    drop(runway);
    shared.save().await;
}

/// Between half of a pause and all of it, so that machines which failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + random() / 2.0)
}
