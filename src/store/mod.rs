//! The values: from memory, where they may be served without asking (`decide.rs` says), else from the provider.
//!
//! References that are asked for while a fetch is under way wait for it and then go together ([`fetch`]). What
//! changed in memory is written to disk after each fetch ([`disk`]). [`background`] renews values that nobody asks for.

pub mod background;
pub mod breaker;
pub mod decide;
pub mod disk;
mod fetch;
pub mod kept;
mod renew;
pub mod sealed;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::select;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{error, info, warn};

use self::disk::{Disk, Snapshot};
use self::fetch::{Flight, Passenger};
use crate::config::Timing;
use crate::moment::Moment;
use crate::policy::Grant;
use crate::providers::budget::{Budget, Purpose};
use crate::providers::ledger::Meter;
use crate::providers::{FetchError, Provider};
use crate::quote::RenderError;
use crate::reference::Reference;
use crate::remedy::Remedy;
use crate::secret::Secret;
use crate::store::breaker::Breaker;
use crate::store::decide::{Decision, Health, Settings};
use crate::store::kept::{Asked, Entry, Memory};

/// What is known, and what is being asked for.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

/// What a configuration says about values.
pub struct Rules {
    pub timing: Timing,
    pub budget: Budget,
    pub settings: HashMap<Reference, Settings>,
}

/// What stays through reloads.
pub struct Base {
    /// Where everything runs that takes time.
    pub runtime: Handle,
    pub disk: Arc<Disk>,
    pub meter: Meter,
    /// Counts what the mirror may want to know: values that changed, and configurations.
    pub changes: Arc<watch::Sender<u64>>,
}

/// What a store goes on from.
pub struct Heritage {
    account: Option<String>,
    entries: Vec<(Reference, Entry)>,
}

struct Shared {
    provider: Arc<Provider>,
    timing: Timing,
    budget: Budget,
    meter: Meter,
    disk: Arc<Disk>,
    state: Mutex<State>,
    /// One fetch at a time, but for one that takes longer than [`fetch::PATIENCE`].
    runway: Semaphore,
    /// Counts what the mirror may want to know: values that changed.
    changes: Arc<watch::Sender<u64>>,
    /// Rung when the provider is found not to work.
    down: watch::Sender<()>,
    /// Wakes the background when there is something new to plan with.
    news: Arc<Notify>,
    /// Another store has taken over: this one finishes what it has, and writes nothing.
    retired: AtomicBool,
    saving: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Whose values they are; not known before there is a token.
    account: Option<String>,
    memory: Memory,
    breaker: Breaker,
    /// Why the last fetch of a reference failed.
    errors: HashMap<Reference, Failure>,
    flights: HashMap<Reference, Flight>,
    /// What the next fetch will be for.
    boarding: Vec<Passenger>,
    /// Counts the fetches and confirmations that began. What began before what is told by this: the wall clock can be set
    /// back between the two.
    began: u64,
    /// How often the provider was asked what changed.
    generation: u64,
    /// When all values that are kept were last found to hold.
    renewed: Option<Moment>,
    /// When values are renewed next in the background.
    next_refresh: Option<Moment>,
    /// Whether memory has changed since it was written to disk.
    unsaved: bool,
}

/// A fetch that failed.
struct Failure {
    error: FetchError,
    at: Moment,
    /// How often in a row 1Password has said that there is no such value.
    denials: u32,
}

/// How long a value that 1Password has denied twice is not asked for again by units; each next time twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

impl Failure {
    fn of(error: FetchError, at: Moment, last: Option<&Self>) -> Self {
        let denied = !error.consequences().cached_may_stand_in;
        let before = last.map_or(0, |last| last.denials);
        Self { error, at, denials: if denied { before + 1 } else { 0 } }
    }

    /// Whether it is too early to ask again. A unit that systemd starts again and again, for a value that is not there,
    /// must not use up the limits of the account.
    fn stands(&self, now: Moment) -> bool {
        let Some(doublings) = self.denials.checked_sub(2) else { return false };
        let pause = FIRST_PAUSE.saturating_mul(1 << doublings.min(16)).min(LONGEST_PAUSE);
        now.since(self.at) < pause
    }
}

