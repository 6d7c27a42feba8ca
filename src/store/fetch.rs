//! Fetches: one for any number of units that wait, and for all references that were asked for until it began.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::select;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Shared;
use super::state::{Act, Acts, Begun, Wanted};
use crate::moment::{Moment, Now};
use crate::process::random;
use crate::providers::FetchError;
use crate::providers::ask::resolve::Fetched;
use crate::records;
use crate::reference::{Kind, Reference};

/// How long to wait before the second try; then twice as long before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long before the deadline the last try begins, at most: its error, which says more than that the time is over, is to arrive
/// while somebody waits.
const LAST_TRY: Duration = Duration::from_secs(3);
/// How long a fetch waits for the one before it, at most.
const PATIENCE: Duration = Duration::from_secs(2);
/// How soon what has come is written while other values are waited for.
const SAVE: Duration = Duration::from_secs(1);
/// A fetch that takes so long, and is for many, says so.
const LONG: Duration = Duration::from_secs(3);
/// How often a fetch looks whether another store has taken over.
const RETIRED: Duration = Duration::from_secs(1);

/// One fetch, for all that is wanted until it begins. It goes on when nobody waits any more, because the next one will want
/// the value too: it is the provider's to give up what makes no progress. A failure that may pass, such as an outage, is tried
/// again if somebody waits who has no value that would do.
pub(super) async fn fetch(shared: Arc<Shared>) {
    let before = shared.take_turn().await;
    let deadline = Instant::now() + shared.timing.deadline;
    let answered = AtomicBool::new(false);
    shared.state().fetching.goes_on(Moment::now());
    shared.begun.notify_one();
    select! {
        () = shared.ask_until(deadline, &answered) => {}
        () = shared.watch(deadline, &answered) => shared.state().give_up(),
        () = shared.look_meanwhile() => {}
    }
    // What failed is to be tried again some time.
    shared.news.notify_one();
    // The next one need not wait for the disk.
    drop(before);
    shared.act(Acts(vec![Act::Save]));
}

