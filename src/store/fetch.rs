//! Fetches: one for any number of units that wait, and for all references that were asked for until it began.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::Shared;
use super::state::Wanted;
use crate::moment::Now;
use crate::process::random;
use crate::providers::FetchError;
use crate::reference::Reference;

/// How long to wait before the second try; then twice as long before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a fetch waits for the one before it.
const PATIENCE: Duration = Duration::from_secs(2);

/// One fetch, for all that is wanted until it begins. It goes on when nobody waits any more, because the next one will want
/// the value too. A failure that may pass, such as an outage, is tried again if somebody waits who has no value that
/// would do.
pub(super) async fn fetch(shared: Arc<Shared>) {
    let before = timeout(PATIENCE, shared.fetches.acquire()).await;
    let deadline = Instant::now() + shared.timing.deadline;
    // The last error is to arrive before the time of those who wait is over: it says more than that the time is over.
    let last_try = deadline - shared.timing.deadline / 10;
    let late = FetchError::TimedOut(shared.timing.deadline);
    shared.check_account();
    // What is wanted while the provider gets ready is fetched as well.
    let mut prepared = timeout_at(deadline, shared.get_ready()).await.unwrap_or(Err(late.clone()));
    let mut wanted = shared.take_wanted(prepared.is_ok());
    let mut pause = FIRST_PAUSE;
    while !wanted.is_empty() {
        let references: Vec<Reference> = wanted.iter().map(|wanted| wanted.reference.clone()).collect();
        let all = |error: FetchError| references.iter().map(|_| Err(error.clone())).collect();
        let begun = shared.state().begin(Now::read());
        let results: Vec<_> = match std::mem::replace(&mut prepared, Ok(())) {
            // A fetch would only fail in the same way once more.
            Err(error) => all(error),
            Ok(()) => {
                let fetch = timeout_at(deadline, shared.provider.fetch(references.clone())).await;
                fetch.unwrap_or_else(|_| all(late.clone()))
            }
        };
        let again =
            results.iter().filter_map(|result| result.as_ref().err()?.retry_in(jittered(pause))).max();
        let again = again.map(|pause| Instant::now() + pause).filter(|again| *again < last_try);
        let (again, (left, acts)) = {
            let mut state = shared.state();
            let again = again.filter(|_| state.is_urgent(&wanted));
            (again, state.settle(wanted, results, begun, again.is_some(), Now::read(), random()))
        };
        shared.act(acts);
        let Some(again) = again else { break };
        wanted = left;
        sleep_until(again).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    // The next one need not wait for the disk.
    drop(before);
    shared.save().await;
}

impl Shared {
    fn check_account(&self) {
        let Some(account) = self.provider.account() else { return };
        self.state().belongs_to(&account);
        self.meter.ledger().belongs_to(&account);
    }

    /// Waits until a limit that the provider told us of is over, signs in, and asks which values still hold.
    async fn get_ready(&self) -> Result<(), FetchError> {
        let Now { date, moment } = Now::read();
        let told = self.meter.ledger().told_until(date, moment);
        if let Some(wait) = told.and_then(|until| until.duration_since(date).ok()) {
            sleep(wait).await;
        }
        self.provider.prepare().await?;
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
            let (wanted, mut acts) = state.take_wanted();
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
