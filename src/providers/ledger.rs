//! How many requests 1Password was sent, and which of its limits is reached. Time is passed in, but for [`Meter`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::ask::Count;
use super::budget::{Budget, DAY, HOUR, LONGEST_LIMIT, Purpose, STEP};
use crate::moment::Moment;

/// The pause after a limit whose end 1Password did not tell; twice as long each time that it is still reached.
const FIRST_REST: Duration = Duration::from_secs(10 * 60);
const LONGEST_REST: Duration = HOUR;

/// The requests of the last day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Whose limits the requests count against, once that is known.
    account: Option<String>,
    /// By the number of the step, counted from 1970.
    steps: BTreeMap<u64, u32>,
    /// The limit that is reached, as 1Password said.
    limited: Option<Limited>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Limited {
    /// Milliseconds since 1970.
    until: u64,
    /// Whether 1Password said until when.
    told: bool,
    /// The same end, independent of changes of the clock. Not known if the limit was read from the file.
    #[serde(skip)]
    ends: Option<Moment>,
    /// How long the next rest is, if the limit is still reached after this one and 1Password does not say until when.
    next_rest: Duration,
}

impl Ledger {
    pub fn spend(&mut self, now: SystemTime, requests: u32) {
        let step = step(now);
        // Steps that are in the future because the clock was set back: they count as of now.
        let later = self.steps.split_off(&(step + 1)).into_values().fold(0, u32::saturating_add);
        let oldest = step.saturating_sub((DAY.as_secs() / STEP.as_secs()) + 1);
        self.steps = self.steps.split_off(&oldest);
        let count = self.steps.entry(step).or_default();
        *count = count.saturating_add(requests).saturating_add(later);
    }

    /// The last request that was counted was not made.
    pub fn take_back(&mut self) {
        if let Some(mut last) = self.steps.last_entry() {
            *last.get_mut() = last.get().saturating_sub(1);
        }
    }

    /// From now on, requests are this account's. Those of another account are forgotten: they count against its own limits.
    pub fn belongs_to(&mut self, account: &str) {
        if self.account.as_ref().is_some_and(|known| known != account) {
            *self = Self::default();
        }
        self.account = Some(account.to_owned());
    }

    pub fn last_hour(&self, now: SystemTime) -> u32 {
        self.used(now, HOUR)
    }

    pub fn last_day(&self, now: SystemTime) -> u32 {
        self.used(now, DAY)
    }

    fn used(&self, now: SystemTime, window: Duration) -> u32 {
        let first = step(now).saturating_sub(window.as_secs() / STEP.as_secs());
        self.steps.range(first..).fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Whether `cost` more requests stay within the budget.
    pub fn affords(&self, now: SystemTime, budget: &Budget, cost: u32, purpose: Purpose) -> bool {
        budget
            .windows()
            .all(|(window, limit)| self.used(now, window).saturating_add(cost) <= purpose.share(limit))
    }

    /// 1Password says that a limit is reached, and perhaps until when.
    pub fn limit(&mut self, now: SystemTime, moment: Moment, told: Option<SystemTime>) {
        // It may come from the file, where it can be anything.
        let rest =
            self.limited.map_or(FIRST_REST, |limited| limited.next_rest.clamp(FIRST_REST, LONGEST_REST));
        let until = told.unwrap_or(now + rest).min(now + LONGEST_LIMIT);
        self.limited = Some(Limited {
            until: millis(until),
            ends: Some(moment + until.duration_since(now).unwrap_or_default()),
            told: told.is_some(),
            next_rest: (rest * 2).min(LONGEST_REST),
        });
    }

    /// 1Password answered: no limit is reached.
    pub fn lift(&mut self) {
        self.limited = None;
    }

    /// Until when a limit is reached, if 1Password said so.
    pub fn told_until(&self, now: SystemTime, moment: Moment) -> Option<SystemTime> {
        self.limited_until(now, moment).filter(|_| self.limited.is_some_and(|limited| limited.told))
    }

    /// Until when a limit is reached, or assumed to be.
    pub fn limited_until(&self, now: SystemTime, moment: Moment) -> Option<SystemTime> {
        let limited = self.limited?;
        if let Some(ends) = limited.ends {
            return (moment < ends).then(|| now + ends.since(moment));
        }
        let until = SystemTime::UNIX_EPOCH + Duration::from_millis(limited.until);
        // No limit is noted for longer than a day: an end further ahead means that the clock was set back.
        (now < until && until <= now + DAY).then_some(until)
    }
}

fn step(now: SystemTime) -> u64 {
    millis(now) / STEP.as_millis() as u64
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
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
        self.ledger().spend(SystemTime::now(), u32::try_from(requests).unwrap_or(u32::MAX));
    }

    fn never_sent(&self) {
        self.ledger().take_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(minutes: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + minutes * 60)
    }

    fn moment(minutes: u64) -> Moment {
        Moment::BOOT + Duration::from_secs(minutes * 60)
    }

    fn saved(ledger: &Ledger) -> Ledger {
        serde_json::from_str(&serde_json::to_string(ledger).unwrap()).unwrap()
    }

    #[test]
    fn requests_count_for_an_hour_and_a_day() {
        let mut ledger = Ledger::default();
        ledger.spend(at(0), 10);
        ledger.spend(at(30), 5);
        assert_eq!((ledger.last_hour(at(59)), ledger.last_day(at(59))), (15, 15));
        assert_eq!((ledger.last_hour(at(80)), ledger.last_day(at(80))), (5, 15));
        assert_eq!((ledger.last_hour(at(24 * 60 + 10)), ledger.last_day(at(24 * 60 + 10))), (0, 5));
        ledger.spend(at(48 * 60), 1);
        assert_eq!(ledger.steps.len(), 1, "what is over is forgotten");
    }