/// A value for a unit.
pub struct Served {
    pub value: Arc<Secret>,
    /// What is to be said about it.
    pub caveat: Option<Caveat>,
}

/// The value is an older one, because 1Password could not be asked.
#[derive(Debug)]
pub struct Caveat {
    pub reference: Reference,
    pub age: Option<Duration>,
    why: String,
}

impl fmt::Display for Caveat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the value of {} is ", self.reference)?;
        match self.age {
            Some(age) => {
                write!(f, "{} old", humantime::format_duration(Duration::from_secs(age.as_secs())))?;
            }
            None => f.write_str("of unknown age")?,
        }
        write!(f, ": {}", self.why)
    }
}

/// Where a request is to get the value of one reference.
enum Source {
    Kept(Served),
    Flight(Flight),
    /// From the fetch, unless the provider is found not to work.
    FlightOrKept(Flight, watch::Receiver<()>),
}

type Outcome = Result<Arc<Secret>, FetchError>;

impl Store {
    pub fn new(provider: Arc<Provider>, rules: Rules, heritage: Heritage, base: &Base) -> Self {
        let Base { runtime, disk, meter, changes } = base;
        let Rules { timing, budget, settings } = rules;
        let Heritage { account, entries } = heritage;
        if let Some(account) = &account {
            meter.ledger().belongs_to(account);
        }
        let count = entries.len();
        let memory = Memory::new(settings, entries);
        // What left the configuration leaves the disk.
        let unsaved = memory.sealable().count() != count;
        let shared = Arc::new(Shared {
            provider,
            timing,
            budget,
            meter: meter.clone(),
            disk: disk.clone(),
            changes: changes.clone(),
            state: Mutex::new(State { account, memory, unsaved, ..State::default() }),
            runway: Semaphore::new(1),
            down: watch::Sender::new(()),
            news: Arc::default(),
            retired: AtomicBool::new(false),
            saving: tokio::sync::Mutex::default(),
        });
        runtime.spawn(background::keep_fresh(Arc::downgrade(&shared), shared.news.clone()));
        Self(shared)
    }

    /// What this store knows, for another one to go on from. None of it counts as fresh: a reload asks what is true now.
    pub fn hand_over(&self) -> Heritage {
        self.0.retired.store(true, Ordering::Relaxed);
        self.0.news.notify_one();
        let state = self.0.state();
        let doubtful = |(reference, entry): (&Reference, &Entry)| {
            // The numbers of another store begin anew.
            (reference.clone(), Entry { doubtful: true, asked: 0, ..entry.clone() })
        };
        Heritage { account: state.account.clone(), entries: state.memory.iter().map(doubtful).collect() }
    }

    pub fn provider(&self) -> &Arc<Provider> {
        &self.0.provider
    }

    pub fn deadline(&self) -> Duration {
        self.0.timing.deadline
    }

    /// The value, if it can be had from memory at once.
    pub fn ready(&self, grant: &Grant) -> Option<Served> {
        let content = &grant.entry().content;
        let now = SystemTime::now();
        let state = self.0.state();
        let mut values = Vec::new();
        let mut caveat = None;
        for reference in content.references() {
            let served = self.0.kept(&state, reference, now)?;
            values.push(served.value);
            caveat = caveat.or(served.caveat);
        }
        if content.as_plain().is_some() {
            return values.pop().map(|value| Served { value, caveat });
        }
        Some(Served { value: content.render(&values).ok()?.into(), caveat })
    }

    /// The value, fetched where needed. Takes no longer than the deadline.
    pub async fn get(&self, grant: &Grant) -> Result<Served, FetchError> {
        let deadline = self.deadline();
        timeout(deadline, self.collect(grant)).await.unwrap_or(Err(FetchError::TimedOut(deadline)))
    }

