//! The values: memory first, else the provider, with one fetch for any number of simultaneous askers.
//!
//! References that are asked for while a fetch is under way wait for it and then go together: a boot storm costs the provider
//! two fetches, not one for each secret.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::audit::Permit;
use crate::providers::{FetchError, Provider};
use crate::reference::Reference;
use crate::secret::Secret;
use crate::template::Template;

/// What is known, and what is being asked for. Values stay in memory until the configuration is reloaded; then they are
/// held against the versions of their vaults.
pub struct Store(Arc<Shared>);

struct Shared {
    provider: Arc<Provider>,
    /// How long one fetch may take.
    deadline: Duration,
    state: Mutex<State>,
    /// One fetch at a time, but for one that takes longer than [`PATIENCE`].
    runway: Semaphore,
}

#[derive(Default)]
struct State {
    memory: HashMap<Reference, Arc<Secret>>,
    flights: HashMap<Reference, Flight>,
    /// Values from before a reload, which the next fetch finds out about.
    unconfirmed: HashMap<Reference, Arc<Secret>>,
    /// What the next fetch will be for.
    boarding: Vec<Passenger>,
}

/// A reference that is being fetched, and where its askers wait.
type Passenger = (Reference, watch::Sender<Option<Outcome>>);

/// How long to wait before the first of several further tries; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a fetch waits for the one before it.
const PATIENCE: Duration = Duration::from_secs(2);

type Outcome = Result<Arc<Secret>, FetchError>;
/// Where the askers of one reference wait for it.
type Flight = watch::Receiver<Option<Outcome>>;

impl Store {
    pub fn new(provider: Provider, deadline: Duration) -> Self {
        Self::with(Arc::new(provider), deadline, State::default())
    }

    /// A store with the same provider, which trusts none of the values known so far until the provider confirms them.
    pub fn renewed(&self) -> Self {
        let old = self.0.state();
        let known = old.unconfirmed.iter().chain(&old.memory);
        let unconfirmed = known.map(|(reference, value)| (reference.clone(), value.clone())).collect();
        Self::with(self.0.provider.clone(), self.0.deadline, State { unconfirmed, ..State::default() })
    }

    pub fn deadline(&self) -> Duration {
        self.0.deadline
    }

    fn with(provider: Arc<Provider>, deadline: Duration, state: State) -> Self {
        Self(Arc::new(Shared { provider, deadline, state: Mutex::new(state), runway: Semaphore::new(1) }))
    }

    /// The value, if it can be had from memory at once.
    pub fn ready(&self, permit: &Permit) -> Option<Arc<Secret>> {
        let content = &permit.entry().content;
        let state = self.0.state();
        if let Some(reference) = content.as_plain() {
            return state.memory.get(reference).cloned();
        }
        let values: Option<Vec<_>> = content.references().map(|r| state.memory.get(r).cloned()).collect();
        content.render(&values?).ok().map(Arc::new)
    }

    /// The value, fetched where needed. Takes no longer than the deadline.
    pub async fn get(&self, permit: &Permit) -> Outcome {
        let deadline = self.0.deadline;
        timeout(deadline, self.collect(&permit.entry().content))
            .await
            .unwrap_or(Err(FetchError::TimedOut(deadline)))
    }

    async fn collect(&self, content: &Template) -> Outcome {
        let references: Vec<Reference> = content.references().cloned().collect();
        let mut values = Vec::with_capacity(references.len());
        self.board(&references);
        for reference in &references {
            values.push(self.wait(reference).await?);
        }
        match (content.as_plain(), &values[..]) {
            (Some(_), [value]) => Ok(value.clone()),
            _ => {
                let empty = |_| FetchError::Empty { reference: references[0].to_string() };
                content.render(&values).map(Arc::new).map_err(empty)
            }
        }
    }

    async fn wait(&self, reference: &Reference) -> Outcome {
        loop {
            let flight = {
                let state = self.0.state();
                if let Some(value) = state.memory.get(reference) {
                    return Ok(value.clone());
                }
                state.flights.get(reference).cloned()
            };
            let Some(mut flight) = flight else {
                self.board(std::slice::from_ref(reference));
                continue;
            };
            let landed = flight.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
            match landed {
                // A fetch that others began before us may run out of time while we still have some: begin another.
                None | Some(Err(FetchError::TimedOut(_))) => continue,
                Some(outcome) => return outcome,
            }
        }
    }

