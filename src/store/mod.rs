//! The values: from memory, where they may be served without asking (`decide.rs` says), else from the provider.
//!
//! References that are asked for while a fetch is under way wait for it and then go together ([`fetch`]). [`state`] has
//! what is known, and decides what follows from what happens; this file and its siblings do it. What changed in memory
//! is written to disk after each fetch ([`disk`]). [`background`] renews values that nobody asks for.

mod awaited;
pub mod background;
pub mod breaker;
pub mod decide;
pub mod disk;
mod failure;
mod fetch;
pub mod kept;
mod owner;
pub mod renew;
pub mod sealed;
mod served;
mod source;
mod state;
mod successor;
mod under_way;
mod verdict;
pub mod versions;
mod wait;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tracing::warn;

pub use self::served::Served;
pub use self::under_way::Progress;

use self::breaker::Breaker;
use self::decide::{Limits, Settings};
use self::disk::{Disk, Trouble, Turn};
use self::kept::{Kept, Values};
use self::sealed::Contents;
use self::state::{Act, Acts, State};
use self::versions::Versions;
use crate::config::Timing;
use crate::counters::Origin;
use crate::moment::{Moment, Now, Setting};
use crate::policy::Grant;
use crate::providers::Provider;
use crate::providers::budget::Budget;
use crate::providers::ledger::Meter;
use crate::records;
use crate::reference::Reference;
use crate::secret::Secret;
use crate::template::Template;

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
    /// Where everything that takes time runs.
    pub runtime: Handle,
    /// The store of the configuration in force.
    pub in_force: InForce,
    pub disk: Arc<Disk>,
    pub meter: Meter,
    /// Counts what the mirror may want to know: values that changed, and configurations.
    pub changes: Arc<watch::Sender<u64>>,
    /// Told when a fetch begins.
    pub begun: Arc<Notify>,
}

/// What a store begins with.
pub struct Inherited {
    account: Option<String>,
    values: Vec<(Reference, Kept)>,
    /// See [`State::dated`].
    dated: Option<Setting>,
    /// Whether they may not be on disk, or not as they are.
    unsaved: bool,
    versions: Versions,
    /// Whether the provider worked, as far as it is the same.
    breaker: Breaker,
}

/// Which store others look at.
#[derive(Clone, Default)]
pub struct InForce(Arc<Mutex<Weak<Shared>>>);

struct Shared {
    runtime: Handle,
    provider: Arc<Provider>,
    timing: Timing,
    budget: Budget,
    meter: Meter,
    disk: Arc<Disk>,
    state: Mutex<State>,
    /// One fetch at a time; one that takes too long is not waited for.
    fetches: Semaphore,
    /// Whether the one whose turn it is has reached the provider.
    reached: AtomicBool,
    changes: Arc<watch::Sender<u64>>,
    begun: Arc<Notify>,
    /// Changes when the provider is found not to work.
    down: watch::Sender<()>,
    /// Changes when a value comes, or the provider is found to work.
    good_news: watch::Sender<()>,
    /// Wakes the background when there is something new to plan with.
    news: Arc<Notify>,
    /// The token is another one, which was not asked with yet.
    untried: AtomicBool,
    /// Another store has taken over: this one finishes what it has, and writes nothing.
    retired: AtomicBool,
    /// That store, or a later one.
    in_force: InForce,
    /// A save waits for its turn to write.
    save_waits: AtomicBool,
}

impl Store {
    pub fn new(provider: Arc<Provider>, rules: Rules, inherited: Inherited, base: &Base) -> Self {
        let Base { runtime, in_force, disk, meter, changes, begun } = base;
        let Rules { timing, budget, settings } = rules;
        let Inherited { account, values, dated, unsaved, mut versions, breaker } = inherited;
        for (reference, kept) in values.iter().filter(|(_, kept)| kept.denied.is_some()) {
            versions.was_denied(reference, &kept.value);
        }
        let current = provider.account();
        if let Some(account) = current.as_ref().or(account.as_ref()) {
            meter.ledger().belongs_to(account);
        }
        let count = values.len();
        let mut state = State::new(account, Values::new(settings, values), count);
        state.dated = dated;
        state.unsaved |= unsaved;
        state.versions = versions;
        state.breaker = breaker;
        let shared = Arc::new(Shared {
            runtime: runtime.clone(),
            provider,
            timing,
            budget,
            meter: meter.clone(),
            disk: disk.clone(),
            changes: changes.clone(),
            begun: begun.clone(),
            state: Mutex::new(state),
            fetches: Semaphore::new(1),
            reached: AtomicBool::new(false),
            down: watch::Sender::new(()),
            good_news: watch::Sender::new(()),
            news: Arc::default(),
            untried: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            in_force: in_force.clone(),
            save_waits: AtomicBool::new(false),
        });
        // What is inherited may be another account's, whose token was in force before.
        if let Some(current) = current {
            shared.state().belongs_to(&current);
        }
        runtime.spawn(background::keep_fresh(Arc::downgrade(&shared), shared.news.clone()));
        Self(shared)
    }