impl Shared {
    /// Waits for the fetch before this one, but not long if that one has reached the provider and is only slow. Where nothing is
    /// reached a second one would not do better.
    pub(super) async fn take_turn(&self) -> Option<SemaphorePermit<'_>> {
        let patience = PATIENCE.min(self.timing.deadline / 4);
        loop {
            if let Ok(turn) = timeout(patience, self.fetches.acquire()).await {
                self.reached.store(false, Ordering::Relaxed);
                return turn.ok();
            }
            if self.reached.load(Ordering::Relaxed) {
                return None;
            }
        }
    }

    /// What has come is not on disk only when the last value has come, and what takes long says so. Does not end.
    async fn look_meanwhile(self: &Arc<Self>) {
        let begun = Instant::now();
        loop {
            sleep(SAVE).await;
            let (unsaved, told) = {
                let mut state = self.state();
                state.fetching.goes_on(Moment::now());
                let takes_long = begun.elapsed() >= LONG;
                (state.unsaved, takes_long.then(|| state.fetching.begin_to_tell()).flatten())
            };
            if let Some(progress) = told {
                records::fetching(&progress, Moment::now());
            }
            if unsaved {
                self.act(Acts(vec![Act::Save]));
            }
        }
    }

    async fn ask_until(self: &Arc<Self>, deadline: Instant, answered: &AtomicBool) {
        let before_the_end = jittered(LAST_TRY.min(self.timing.deadline / 10));
        let (mut last_try, mut urgent) = (deadline, 0);
        self.check_account();
        // What is wanted while the provider gets ready is fetched as well.
        let mut prepared = self.get_ready(deadline).await;
        let mut wanted = self.take_wanted(prepared.is_ok());
        let mut pause = FIRST_PAUSE;
        while !wanted.is_empty() {
            let failed = match std::mem::replace(&mut prepared, Ok(())) {
                // A fetch would only fail in the same way once more.
                Err(error) => wanted.into_iter().map(|wanted| (wanted, error.clone())).collect(),
                Ok(()) => self.ask(wanted, answered).await,
            };
            let again_in = |pause| {
                let pauses = failed.iter().filter_map(|(_, error)| error.retry_in(pause));
                pauses.max().map(|pause| Instant::now() + pause)
            };
            let waiting = self.state().urgent(failed.iter().map(|(wanted, _)| wanted));
            if waiting > urgent {
                // Who came later waits for as long, within a second deadline: a fetch that never ended would count no failure, and
                // nobody would be asked less often.
                let end = (Instant::now() + self.timing.deadline).min(deadline + self.timing.deadline);
                last_try = end - before_the_end;
            }
            urgent = waiting;
            // Not before the time that the other end named; else a pause that is too long ends in the last try.
            let makes_sense = again_in(Duration::ZERO).is_some_and(|earliest| earliest < last_try);
            let again = again_in(jittered(pause)).filter(|_| makes_sense).map(|again| again.min(last_try));
            let again = again.filter(|_| waiting > 0);
            let (left, acts) = self.state().ended(failed, again.is_some(), Now::read(), random());
            self.act(acts);
            let Some(again) = again else { break };
            wanted = left;
            sleep_until(again).await;
            // The next fetch may be waiting for this one.
            wanted.extend(self.take_wanted(false));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One call of the provider. What it gives is delivered as it comes; what failed and is worth a thought is returned.
    async fn ask(self: &Arc<Self>, wanted: Vec<Wanted>, answered: &AtomicBool) -> Vec<(Wanted, FetchError)> {
        let references: Vec<Reference> = wanted.iter().map(|wanted| wanted.reference.clone()).collect();
        // A file that takes long says nothing about the provider.
        let only_files = references.iter().all(|reference| reference.kind == Kind::File);
        answered.fetch_or(only_files, Ordering::Relaxed);
        let mut open: Vec<Option<Wanted>> = wanted.into_iter().map(Some).collect();
        let mut failed = Vec::new();
        let begun: Begun = self.state().begin(Now::read());
        let mut give = |results: Vec<(usize, Fetched)>, comparable| {
            answered.store(true, Ordering::Relaxed);
            let good: Vec<usize> =
                results.iter().filter_map(|(index, result)| result.is_ok().then_some(*index)).collect();
            let mut acts = Acts::default();
            {
                let mut state = self.state();
                // With the lock, or a write that ends now would take it for one of its own.
                if !self.retired.load(Ordering::Relaxed) {
                    self.disk.unsaved();
                }
                // All at once: nobody sees a part of them.
                state.versions.next();
                for (index, result) in results {
                    let Some(wanted) = open.get_mut(index).and_then(Option::take) else { continue };
                    let arrived =
                        state.arrived(wanted, result, (begun, comparable), Now::read(), &mut failed);
                    acts.0.extend(arrived.0);
                }
            }
            self.hand_on(good.iter().filter_map(|index| references.get(*index)));
            self.act(acts);
        };
        let end = self.provider.fetch(references.clone(), &mut give).await;
        let missing = end.err().unwrap_or_else(FetchError::no_result);
        failed.extend(open.into_iter().flatten().map(|wanted| (wanted, missing.clone())));
        failed
    }

    /// Says that the provider does not work when nothing has come in time, and returns when nobody can need it any more.
    async fn watch(self: &Arc<Self>, deadline: Instant, answered: &AtomicBool) {
        sleep_until(deadline).await;
        if !answered.load(Ordering::Relaxed) {
            let late = FetchError::TimedOut(self.timing.deadline);
            let acts = self.state().fails(late, Now::read(), random());
            self.act(acts);
        }
        while !self.retired.load(Ordering::Relaxed) {
            sleep(RETIRED).await;
        }
    }

    pub(super) fn check_account(&self) {
        let Some(account) = self.provider.account() else { return };
        self.state().belongs_to(&account);
        self.meter.ledger().belongs_to(&account);
    }

    /// Waits until a limit that the provider told us of is over, signs in, and asks which values still hold.
    async fn get_ready(&self, deadline: Instant) -> Result<(), FetchError> {
        let now = Now::read();
        let until = self.meter.ledger().told_until(now);
        if let Some(until) = until {
            let wait = until.since(now.moment);
            if Instant::now() + wait > deadline {
                return Err(FetchError::RateLimited { until: Some(until) });
            }
            sleep(wait).await;
        }
        self.provider.prepare().await?;
        self.reached.store(true, Ordering::Relaxed);
        let confirmation = self.state().begin_confirmation(Now::read());
        if let Some(confirmation) = confirmation {
            let unchanged = self.provider.unchanged(&confirmation.references).await?;
            self.state().confirmed(confirmation, unchanged);
        }
        Ok(())
    }

    /// `works`: the provider works, although there may be nothing left to ask it for.
    fn take_wanted(self: &Arc<Self>, works: bool) -> Vec<Wanted> {
        let (wanted, acts) = {
            let mut state = self.state();
            let (mut wanted, mut acts) = state.take_wanted();
            state.join_siblings(&mut wanted);
            if wanted.is_empty() && works {
                acts.0.extend(state.works().0);
            }
            (wanted, acts)
        };
        self.act(acts);
        wanted
    }
}

/// Between half of a pause and all of it, so that machines which failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + random() / 2.0)
}
