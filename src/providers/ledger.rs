//! How many requests 1Password was sent, and which of its limits is reached. Time is passed in, but for [`Meter`].
//!
//! Setting the clock neither forgets requests nor makes them count for longer: they are counted by what the wall clock said when
//! the ledger was first opened in this boot, and the time that passed since. Only the file has true dates ([`file`]).

mod file;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::ask::Count;
use super::budget::{Budget, DAY, HOUR, LONGEST_LIMIT, Purpose, STEP};
use crate::counters;
use crate::moment::{Moment, Now, Stamp};

/// The pause after a limit whose end 1Password did not tell; twice as long each time that it is still reached.
const FIRST_REST: Duration = Duration::from_secs(10 * 60);
const LONGEST_REST: Duration = HOUR;

/// The requests of the last day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Whose limits the requests count against, once that is known.
    account: Option<String>,
    /// When the machine booted, by the wall clock as it was when the ledger was first opened in this boot: milliseconds since
    /// 1970.
    booted: u64,
    /// By the number of the step, counted from 1970 by that clock.
    steps: BTreeMap<u64, u32>,
    /// The limit that is reached, as 1Password said.
    limited: Option<Limited>,
    /// That of the account before.
    former: Option<Box<Ledger>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limited {
    until: Stamp,
    /// Whether 1Password said until when.
    told: bool,
    /// How long the next rest is, if the limit is still reached after this one and 1Password does not say until when.
    next_rest: Duration,
}

impl Ledger {
    /// With no requests.
    pub fn new(now: Now) -> Self {
        // Before 1970 there are no steps.
        Self { booted: now.setting().millis().try_into().unwrap_or(0), ..Self::default() }
    }

    pub fn spend(&mut self, now: Moment, requests: u32) {
        let step = self.step(now);
        let oldest = step.saturating_sub((DAY.as_secs() / STEP.as_secs()) + 1);
        self.steps = self.steps.split_off(&oldest);
        let count = self.steps.entry(step).or_default();
        *count = count.saturating_add(requests);
    }

    /// The last request that was counted was not made.
    pub fn take_back(&mut self) {
        if let Some(mut last) = self.steps.last_entry() {
            *last.get_mut() = last.get().saturating_sub(1);
        }
    }

    /// From now on, requests are this account's. Those of the account before count against its own limits, and again if its token
    /// comes back.
    pub fn belongs_to(&mut self, account: &str) {
        if self.account.as_ref().is_some_and(|known| known != account) {
            let former = self.former.take().filter(|former| former.account.as_deref() == Some(account));
            let new =
                former.map_or_else(|| Self { booted: self.booted, ..Self::default() }, |former| *former);
            self.former = Some(Box::new(std::mem::replace(self, new)));
        }
        self.account = Some(account.to_owned());
    }

    pub fn last_hour(&self, now: Moment) -> u32 {
        self.used(now, HOUR)
    }

    pub fn last_day(&self, now: Moment) -> u32 {
        self.used(now, DAY)
    }

