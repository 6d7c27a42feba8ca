//! The background: renews all values from time to time, and finds out when a provider that was down is back. Never
//! spends requests that starting units may need.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::select;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::info;

use super::Shared;
use super::state::{Act, Acts};
use crate::counted::counted;
use crate::moment::{Moment, Now};
use crate::process::random;
use crate::providers::budget::{Budget, Purpose};
use crate::providers::ledger::Ledger;

/// How many requests a round is taken to cost until one has run: sign in, keys, vaults, items, one batch.
const FIRST_COST: u32 = 8;
/// When to look again whether the budget has room.
const LATER: Duration = Duration::from_secs(5 * 60);
/// How soon to write again what could not be written.
const SAVE_AGAIN: Duration = Duration::from_secs(10);
/// The clock that we sleep by stands still while the machine is suspended; the one that rounds are planned by does not. And
/// nobody tells when the wall clock is set, or when there is another token in a file that is read anew each time.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);
/// A longer interval makes no difference, and could overflow.
const LONGEST_INTERVAL: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// What the next round is planned from. Nothing of it goes by the wall clock, which may be set at any time.
#[derive(Debug, Clone)]
pub struct Outlook {
    pub now: Moment,
    /// How long ago the last round began, or all values were last confirmed.
    pub last: Option<Duration>,
    /// How long ago the service began.
    pub up: Duration,
    /// As configured.
    pub interval: Option<Duration>,
    pub budget: Budget,
    /// How many requests a round takes.
    pub cost: u32,
    /// The provider is down, and to be tried again after this.
    pub probe: Option<Duration>,
    /// What units were refused for want of is to be asked for after this.
    pub missing: Option<Duration>,
    /// How long 1Password's limit will last.
    pub limit: Duration,
    /// From 0 to 1: keeps machines that began together from asking together.
    pub spread: f64,
}

/// How long until the next round is due; `None`: not before something changes.
pub fn next_round(outlook: &Outlook, ledger: &Ledger) -> Option<Duration> {
    let due = match outlook.probe {
        Some(probe) => probe,
        None => match (outlook.renewal(), outlook.missing) {
            (Some(renewal), Some(missing)) => renewal.min(missing),
            (renewal, missing) => renewal.or(missing)?,
        },
    };
    let due = due.max(outlook.limit);
    let affords = ledger.affords(outlook.now, &outlook.budget, outlook.cost, Purpose::Refresh);
    Some(if affords { due } else { due.max(LATER) })
}

impl Outlook {
    /// How long until all values are to be renewed.
    fn renewal(&self) -> Option<Duration> {
        let interval = self.interval?.max(self.budget.least_interval(self.cost)?).min(LONGEST_INTERVAL);
        Some(match self.last {
            // Up to a tenth longer; never shorter than the budget allows.
            Some(last) => interval.mul_f64(1.0 + self.spread / 10.0).saturating_sub(last),
            None => interval.mul_f64(self.spread).saturating_sub(self.up),
        })
    }
}