    /// Has those of `references` fetched that are neither known nor being fetched.
    fn board(&self, references: &[Reference]) {
        let mut state = self.0.state();
        let gathering = !state.boarding.is_empty();
        for reference in references {
            if state.memory.contains_key(reference) || state.flights.contains_key(reference) {
                continue;
            }
            let (arrival, flight) = watch::channel(None);
            state.flights.insert(reference.clone(), flight);
            state.boarding.push((reference.clone(), arrival));
        }
        if !gathering && !state.boarding.is_empty() {
            tokio::spawn(fly(self.0.clone()));
        }
    }
}

/// One fetch, for all that boarded until it left. It goes on when its askers leave, because the next one will want the
/// value too. What may pass, such as an outage, is tried again for as long as they can wait.
async fn fly(shared: Arc<Shared>) {
    let _runway = timeout(PATIENCE, shared.runway.acquire()).await;
    let deadline = Instant::now() + shared.deadline;
    // The last error is to arrive before the askers' own time is over: it says more than that.
    let last_try = deadline - shared.deadline / 10;
    let late = FetchError::TimedOut(shared.deadline);
    // Who comes while the provider gets ready comes along.
    let prepared = timeout_at(deadline, shared.provider.prepare()).await;
    let mut prepared = prepared.unwrap_or(Err(late.clone()));
    if prepared.is_ok() {
        let _ = timeout_at(deadline, shared.confirm()).await;
    }
    let mut aboard = shared.leave();
    let mut pause = FIRST_PAUSE;
    while !aboard.is_empty() {
        let wanted: Vec<Reference> = aboard.iter().map(|(reference, _)| reference.clone()).collect();
        let all = |error: FetchError| wanted.iter().map(|_| Err(error.clone())).collect();
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
        aboard = shared.land(aboard, results, again.is_some());
        let Some(again) = again else { return };
        sleep_until(again).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Between half of a pause and all of it, so that machines which failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 1000;
    pause / 2 + pause / 2 * random as u32 / 1000
}

impl Shared {
    /// Finds out which values from before a reload still hold, and forgets the others.
    async fn confirm(&self) {
        let unconfirmed: Vec<_> = std::mem::take(&mut self.state().unconfirmed).into_iter().collect();
        if unconfirmed.is_empty() {
            return;
        }
        let references: Vec<Reference> = unconfirmed.iter().map(|(reference, _)| reference.clone()).collect();
        let unchanged = self.provider.unchanged(&references).await;
        let confirmed =
            unconfirmed.into_iter().zip(unchanged).filter_map(|(known, same)| same.then_some(known));
        self.state().memory.extend(confirmed);
    }

    /// Who boarded, but for those whose value is known by now.
    fn leave(&self) -> Vec<Passenger> {
        let mut state = self.state();
        let State { memory, flights, boarding, .. } = &mut *state;
        let mut aboard = std::mem::take(boarding);
        aboard.retain(|(reference, arrival)| {
            let Some(value) = memory.get(reference) else { return true };
            flights.remove(reference);
            let _ = arrival.send(Some(Ok(value.clone())));
            false
        });
        aboard
    }

    /// Hands results to whom they are for. What is worth another try stays aboard, if there is one.
    fn land(
        &self,
        aboard: Vec<Passenger>,
        results: Vec<Result<Secret, FetchError>>,
        try_again: bool,
    ) -> Vec<Passenger> {
        let mut state = self.state();
        let mut staying = Vec::new();
        for ((reference, arrival), result) in aboard.into_iter().zip(results) {
            if try_again && result.as_ref().is_err_and(|error| error.retry_in(Duration::ZERO).is_some()) {
                staying.push((reference, arrival));
                continue;
            }
            state.flights.remove(&reference);
            let outcome = result.map(Arc::new);
            if let Ok(value) = &outcome
                && !reference.is_momentary()
            {
                state.memory.insert(reference, value.clone());
            }
            // Nobody may be waiting any more.
            let _ = arrival.send(Some(outcome));
        }
        staying
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