    fn used(&self, now: Moment, window: Duration) -> u32 {
        let first = self.step(now).saturating_sub(window.as_secs() / STEP.as_secs());
        self.steps.range(first..).fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Whether `cost` more requests stay within the budget.
    pub fn affords(&self, now: Moment, budget: &Budget, cost: u32, purpose: Purpose) -> bool {
        budget
            .windows()
            .all(|(window, limit)| self.used(now, window).saturating_add(cost) <= purpose.share(limit))
    }

    /// 1Password says that a limit is reached, and perhaps until when.
    pub fn limit(&mut self, now: Now, told: Option<Moment>) {
        // It may come from the file, where it can be anything.
        let rest =
            self.limited.map_or(FIRST_REST, |limited| limited.next_rest.clamp(FIRST_REST, LONGEST_REST));
        let wait = told.map_or(rest, |until| until.since(now.moment));
        self.limited = Some(Limited {
            until: (now.moment + wait.min(LONGEST_LIMIT)).into(),
            told: told.is_some(),
            next_rest: (rest * 2).min(LONGEST_REST),
        });
    }

    /// 1Password answered: no limit is reached.
    pub fn lift(&mut self) {
        self.limited = None;
    }

    /// Until when a limit is reached, if 1Password said so.
    pub fn told_until(&self, now: Now) -> Option<Moment> {
        self.limited_until(now).filter(|_| self.limited.is_some_and(|limited| limited.told))
    }

    /// Until when a limit is reached, or assumed to be.
    pub fn limited_until(&self, now: Now) -> Option<Moment> {
        let until = match self.limited?.until {
            Stamp::ThisBoot(moment) => moment,
            Stamp::Earlier(date) => now.moment + date.duration_since(now.date).ok()?,
        };
        // No limit is noted for longer than a day: an end further ahead means that the clock is behind. It counts once the
        // clock is set right.
        (until > now.moment && until.since(now.moment) <= LONGEST_LIMIT).then_some(until)
    }

    fn step(&self, now: Moment) -> u64 {
        self.booted.saturating_add(now.millis()) / STEP.as_millis() as u64
    }
}

/// A shared ledger, into which requests are written as they go out.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<Ledger>>);

impl Meter {
    pub fn new(ledger: Ledger) -> Self {
        Self(Arc::new(Mutex::new(ledger)))
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count for Meter {
    fn count(&self, requests: usize) {
        counters::sent(requests);
        self.ledger().spend(Moment::now(), u32::try_from(requests).unwrap_or(u32::MAX));
    }

    fn never_sent(&self) {
        self.ledger().take_back();
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use proptest::prelude::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    fn at(minutes: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + minutes * 60)
    }

    fn moment(minutes: u64) -> Moment {
        Moment::BOOT + Duration::from_secs(minutes * 60)
    }

    fn now(minutes: u64) -> Now {
        Now { date: at(minutes), moment: moment(minutes) }
    }

    #[test]
    fn requests_count_for_an_hour_and_a_day() {
        let mut ledger = Ledger::new(now(0));
        ledger.spend(moment(0), 10);
        ledger.spend(moment(30), 5);
        let used = |ledger: &Ledger, at| (ledger.last_hour(moment(at)), ledger.last_day(moment(at)));
        assert_eq!(used(&ledger, 59), (15, 15));
        assert_eq!(used(&ledger, 80), (5, 15));
        assert_eq!(used(&ledger, 24 * 60 + 10), (0, 5));
        ledger.spend(moment(48 * 60), 1);
        assert_eq!(ledger.steps.len(), 1, "what is over is forgotten");
    }

    #[test]
    fn refreshes_never_take_what_is_reserved_for_starts() {
        let budget = Budget { hourly: Some(100), daily: None };
        let mut ledger = Ledger::default();
        ledger.spend(moment(0), 45);
        assert!(ledger.affords(moment(0), &budget, 5, Purpose::Refresh));
        assert!(!ledger.affords(moment(0), &budget, 6, Purpose::Refresh));
        assert!(ledger.affords(moment(0), &budget, 55, Purpose::Start));
        assert!(!ledger.affords(moment(0), &budget, 56, Purpose::Start));
        assert!(Ledger::default().affords(moment(0), &Budget::NONE, u32::MAX, Purpose::Refresh));
    }

    #[test]
    fn a_limit_holds_until_its_end_and_longer_each_time_if_that_is_not_told() {
        let mut ledger = Ledger::default();
        ledger.limit(now(0), Some(moment(7)));
        assert_eq!(ledger.limited_until(now(6)), Some(moment(7)));
        assert_eq!(ledger.limited_until(now(7)), None);
        assert_eq!(ledger.told_until(now(6)), Some(moment(7)));
        ledger.lift();
        for (from, until) in [(100, 110), (200, 220), (300, 340), (400, 460), (500, 560)] {
            ledger.limit(now(from), None);
            assert_eq!(ledger.limited_until(now(from)), Some(moment(until)));
            assert_eq!(ledger.told_until(now(from)), None);
        }
        ledger.limit(now(0), Some(moment(1_000_000)));
        assert_eq!(ledger.limited_until(now(0)), Some(moment(24 * 60)));
        ledger.lift();
        assert_eq!(ledger.limited_until(now(0)), None);
    }

    #[test]
    fn a_limit_that_was_told_ends_in_its_time_whatever_the_clock_is_set_to() {
        let mut ledger = Ledger::new(now(0));
        ledger.limit(now(0), Some(moment(7)));
        for date in [SystemTime::UNIX_EPOCH, at(0) - YEAR, at(3), at(0) + YEAR] {
            let later = |minutes| Now { date, moment: moment(minutes) };
            assert_eq!(ledger.told_until(later(3)), Some(moment(7)));
            assert_eq!(ledger.told_until(later(7)), None);
        }
    }

    #[test]
    fn a_machine_that_boots_in_1970_or_before_counts_its_requests() {
        for date in [SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH - YEAR] {
            let mut ledger = Ledger::new(Now { date, moment: moment(1) });
            ledger.spend(moment(1), 7);
            assert_eq!((ledger.last_hour(moment(50)), ledger.last_hour(moment(70))), (7, 0));
            assert_eq!((ledger.last_day(moment(24 * 60)), ledger.last_day(moment(25 * 60))), (7, 0));
        }
    }

    #[test]
    fn the_requests_of_another_account_do_not_count() {
        let mut ledger = Ledger::new(now(0));
        ledger.spend(moment(0), 7);
        ledger.limit(now(0), None);
        ledger.belongs_to("first");
        assert_eq!((ledger.last_hour(moment(0)), ledger.limited_until(now(0)).is_some()), (7, true));
        ledger.belongs_to("second");
        assert_eq!((ledger.last_hour(moment(0)), ledger.limited_until(now(0))), (0, None));
        ledger.spend(moment(0), 1);
        // With the token from before, all of it counts again.
        ledger.belongs_to("first");
        assert_eq!((ledger.last_hour(moment(0)), ledger.limited_until(now(0)).is_some()), (7, true));
        ledger.belongs_to("second");
        assert_eq!((ledger.last_hour(moment(0)), ledger.limited_until(now(0))), (1, None));
    }

    proptest! {
        #[test]
        fn rounds_at_the_least_interval_are_always_affordable(
            hourly in proptest::option::of(1u32..2000), daily in proptest::option::of(1u32..5000), cost in 1u32..100,
        ) {
            let budget = Budget { hourly, daily };
            if let Some(interval) = budget.least_interval(cost) {
                let mut ledger = Ledger::default();
                let mut now = moment(0);
                for round in 0..200 {
                    prop_assert!(ledger.affords(now, &budget, cost, Purpose::Refresh), "round {}", round);
                    ledger.spend(now, cost);
                    now = now + interval;
                }
            }
        }

        #[test]
        fn no_window_ever_holds_more_than_the_budget(
            requests in proptest::collection::vec((0u64..2000, 1u32..20), 0..200),
            hourly in 1u32..60, daily in 1u32..100,
        ) {
            let budget = Budget { hourly: Some(hourly), daily: Some(daily) };
            let mut times = requests;
            times.sort_unstable();
            let mut ledger = Ledger::default();
            let mut sent: Vec<(u64, u32)> = Vec::new();
            for (minute, cost) in times {
                if ledger.affords(moment(minute), &budget, cost, Purpose::Start) {
                    ledger.spend(moment(minute), cost);
                    sent.push((minute, cost));
                }
                let within = |window: u64| -> u32 {
                    sent.iter().filter(|(when, _)| when + window > minute).map(|(_, cost)| cost).sum()
                };
                prop_assert!(within(60) <= hourly && within(24 * 60) <= daily);
            }
        }
    }
}
