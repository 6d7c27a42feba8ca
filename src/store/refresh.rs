//! The background: renews all values from time to time, and finds out when a provider that was down is back. Never with
//! requests that units which start may need.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::select;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::info;

use super::Shared;
use super::flight::Flight;
use crate::cache::freshness::Keep;
use crate::providers::budget::{Budget, Ledger, Purpose};
use crate::reference::Reference;

/// How many requests a round costs until one was seen: sign in, keys, vaults, items, one batch.
const FIRST_COST: u32 = 8;
/// When to look again whether the budget has room.
const LATER: Duration = Duration::from_secs(5 * 60);
/// The wall clock, by which rounds are planned, may be set while we sleep by another one.
const LONGEST_SLEEP: Duration = Duration::from_secs(10 * 60);

/// What the next round is planned from.
#[derive(Debug, Clone)]
pub struct Outlook {
    pub now: SystemTime,
    /// When the last round began, or all values were last found to hold.
    pub last: Option<SystemTime>,
    /// When the service began.
    pub began: SystemTime,
    /// As configured.
    pub interval: Option<Duration>,
    pub budget: Budget,
    /// How many requests a round takes.
    pub cost: u32,
    /// The provider is down, and to be tried again then.
    pub probe: Option<SystemTime>,
    /// From 0 to 1: keeps machines apart that began together.
    pub spread: f64,
}

/// When the next round is due; `None`: not before something changes.
pub fn next_round(outlook: &Outlook, ledger: &Ledger) -> Option<SystemTime> {
    let due = match outlook.probe {
        Some(probe) => probe,
        None => {
            let interval = outlook.interval?.max(outlook.budget.least_interval(outlook.cost)?);
            match outlook.last {
                // A tenth longer or shorter; never shorter than the budget bears.
                Some(last) => last + interval.mul_f64(1.0 + outlook.spread / 10.0),
                None => outlook.began + interval.mul_f64(outlook.spread),
            }
        }
    };
    let due = due.max(ledger.limited_until(outlook.now).unwrap_or(due));
    let affords = ledger.affords(outlook.now, &outlook.budget, outlook.cost, Purpose::Refresh);
    Some(if affords { due } else { due.max(outlook.now + LATER) })
}

/// Renews values until the store is dropped or retires.
pub(super) async fn keep_fresh(store: Weak<Shared>, news: Arc<Notify>) {
    let began = SystemTime::now();
    let (mut last, mut cost, mut spread) = (None, FIRST_COST, random());
    // What left the configuration leaves the disk now.
    if let Some(shared) = store.upgrade() {
        shared.save().await;
    }
    loop {
        let wait = {
            let Some(shared) = store.upgrade().filter(|shared| !shared.retired.load(Ordering::Relaxed))
            else {
                return;
            };
            let now = SystemTime::now();
            let (probe, renewed) = {
                let state = shared.state();
                (state.breaker.down().map(|down| down.probe), state.renewed)
            };
            let outlook = Outlook {
                now,
                last: last.max(renewed),
                began,
                interval: shared.timing.refresh,
                budget: shared.budget,
                cost,
                probe,
                spread,
            };
            let due = next_round(&outlook, &shared.meter.ledger());
            shared.state().next_refresh = due;
            match due.map(|due| due.duration_since(now).unwrap_or_default()) {
                Some(Duration::ZERO) => {
                    let before = shared.meter.ledger().last_day(now);
                    shared.round().await;
                    let spent = shared.meter.ledger().last_day(SystemTime::now()).saturating_sub(before);
                    (last, spread) = (Some(now), random());
                    // What costs nothing, because nothing was reached, says nothing about the next one.
                    cost = if spent > 1 { spent } else { cost };
                    continue;
                }
                Some(wait) => wait.min(LONGEST_SLEEP),
                None => LONGEST_SLEEP,
            }
        };
        select! {
            () = sleep(wait) => {}
            () = news.notified() => {}
        }
    }
}

impl Shared {
    /// One fetch for everything that is kept.
    async fn round(self: &Arc<Self>) {
        let flights: Vec<Flight> = {
            let mut state = self.state();
            let wanted = state.memory.settings().iter().filter(|(_, settings)| settings.keep > Keep::Never);
            let wanted: Vec<Reference> = wanted.map(|(reference, _)| reference.clone()).collect();
            wanted.iter().map(|reference| self.board(&mut state, reference, false)).collect()
        };
        let count = flights.len();
        let mut failed = 0;
        for mut flight in flights {
            failed += usize::from(!matches!(flight.landed().await, Some(Ok(_))));
        }
        info!("renewed {} of {count} values in the background", count - failed);
    }
}

/// Between 0 and 1; good enough to keep machines apart.
pub fn random() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}