    /// What this store knows, for the one that replaces it. None of it counts as fresh: a reload asks what is true now.
    pub fn hand_over(&self) -> Inherited {
        self.0.retired.store(true, Ordering::Relaxed);
        self.0.news.notify_one();
        let state = self.0.state();
        let (account, values) = state.proven();
        // The other store begins anew with its numbers.
        let values =
            values.iter().map(|(of, kept)| (of.clone(), Kept { asked: 0, ..kept.clone() })).collect();
        // What was to be written is not written by this one any more.
        let account = account.map(str::to_owned);
        let versions = state.versions.clone();
        let breaker = state.breaker.handed_on(Moment::now());
        Inherited { account, values, dated: state.dated, unsaved: true, versions, breaker }.doubtful()
    }

    /// Another store has taken over. Who waits here waits for a fetch, and needs no more than that: what else is known is as large as
    /// the configuration.
    pub fn forget_all_but_fetched(&self) {
        self.0.state().forget_all_but_fetched();
    }

    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub fn provider(&self) -> &Arc<Provider> {
        &self.0.provider
    }

    pub fn deadline(&self) -> Duration {
        self.0.timing.deadline
    }

    /// A unit was refused for want of these: the background looks for them.
    pub fn await_values<'r>(&self, references: impl Iterator<Item = &'r Reference>) {
        let (limits, now) = (self.0.limits(), Now::read());
        let mut state = self.0.state();
        references.for_each(|reference| state.await_value(reference, &limits, now));
        drop(state);
        self.0.news.notify_one();
    }

    /// Whether a unit that was refused for want of this would be given it now.
    pub fn has(&self, content: &Template) -> bool {
        let (limits, now) = (self.0.limits(), Now::read());
        let state = self.0.state();
        content.references().all(|reference| state.has(reference, &limits, now))
    }

    pub fn print_of(&self, value: &Secret) -> u64 {
        self.0.state().versions.print_of(value)
    }

    /// Whether these values were given of one version of each item: those from before, by their hashes, and those that came last.
    /// If not, they are fetched anew.
    pub fn belong_together(&self, before: &[(Reference, u64)], now: &[Reference]) -> bool {
        let (together, acts) = {
            let mut state = self.0.state();
            let is_as_it_was =
                |(of, print): &(Reference, u64)| state.print(of).is_none_or(|now| now == *print);
            let all = || before.iter().map(|(of, _)| of).chain(now);
            let together = before.iter().all(is_as_it_was) && state.versions.agree(all());
            let mut acts = Acts::default();
            if !together && state.may_ask_anew(all(), &self.0.limits(), Now::read()) {
                all().for_each(|of| acts.0.extend(state.join_anew(of).1.0));
            }
            (together, acts)
        };
        self.0.act(acts);
        together
    }

    /// The newest value that is known, whether it may be served or not. One that is another each time is not.
    pub fn newest(&self, content: &Template) -> Option<Arc<Secret>> {
        let state = self.0.state();
        let newest = |reference: &Reference| {
            let kept = state.values.get(reference).filter(|_| !reference.is_momentary())?;
            Some(kept.value.clone())
        };
        let mut values = content.references().map(newest).collect::<Option<Vec<_>>>()?;
        drop(state);
        if content.as_plain().is_some() { values.pop() } else { Some(content.render(&values).ok()?.into()) }
    }

    /// The value, if it may be served from memory at once.
    pub fn ready(&self, grant: &Grant) -> Option<Served> {
        let content = &grant.entry().content;
        let (limits, now) = (self.0.limits(), Now::read());
        let state = self.0.state();
        let mut values = Vec::new();
        let (mut caveat, mut origin) = (None, Origin::Memory);
        for reference in content.references() {
            let part = state.served(reference, &limits, now)?;
            values.push(part.value);
            origin = origin.max(part.origin);
            caveat = caveat.or(part.caveat);
        }
        // What does not belong together is fetched anew.
        if values.len() > 1 && !state.versions.agree(content.references()) {
            return None;
        }
        drop(state);
        if content.as_plain().is_some() {
            return values.first().cloned().map(|value| Served { value, caveat, parts: values, origin });
        }
        Some(Served { value: content.render(&values).ok()?.into(), caveat, parts: values, origin })
    }

    /// Writes what is not on disk yet.
    pub async fn save(&self) {
        // It has said so.
        let _ = self.0.save().await;
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limits(&self) -> Limits<'_> {
        Limits { meter: &self.meter, budget: &self.budget, deadline: self.timing.deadline }
    }

    /// Does what follows from a change of the state, which is not locked meanwhile.
    fn act(self: &Arc<Self>, acts: Acts) {
        for act in acts.0 {
            match act {
                // This may be the thread that accepts, which is not the runtime's.
                Act::Fetch => drop(self.runtime.spawn(fetch::fetch(self.clone()))),
                Act::Deliver(wanted, outcome) => {
                    let is_good = outcome.is_ok();
                    wanted.deliver(outcome);
                    if is_good {
                        self.good_news.send_replace(());
                    }
                }
                Act::Changed => self.changes.send_modify(|count| *count += 1),
                Act::Limit(until) => self.meter.ledger().limit(Now::read(), until),
                Act::Lift => {
                    self.meter.ledger().lift();
                    self.good_news.send_replace(());
                }
                Act::Down(why) => {
                    if let Some(error) = why {
                        records::provider_down(&error);
                    }
                    self.down.send_replace(());
                    self.news.notify_one();
                }
                Act::Up => {
                    records::provider_up();
                    self.good_news.send_replace(());
                }
                // One that waits for its turn is enough.
                Act::Save if !self.save_waits.swap(true, Ordering::Relaxed) => {
                    let shared = self.clone();
                    self.runtime.spawn(async move { shared.save().await });
                }
                Act::Save => {}
                Act::Ended(progress, now) => records::fetched(&progress, now),
            }
        }
    }

    /// Writes what is not on disk yet; that goes on when nobody waits for it any more.
    async fn save(self: &Arc<Self>) -> Result<(), Trouble> {
        let (shared, turn) = (self.clone(), self.disk.turn().await);
        self.save_waits.store(false, Ordering::Relaxed);
        // If it panics, the process ends.
        tokio::task::spawn_blocking(move || shared.write(&turn)).await.unwrap_or(Ok(()))
    }

    fn write(&self, turn: &Turn) -> Result<(), Trouble> {
        let now = Now::read();
        // Whoever took over writes what it knows itself; the requests are those of both.
        let retired = self.retired.load(Ordering::Relaxed);
        let snapshot = if retired { None } else { self.state().take_unsaved(now) };
        let ledger = self.meter.ledger().clone();
        let wrote = self.disk.write(turn, snapshot.as_ref(), &ledger, now);
        let mut state = self.state();
        match &wrote {
            Err(_) if snapshot.is_some() => state.mark_unsaved(),
            // Whoever takes over gets the state first, for which it waits.
            Ok(()) if !state.unsaved && !self.retired.load(Ordering::Relaxed) => self.disk.is_saved(),
            _ => {}
        }
        wrote
    }
}

impl Inherited {
    /// What the disk holds, of whichever account.
    pub fn load(disk: &Disk, account: Option<String>) -> Self {
        let none = |account| Self {
            account,
            values: Vec::new(),
            dated: None,
            unsaved: false,
            versions: Versions::default(),
            breaker: Breaker::default(),
        };
        let Some(contents) = disk.load() else { return none(account) };
        if account.is_some_and(|account| account != contents.account) {
            let other = &contents.account;
            warn!("the sealed cache is not used: it belongs to another account ({other}) than the token");
        }
        let Contents { account, entries, dated, .. } = contents;
        Self { values: entries, dated, ..none(Some(account)) }
    }

    /// For a provider that was not asked yet.
    pub fn of_another_provider(self) -> Self {
        Self { breaker: Breaker::default(), ..self }
    }

    /// None of it counts as fresh.
    fn doubtful(mut self) -> Self {
        self.values.iter_mut().for_each(|(_, kept)| kept.doubtful = true);
        self
    }
}