    async fn collect(&self, grant: &Grant) -> Result<Served, FetchError> {
        let content = &grant.entry().content;
        let patience = Instant::now() + self.0.timing.short_deadline;
        let mut sources = Vec::new();
        // All of them before the first is waited for, so that they go together.
        for reference in content.references() {
            sources.push((reference, self.source(reference)?));
        }
        let mut values = Vec::with_capacity(sources.len());
        let mut caveat = None;
        for (reference, source) in sources {
            let served = match source {
                Source::Kept(served) => served,
                Source::Flight(flight) => {
                    Served { value: self.0.wait(reference, flight).await?, caveat: None }
                }
                Source::FlightOrKept(flight, down) => {
                    self.0.wait_briefly(reference, flight, down, patience).await?
                }
            };
            values.push(served.value);
            caveat = caveat.or(served.caveat);
        }
        if let (Some(_), [value]) = (content.as_plain(), &values[..]) {
            return Ok(Served { value: value.clone(), caveat });
        }
        let named = grant.entry().name.clone();
        let value = content.render(&values).map_err(|error| match error {
            RenderError::Empty(_) => FetchError::Empty { reference: named },
            RenderError::NoText => FetchError::Malformed { reference: named, what: error.to_string() },
        })?;
        Ok(Served { value: value.into(), caveat })
    }

    fn source(&self, reference: &Reference) -> Result<Source, FetchError> {
        let now = SystemTime::now();
        let mut state = self.0.state();
        if let Some(served) = self.0.kept(&state, reference, now) {
            return Ok(Source::Kept(served));
        }
        match state.memory.decide(reference, now, self.0.health(&state, now)) {
            Decision::Refuse => {
                Err(FetchError::RateLimited { until: self.0.meter.ledger().told_until(now, Moment::now()) })
            }
            Decision::Fetch { fall_back: true } => {
                let down = self.0.down.subscribe();
                Ok(Source::FlightOrKept(self.0.board(&mut state, reference, false), down))
            }
            _ => {
                let stands = state.errors.get(reference).filter(|failure| failure.stands(Moment::now()));
                let Some(error) = stands.map(|failure| failure.error.clone()) else {
                    return Ok(Source::Flight(self.0.board(&mut state, reference, true)));
                };
                // It is as if 1Password had said so once more: the grace may be over.
                if state.memory.deny(reference, now) {
                    state.unsaved = true;
                    let shared = self.0.clone();
                    tokio::spawn(async move { shared.save().await });
                }
                Err(error)
            }
        }
    }

    /// Writes what is not on disk yet.
    pub async fn save(&self) {
        self.0.save().await;
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self, state: &State, now: SystemTime) -> Health {
        let (ledger, moment) = (self.meter.ledger(), Moment::now());
        let affords = || ledger.affords(now, &self.budget, 1, Purpose::Start);
        // A limit that is over before a unit's time is can be waited for.
        if ledger.told_until(now, moment).is_some_and(|until| until > now + self.timing.deadline) {
            Health::Limited
        } else if state.breaker.down().is_some() {
            Health::Down
        } else if ledger.limited_until(now, moment).is_some() || !affords() {
            Health::Spent
        } else {
            Health::Up
        }
    }

    /// The value that is kept, if it is to be served without asking.
    fn kept(&self, state: &State, reference: &Reference, now: SystemTime) -> Option<Served> {
        let value = || state.memory.get(reference).map(|entry| entry.value.clone());
        // What is fresh is served however the provider is; only else is it looked at.
        if state.memory.decide(reference, now, Health::Up) == Decision::Serve {
            return Some(Served { value: value()?, caveat: None });
        }
        let health = self.health(state, now);
        if state.memory.decide(reference, now, health) != Decision::ServeAndRefresh {
            return None;
        }
        let limited = self.meter.ledger().limited_until(now, Moment::now());
        let why = match (limited, state.breaker.down()) {
            (Some(until), _) => FetchError::RateLimited { until: Some(until) }.line(),
            (None, Some(down)) => down.error.line(),
            (None, None) => "this machine's budget of requests is used up".to_owned(),
        };
        self.stand_in(state, reference, now, why)
    }

    fn stand_in(&self, state: &State, reference: &Reference, now: SystemTime, why: String) -> Option<Served> {
        let entry = state.memory.get(reference)?;
        let caveat = Caveat { reference: reference.clone(), age: entry.known(now).age, why };
        Some(Served { value: entry.value.clone(), caveat: Some(caveat) })
    }