    #[test]
    fn refreshes_never_take_what_is_reserved_for_starts() {
        let budget = Budget { hourly: Some(100), daily: None };
        let mut ledger = Ledger::default();
        ledger.spend(at(0), 45);
        assert!(ledger.affords(at(0), &budget, 5, Purpose::Refresh));
        assert!(!ledger.affords(at(0), &budget, 6, Purpose::Refresh));
        assert!(ledger.affords(at(0), &budget, 55, Purpose::Start));
        assert!(!ledger.affords(at(0), &budget, 56, Purpose::Start));
        assert!(Ledger::default().affords(at(0), &Budget::NONE, u32::MAX, Purpose::Refresh));
    }

    #[test]
    fn a_limit_holds_until_its_end_and_longer_each_time_if_that_is_not_told() {
        let mut ledger = Ledger::default();
        ledger.limit(at(0), moment(0), Some(at(7)));
        assert_eq!(ledger.limited_until(at(6), moment(6)), Some(at(7)));
        assert_eq!(ledger.limited_until(at(7), moment(7)), None);
        assert_eq!(ledger.told_until(at(6), moment(6)), Some(at(7)));
        ledger.lift();
        for (from, until) in [(100, 110), (200, 220), (300, 340), (400, 460), (500, 560)] {
            ledger.limit(at(from), moment(from), None);
            assert_eq!(ledger.limited_until(at(from), moment(from)), Some(at(until)));
            assert_eq!(ledger.told_until(at(from), moment(from)), None);
        }
        ledger.limit(at(0), moment(0), Some(at(1_000_000)));
        assert_eq!(ledger.limited_until(at(0), moment(0)), Some(at(24 * 60)));
        ledger.lift();
        assert_eq!(ledger.limited_until(at(0), moment(0)), None);
    }

    #[test]
    fn a_clock_that_was_set_back_loses_no_requests_and_does_not_prolong_a_limit() {
        let mut ledger = Ledger::default();
        ledger.spend(at(10_000), 7);
        ledger.limit(at(10_000), moment(0), Some(at(10_007)));
        assert_eq!(ledger.last_hour(at(0)), 7);
        for date in [0, 9_990, 10_000, 20_000] {
            assert_eq!(ledger.told_until(at(date), moment(3)), Some(at(date + 4)));
            assert_eq!(ledger.told_until(at(date), moment(7)), None);
        }
        // Of one from the file only the date is known.
        let read = saved(&ledger);
        let until = |date| read.limited_until(at(date), moment(0));
        assert_eq!((until(10_000), until(0)), (Some(at(10_007)), None));
        ledger.spend(at(0), 1);
        assert_eq!((ledger.last_hour(at(0)), ledger.last_hour(at(70))), (8, 0));
    }

    #[test]
    fn the_requests_of_another_account_do_not_count() {
        let mut ledger = Ledger::default();
        ledger.spend(at(0), 7);
        ledger.limit(at(0), moment(0), None);
        ledger.belongs_to("first");
        assert_eq!((ledger.last_hour(at(0)), ledger.limited_until(at(0), moment(0)).is_some()), (7, true));
        ledger.belongs_to("second");
        assert_eq!((ledger.last_hour(at(0)), ledger.limited_until(at(0), moment(0))), (0, None));
    }

    #[test]
    fn a_ledger_survives_as_json() {
        let mut ledger = Ledger::default();
        ledger.spend(at(3), 4);
        ledger.limit(at(3), moment(3), None);
        let read = saved(&ledger);
        assert_eq!((&read.steps, read.limited.unwrap().until), (&ledger.steps, millis(at(13))));
        assert_eq!(read.limited_until(at(4), moment(0)), Some(at(13)));
    }

    #[test]
    fn no_content_of_the_file_makes_it_panic() {
        let long = r#"{"secs": 18446744073709551615, "nanos": 999999999}"#;
        for until in [0, 1, u64::MAX] {
            for next_rest in [r#"{"secs": 0, "nanos": 0}"#, long] {
                let steps = r#"{"18446744073709551614": 4294967295, "18446744073709551615": 4294967295}"#;
                let limited = format!(r#"{{"until": {until}, "told": true, "next_rest": {next_rest}}}"#);
                let text = format!(r#"{{"account": null, "steps": {steps}, "limited": {limited}}}"#);
                let mut ledger: Ledger = serde_json::from_str(&text).unwrap();
                assert_eq!(ledger.limited_until(at(0), moment(0)), None, "no limit is that long");
                assert_eq!(ledger.last_day(at(0)), u32::MAX);
                ledger.spend(at(0), 1);
                assert_eq!(ledger.last_day(at(0)), u32::MAX);
                ledger.limit(at(0), moment(0), None);
                let rest = ledger.limited_until(at(0), moment(0)).unwrap().duration_since(at(0)).unwrap();
                assert!((FIRST_REST..=LONGEST_REST).contains(&rest), "{rest:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn rounds_at_the_least_interval_are_always_affordable(
            hourly in proptest::option::of(1u32..2000), daily in proptest::option::of(1u32..5000), cost in 1u32..100,
        ) {
            let budget = Budget { hourly, daily };
            if let Some(interval) = budget.least_interval(cost) {
                let mut ledger = Ledger::default();
                let mut now = at(0);
                for round in 0..200 {
                    prop_assert!(ledger.affords(now, &budget, cost, Purpose::Refresh), "round {}", round);
                    ledger.spend(now, cost);
                    now += interval;
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
                if ledger.affords(at(minute), &budget, cost, Purpose::Start) {
                    ledger.spend(at(minute), cost);
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
