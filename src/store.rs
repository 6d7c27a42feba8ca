//! The values: memory first, else the provider, with one fetch for any number of simultaneous askers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::audit::Permit;
use crate::providers::{FetchError, Provider};
use crate::reference::Reference;
use crate::secret::Secret;
use crate::template::Template;

/// What is known, and what is being asked for. Values stay in memory until the configuration is reloaded.
pub struct Store(Arc<Shared>);

struct Shared {
    provider: Option<Provider>,
    /// How long one fetch may take.
    deadline: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    memory: HashMap<Reference, Arc<Secret>>,
    flights: HashMap<Reference, Flight>,
}

type Outcome = Result<Arc<Secret>, FetchError>;
/// Where the askers of one reference wait for it.
type Flight = watch::Receiver<Option<Outcome>>;

impl Store {
    pub fn new(provider: Option<Provider>, deadline: Duration) -> Self {
        Self(Arc::new(Shared { provider, deadline, state: Mutex::default() }))
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

    /// Starts one fetch for those of `references` that are neither known nor being fetched.
    fn board(&self, references: &[Reference]) {
        let mut state = self.0.state();
        let mut wanted: Vec<Reference> = Vec::new();
        let mut arrivals = Vec::new();
        for reference in references {
            if state.memory.contains_key(reference) || state.flights.contains_key(reference) {
                continue;
            }
            let (arrival, flight) = watch::channel(None);
            state.flights.insert(reference.clone(), flight);
            wanted.push(reference.clone());
            arrivals.push(arrival);
        }
        drop(state);
        if !wanted.is_empty() {
            tokio::spawn(fly(self.0.clone(), wanted, arrivals));
        }
    }
}

/// One fetch. It goes on when its askers leave, because the next one will want the value too.
async fn fly(shared: Arc<Shared>, wanted: Vec<Reference>, arrivals: Vec<watch::Sender<Option<Outcome>>>) {
    let results = match &shared.provider {
        None => wanted.iter().map(|_| Err(FetchError::Core { why: "no provider".into() })).collect(),
        Some(provider) => {
            let deadline = Instant::now() + shared.deadline;
            let late = || wanted.iter().map(|_| Err(FetchError::TimedOut(shared.deadline))).collect();
            timeout_at(deadline, provider.fetch(wanted.clone())).await.unwrap_or_else(|_| late())
        }
    };
    let mut state = shared.state();
    for ((reference, result), arrival) in wanted.into_iter().zip(results).zip(arrivals) {
        state.flights.remove(&reference);
        let outcome = result.map(Arc::new);
        if let Ok(value) = &outcome {
            state.memory.insert(reference, value.clone());
        }
        // Nobody may be waiting any more.
        let _ = arrival.send(Some(outcome));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