    /// Waits for a fetch for as long as the caller lets us.
    async fn wait(self: &Arc<Self>, reference: &Reference, mut flight: Flight) -> Outcome {
        loop {
            match flight.landed().await {
                // A fetch that others began before us may run out of time while we still have some: begin another.
                None | Some(Err(FetchError::TimedOut(_))) => {
                    flight = self.board(&mut self.state(), reference, true);
                }
                Some(outcome) => return outcome,
            }
        }
    }

    /// Waits for a fetch until it fails, the provider is found not to work, or patience ends; then the value that is kept
    /// does, unless 1Password says that there is none.
    async fn wait_briefly(
        &self,
        reference: &Reference,
        mut flight: Flight,
        mut down: watch::Receiver<()>,
        patience: Instant,
    ) -> Result<Served, FetchError> {
        let landed = async {
            select! {
                biased;
                landed = flight.landed() => landed,
                _ = down.changed() => None,
            }
        };
        let late = || FetchError::TimedOut(self.timing.short_deadline);
        let error = match timeout_at(patience, landed).await {
            Ok(Some(Ok(value))) => return Ok(Served { value, caveat: None }),
            Ok(Some(Err(error))) => error,
            Ok(None) => self.state().breaker.down().map_or_else(late, |down| down.error.clone()),
            Err(_) => {
                let mut state = self.state();
                // The first to lose patience says so for all.
                if state.breaker.down().is_none() {
                    self.found_down(&mut state, late());
                }
                late()
            }
        };
        // Denied for longer than the grace, it is not kept any more.
        let state = self.state();
        self.stand_in(&state, reference, SystemTime::now(), error.line()).ok_or(error)
    }

    /// The provider does not work: who has a value that will do need not wait for it.
    fn found_down(&self, state: &mut State, error: FetchError) {
        if state.breaker.down().is_none() {
            let why = error.line();
            warn!(
                message_id = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c0b",
                "values come from the cache where they can: {why}"
            );
        }
        state.breaker.fails(Moment::now(), error, background::random());
        self.down.send_replace(());
        self.news.notify_one();
    }

    fn found_up(&self, state: &mut State) {
        if state.breaker.down().is_some() {
            info!(message_id = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c0c", "values come from the provider again");
        }
        state.breaker.works();
        self.meter.ledger().lift();
    }

    async fn save(&self) {
        // One after the other, so that the last one to write is the last to have looked.
        let _saving = self.saving.lock().await;
        if self.retired.load(Ordering::Relaxed) {
            return;
        }
        let ledger = self.meter.ledger().clone();
        let snapshot = self.state().snapshot();
        let disk = self.disk.clone();
        let write = tokio::task::spawn_blocking(move || {
            let cache = snapshot.map_or(Ok(()), |snapshot| disk.save_cache(&snapshot));
            (cache, disk.save_ledger(&ledger))
        });
        let Ok((cache, ledger)) = write.await else { return };
        if let Err(error) = cache {
            self.state().unsaved = true;
            error!("the sealed cache cannot be written: {error}");
        }
        if let Err(error) = ledger {
            warn!("how many requests were made cannot be written: {error}");
        }
    }
}

impl State {
    /// A fetch or a confirmation begins.
    fn ask(&mut self) -> Asked {
        self.began += 1;
        Asked { number: self.began, at: SystemTime::now() }
    }

    /// What is to be written, if anything.
    fn snapshot(&mut self) -> Option<Snapshot> {
        let account = self.account.clone().filter(|_| self.unsaved)?;
        self.unsaved = false;
        let entries = self.memory.sealable().map(|(reference, entry)| (reference.clone(), entry.clone()));
        Some(Snapshot { account, entries: entries.collect() })
    }
}

impl Heritage {
    /// What the disk holds of this account, or of whichever it is if that is not known.
    pub fn load(disk: &Disk, account: Option<String>) -> Self {
        let Some(contents) = disk.load() else { return Self { account, entries: Vec::new() } };
        match account {
            Some(account) if account != contents.account => {
                warn!(
                    "the sealed cache is not used: it is of another account ({}) than the token",
                    contents.account
                );
                Self { account: Some(account), entries: Vec::new() }
            }
            _ => Self { account: Some(contents.account), entries: contents.entries },
        }
    }
}