/// Renews values until the store is dropped or retires.
pub(super) async fn keep_fresh(store: Weak<Shared>, news: Arc<Notify>) {
    let began = Moment::now();
    let (mut last, mut cost, mut spread) = (None, FIRST_COST, random());
    // What is no longer in the configuration leaves the disk now.
    if let Some(shared) = store.upgrade() {
        shared.act(Acts(vec![Act::Save]));
    }
    let mut saved = Moment::now();
    loop {
        let wait = {
            let Some(shared) = store.upgrade().filter(|shared| !shared.retired.load(Ordering::Relaxed))
            else {
                return;
            };
            shared.notice_new_token(std::iter::empty());
            let clocks = Now::read();
            let now = clocks.moment;
            // A disk that stalls is not waited for.
            let to_save = shared.state().is_misdated(clocks) || shared.disk.trouble().is_some();
            if to_save && now.since(saved) >= SAVE_AGAIN {
                saved = now;
                shared.act(Acts(vec![Act::Save]));
            }
            let affords = |cost| shared.meter.ledger().affords(now, &shared.budget, cost, Purpose::Refresh);
            if shared.untried.swap(false, Ordering::Relaxed) && affords(FIRST_COST) {
                // Whether it is any good is to be known before a unit needs it.
                let _turn = shared.take_turn().await;
                shared.probe().await;
                continue;
            }
            let (probe, renewed, missing) = {
                let state = shared.state();
                let awaited = state.is_awaited(clocks);
                let missing = state.missing(&shared.limits(), clocks);
                let probe = state.breaker.down().map(|down| down.probe(awaited));
                (probe, state.renewed, missing.into_iter().map(|(_, next)| next).min())
            };
            let limit = shared.meter.ledger().limited_until(clocks);
            let outlook = Outlook {
                now,
                last: last.max(renewed).map(|last| now.since(last)),
                up: now.since(began),
                interval: shared.timing.refresh,
                budget: shared.budget,
                // Until it is answered, a probe is one request.
                cost: if probe.is_some() { 1 } else { cost },
                probe: probe.map(|probe| probe.since(now)),
                missing: missing.map(|next| next.since(now)),
                limit: limit.map_or(Duration::ZERO, |until| until.since(now)),
                spread,
            };
            let due = next_round(&outlook, &shared.meter.ledger());
            shared.state().next_refresh = due.map(|wait| now + wait);
            match due {
                Some(Duration::ZERO) if probe.is_none() && outlook.renewal() != Some(Duration::ZERO) => {
                    shared.seek();
                    continue;
                }
                Some(Duration::ZERO) => {
                    let before = shared.meter.ledger().last_day(now);
                    shared.round().await;
                    let spent = shared.meter.ledger().last_day(Moment::now()).saturating_sub(before);
                    (last, spread) = (Some(now), random());
                    // A round that cost nothing, because nothing was reached, says nothing about the next one.
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
    /// Whether the provider works again, by what costs least.
    async fn probe(self: &Arc<Self>) -> bool {
        let confirmation = self.state().begin_confirmation_of_all(Now::read());
        let unchanged = async {
            self.provider.prepare().await?;
            self.provider.unchanged(&confirmation.references).await
        };
        let unchanged = unchanged.await;
        let works = unchanged.is_ok();
        let acts = {
            let mut state = self.state();
            match unchanged {
                Ok(unchanged) => {
                    state.confirmed(confirmation, unchanged);
                    state.works()
                }
                Err(error) => state.found(&error, Now::read(), random()),
            }
        };
        self.act(acts);
        works
    }

    /// Asks for what units were refused for want of, as far as it is time; its fetch tells when it ends.
    fn seek(self: &Arc<Self>) {
        let now = Now::read();
        let acts = {
            let mut state = self.state();
            let missing = state.missing(&self.limits(), now);
            let due = missing.into_iter().filter(|(_, next)| *next <= now.moment);
            let mut acts = Acts::default();
            for (reference, _) in due {
                acts.0.extend(state.seek(&reference).0);
            }
            acts
        };
        self.act(acts);
    }

    /// One fetch for everything that is kept; but first the provider must work.
    async fn round(self: &Arc<Self>) {
        let is_down = || self.state().breaker.down().is_some();
        if is_down() {
            // A fetch that is at work finds out as well.
            let _turn = self.take_turn().await;
            if is_down() && !self.probe().await {
                return;
            }
        }
        let (waiters, acts) = self.state().join_all();
        self.act(acts);
        let count = waiters.len();
        let mut failed = 0;
        for mut waiter in waiters {
            failed += usize::from(!matches!(waiter.outcome().await, Some(Ok(_))));
        }
        info!("renewed {} of {} in the background", count - failed, counted(count, "value"));
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn outlook() -> Outlook {
        Outlook {
            now: Moment::BOOT + 100 * MINUTE,
            last: None,
            up: Duration::ZERO,
            interval: Some(120 * MINUTE),
            budget: Budget::NONE,
            cost: FIRST_COST,
            probe: None,
            missing: None,
            limit: Duration::ZERO,
            spread: 0.5,
        }
    }

    #[test]
    fn the_first_round_comes_within_an_interval_and_the_next_an_interval_after_the_last() {
        let due = |outlook: &Outlook| next_round(outlook, &Ledger::default());
        assert_eq!(due(&outlook()), Some(60 * MINUTE));
        assert_eq!(due(&Outlook { up: 50 * MINUTE, ..outlook() }), Some(10 * MINUTE));
        assert_eq!(due(&Outlook { last: Some(Duration::ZERO), ..outlook() }), Some(126 * MINUTE));
        assert_eq!(due(&Outlook { last: Some(126 * MINUTE), ..outlook() }), Some(Duration::ZERO));
        assert_eq!(due(&Outlook { last: Some(Duration::MAX), ..outlook() }), Some(Duration::ZERO));
        assert_eq!(due(&Outlook { interval: None, ..outlook() }), None);
        assert_eq!(due(&Outlook { probe: Some(MINUTE), interval: None, ..outlook() }), Some(MINUTE));
        let missing = Outlook { missing: Some(MINUTE), ..outlook() };
        assert_eq!(due(&missing), Some(MINUTE));
        assert_eq!(due(&Outlook { interval: None, ..missing.clone() }), Some(MINUTE));
        assert_eq!(due(&Outlook { missing: Some(100 * MINUTE), ..missing }), Some(60 * MINUTE));
        let limited = Outlook { limit: 90 * MINUTE, ..outlook() };
        assert_eq!(due(&limited), Some(90 * MINUTE));
        assert_eq!(due(&Outlook { probe: Some(MINUTE), ..limited }), Some(90 * MINUTE));
    }

    #[test]
    fn a_budget_used_up_before_a_boot_with_a_wrong_clock_holds_up_the_background_for_a_day_at_most() {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        let right = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let budget = Budget { hourly: None, daily: Some(2 * FIRST_COST) };
        for (before, after) in [(right, right - YEAR), (right + YEAR, right), (right, right + YEAR)] {
            let then = Now { date: before, moment: Moment::BOOT + 1000 * MINUTE };
            let mut ledger = Ledger::new(then);
            ledger.spend(then.moment, 2 * FIRST_COST);
            let text = ledger.to_file(then, None, "").unwrap();
            let boot = Now { date: after, moment: Moment::BOOT + MINUTE };
            let ledger = Ledger::open(&text, boot, None).unwrap().0;
            let mut rounds = 0;
            // Day and night; the clock may be set right meanwhile, which nothing here looks at.
            for minutes in (0..30 * 60).step_by(5) {
                let now = boot.moment + minutes * MINUTE;
                let up = minutes * MINUTE;
                let due = next_round(&Outlook { now, up, budget, ..outlook() }, &ledger).unwrap();
                rounds += u32::from(due.is_zero());
            }
            assert!(rounds >= 4 * 12, "{rounds} times a round was due");
        }
    }

    #[test]
    fn no_interval_and_no_date_is_too_much_to_reckon_with() {
        for interval in [Duration::MAX, Duration::from_secs(u64::MAX)] {
            for last in [None, Some(Duration::ZERO), Some(Duration::MAX)] {
                for now in [Moment::BOOT, outlook().now, Moment::BOOT + Duration::MAX] {
                    let far = Outlook { now, last, interval: Some(interval), spread: 1.0, ..outlook() };
                    assert!(next_round(&far, &Ledger::default()).is_some());
                }
            }
        }
    }
}
