//! The ledger on disk, where the wall clock tells when requests were made: as it is set when the file is written. In the
//! boot in which that was, the ledger goes on as if it had not been away.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Ledger, Limited};
use crate::boot::Boot;
use crate::moment::{Moment, Now, Stamp};
use crate::providers::budget::{LONGEST_LIMIT, STEP};

#[derive(Serialize, Deserialize)]
struct File {
    account: Option<String>,
    /// By the number of the step, counted from 1970.
    steps: BTreeMap<u64, u32>,
    limited: Option<Limit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    this_boot: Option<ThisBoot>,
    /// The sealed cache that was written last, which is not the ledger's business but is written with it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    cache: String,
}

#[derive(Serialize, Deserialize)]
struct Limit {
    /// Milliseconds since 1970.
    until: u64,
    told: bool,
    next_rest: Duration,
    /// The same end in milliseconds since boot, if it was told in the boot in which the file was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    moment: Option<u64>,
}

/// How the ledger counts in the boot in which the file was written.
#[derive(Serialize, Deserialize)]
struct ThisBoot {
    boot: Boot,
    /// See [`Ledger::booted`].
    booted: u64,
    /// By how many steps those of the file are later.
    moved: i64,
}

impl Ledger {
    /// With the name of the sealed cache that was written last; empty if none is to be believed.
    pub fn open(text: &[u8], now: Now, boot: Option<&Boot>) -> serde_json::Result<(Self, String)> {
        let File { account, steps, limited, this_boot, cache } = serde_json::from_slice(text)?;
        let this_boot = this_boot.filter(|of| Some(&of.boot) == boot);
        let limited = limited.map(|limit| limit.opened(now, this_boot.is_some()));
        let (empty, by) = match this_boot {
            Some(ThisBoot { booted, moved, .. }) => {
                (Self { booted, ..Self::default() }, moved.saturating_neg())
            }
            None => {
                let new = Self::new(now);
                let by = new.clock_ahead(now).saturating_neg();
                (new, by)
            }
        };
        let steps = moved(steps, by);
        let last = empty.step(now.moment);
        let latest = steps.last_key_value().map_or(last, |(step, _)| *step);
        // No request was made in the future: the clock is behind, or was ahead, and the last one counts as made now. Those
        // before it keep their distance, so that an hour is not charged with a day.
        let late = latest.saturating_sub(last);
        let steps = steps.into_iter().map(|(step, count)| (step.saturating_sub(late), count));
        Ok((Self { account, steps: sum(steps), limited, ..empty }, cache))
    }

    pub fn to_file(&self, now: Now, boot: Option<&Boot>, cache: &str) -> serde_json::Result<Vec<u8>> {
        let by = self.clock_ahead(now);
        let file = File {
            account: self.account.clone(),
            steps: moved(self.steps.clone(), by),
            limited: self.limited.map(|limited| Limit::new(limited, now)),
            this_boot: boot.map(|boot| ThisBoot { boot: boot.clone(), booted: self.booted, moved: by }),
            cache: cache.to_owned(),
        };
        serde_json::to_vec(&file)
    }

    /// How many steps the wall clock is ahead of what this counts by, to the nearest: a clock that is slewed moves nothing.
    fn clock_ahead(&self, now: Now) -> i64 {
        let step = STEP.as_millis() as i128;
        let millis = i128::from(now.setting().millis()) - i128::from(self.booted);
        ((millis + step / 2).div_euclid(step)).try_into().unwrap_or(0)
    }
}

/// Steps that many later, as far as that can be expressed.
fn moved(steps: BTreeMap<u64, u32>, by: i64) -> BTreeMap<u64, u32> {
    sum(steps.into_iter().map(|(step, count)| (step.saturating_add_signed(by), count)))
}

fn sum(steps: impl Iterator<Item = (u64, u32)>) -> BTreeMap<u64, u32> {
    let mut all = BTreeMap::new();
    for (step, count) in steps {
        let sum: &mut u32 = all.entry(step).or_default();
        *sum = sum.saturating_add(count);
    }
    all
}

impl Limit {
    fn new(limited: Limited, now: Now) -> Self {
        let Limited { until, told, next_rest } = limited;
        let date = until.date(now).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = date.as_millis().try_into().unwrap_or(u64::MAX);
        Self { until: millis, told, next_rest, moment: until.moment().map(Moment::millis) }
    }

    fn opened(self, now: Now, is_of_this_boot: bool) -> Limited {
        let Self { until, told, next_rest, moment } = self;
        let moment = moment.map(Moment::from_millis).filter(|_| is_of_this_boot);
        let date = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(until));
        let until = match moment.filter(|moment| moment.since(now.moment) <= LONGEST_LIMIT) {
            Some(moment) => moment.into(),
            None => Stamp::Earlier(date.unwrap_or(SystemTime::UNIX_EPOCH)),
        };
        Limited { until, told, next_rest }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::providers::budget::{Budget, Purpose};

    const MINUTE: Duration = Duration::from_secs(60);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    fn at(minutes: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + minutes * MINUTE
    }

    /// With a clock that is right.
    fn now(minutes: u32) -> Now {
        Now { date: at(minutes), moment: Moment::BOOT + minutes * MINUTE }
    }

    fn ahead(now: Now) -> Now {
        Now { date: now.date + YEAR, ..now }
    }

    fn behind(now: Now) -> Now {
        Now { date: now.date - YEAR, ..now }
    }

    fn boot(name: &str) -> Boot {
        Boot::named(name)
    }

    /// A ledger of 4 requests in the first minute and 3 in the 40th, with a limit from there to the 50th.
    fn ledger(clock: fn(Now) -> Now) -> Ledger {
        let mut ledger = Ledger::new(clock(now(0)));
        ledger.spend(now(0).moment, 4);
        ledger.spend(now(40).moment, 3);
        let clocks = clock(now(40));
        ledger.limit(clocks, Some(clocks.moment + 10 * MINUTE));
        ledger
    }

    fn passed_on(ledger: &Ledger, then: Now, boots: [&str; 2], now: Now) -> Ledger {
        let text = ledger.to_file(then, Some(&boot(boots[0])), "").unwrap();
        Ledger::open(&text, now, Some(&boot(boots[1]))).unwrap().0
    }

    fn used(ledger: &Ledger, now: Now) -> (u32, u32) {
        (ledger.last_hour(now.moment), ledger.last_day(now.moment))
    }

    /// The minutes that a limit still lasts.
    fn limited(ledger: &Ledger, now: Now) -> Option<u64> {
        Some(ledger.told_until(now)?.since(now.moment).as_secs() / 60)
    }

    /// The machine was booted anew, so many minutes before.
    fn rebooted(up: u32, date: SystemTime) -> Now {
        Now { date, moment: Moment::BOOT + up * MINUTE }
    }

    #[test]
    fn the_ledger_goes_on_through_restarts_and_reboots() {
        let before = ledger(|now| now);
        assert_eq!(passed_on(&before, now(42), ["one", "one"], now(43)).steps, before.steps);
        let next = rebooted(1, at(45));
        for ledger in [
            passed_on(&before, now(42), ["one", "two"], next),
            Ledger::open(&before.to_file(now(42), None, "").unwrap(), next, None).unwrap().0,
        ] {
            assert_eq!((used(&ledger, next), limited(&ledger, next)), ((7, 7), Some(5)));
            assert_eq!(used(&ledger, rebooted(31, at(75))), (3, 7));
        }
    }

    #[test]
    fn a_step_of_the_clock_between_two_instances_of_the_service_neither_frees_nor_blocks_its_budget() {
        let clocks: [fn(Now) -> Now; 3] = [|now| now, ahead, behind];
        for before in clocks {
            for after in clocks {
                let then = after(now(43));
                let ledger = passed_on(&ledger(before), before(now(42)), ["one", "one"], then);
                assert_eq!((used(&ledger, then), limited(&ledger, then)), ((7, 7), Some(7)));
                assert_eq!(used(&ledger, after(now(75))), (3, 7));
                assert_eq!(used(&ledger, after(now(26 * 60))), (0, 0));
            }
        }
    }

    #[test]
    fn a_clock_that_is_set_right_while_the_service_runs_dates_its_requests_right_for_the_next_boot() {
        for wrong in [ahead, behind] {
            let ledger = ledger(wrong);
            assert_eq!((used(&ledger, now(41)), limited(&ledger, now(41))), ((7, 7), Some(9)));
            let next = rebooted(1, at(75));
            let ledger = passed_on(&ledger, now(41), ["one", "two"], next);
            assert_eq!(used(&ledger, next), (3, 7));
        }
    }

    #[test]
    fn a_budget_that_a_clock_far_ahead_saw_used_up_is_free_again_in_a_day() {
        // The file is from the clock's future: it is behind now, or was ahead.
        for (before, next) in [(ahead(now(42)), rebooted(1, at(45))), (now(42), behind(rebooted(1, at(45))))]
        {
            let ledger = passed_on(
                &ledger(if before.date > at(42) { ahead } else { |now| now }),
                before,
                ["one", "two"],
                next,
            );
            assert_eq!((used(&ledger, next), limited(&ledger, next)), ((7, 7), None));
            let later = |minutes: u32| Now { moment: next.moment + minutes * MINUTE, ..next };
            assert_eq!(used(&ledger, later(30)), (3, 7), "those of the hour before keep their distance");
            assert_eq!(used(&ledger, later(70)), (0, 7));
            assert_eq!(used(&ledger, later(25 * 60)), (0, 0));
        }
    }

    #[test]
    fn a_limit_of_an_earlier_boot_counts_when_the_clock_is_right_and_never_for_more_than_a_day() {
        let before = ledger(|now| now);
        for wrong in [ahead, behind] {
            let next = wrong(rebooted(1, at(45)));
            let ledger = passed_on(&before, now(42), ["one", "two"], next);
            assert_eq!(limited(&ledger, next), None);
            assert_eq!(limited(&ledger, rebooted(2, at(46))), Some(4), "the clock was set right");
            // It is passed on as it is.
            let ledger = passed_on(&ledger, next, ["two", "two"], next);
            assert_eq!(limited(&ledger, rebooted(2, at(46))), Some(4));
        }
        let ledger = passed_on(&before, now(42), ["one", "two"], rebooted(1, at(0)));
        assert_eq!(limited(&ledger, rebooted(1, at(50) - DAY)), Some(24 * 60));
        assert_eq!(limited(&ledger, rebooted(1, at(49) - DAY)), None);
    }

    #[test]
    fn a_file_of_an_older_opnix_is_read_and_an_older_opnix_reads_this_one() {
        let old = r#"{"account":"a","steps":{"6000000":4},"limited":{"until":1800000600000,"told":true,"next_rest":{"secs":600,"nanos":0}}}"#;
        let next = rebooted(1, at(3));
        let read = Ledger::open(old.as_bytes(), next, Some(&boot("one"))).unwrap().0;
        assert_eq!((used(&read, next), limited(&read, next)), ((4, 4), Some(7)));
        assert_eq!(read.account.as_deref(), Some("a"));
        assert_eq!(String::from_utf8(read.to_file(next, None, "").unwrap()).unwrap(), old);
        let written: serde_json::Value =
            serde_json::from_slice(&ledger(|now| now).to_file(now(41), Some(&boot("one")), "").unwrap())
                .unwrap();
        assert_eq!(written["steps"], serde_json::json!({"6000000": 4, "6000008": 3}));
        assert_eq!(written["limited"]["until"], 1_800_003_000_000u64);
    }

    #[test]
    fn no_content_of_the_file_makes_it_panic() {
        let long = r#"{"secs": 18446744073709551615, "nanos": 999999999}"#;
        for until in [0, 1, u64::MAX] {
            for next_rest in [r#"{"secs": 0, "nanos": 0}"#, long] {
                for (booted, moved) in [(0, i64::MIN), (u64::MAX, 0), (9, i64::MAX)] {
                    let steps =
                        r#"{"0": 1, "18446744073709551614": 4294967295, "18446744073709551615": 4294967295}"#;
                    let limited = format!(
                        r#"{{"until": {until}, "moment": {until}, "told": true, "next_rest": {next_rest}}}"#
                    );
                    let here = format!(r#"{{"boot": "one", "booted": {booted}, "moved": {moved}}}"#);
                    let text = format!(
                        r#"{{"account": null, "steps": {steps}, "limited": {limited}, "this_boot": {here}}}"#
                    );
                    for name in ["one", "two"] {
                        let mut ledger = Ledger::open(text.as_bytes(), now(1), Some(&boot(name))).unwrap().0;
                        assert_eq!(ledger.limited_until(now(1)), None, "no limit is that long");
                        assert_eq!(ledger.last_day(now(1).moment), u32::MAX);
                        ledger.spend(now(1).moment, 1);
                        assert_eq!(ledger.last_day(now(1).moment), u32::MAX);
                        ledger.limit(now(1), None);
                        let rest = ledger.limited_until(now(1)).unwrap().since(now(1).moment);
                        assert!((10 * MINUTE..=60 * MINUTE).contains(&rest), "{rest:?}");
                        assert!(!ledger.to_file(now(1), None, "").unwrap().is_empty());
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_steps_of_the_clock_and_no_restarts_exceed_the_budget_or_keep_it_used_up(
            requests in proptest::collection::vec(
                (0u32..300, 1u32..20, prop_oneof![Just(0i64), -90_000_000i64..90_000_000], any::<bool>()), 0..60),
            hourly in 1u32..60, daily in 1u32..100,
        ) {
            let budget = Budget { hourly: Some(hourly), daily: Some(daily) };
            let (mut minute, mut offset) = (0, 0);
            let clocks = |minute: u32, offset: i64| {
                let date = 1_800_000_000 + i64::from(minute) * 60 + offset;
                Now { date: SystemTime::UNIX_EPOCH + Duration::from_secs(date as u64), ..now(minute) }
            };
            let mut ledger = Ledger::new(clocks(0, 0));
            let mut sent: Vec<(u32, u32)> = Vec::new();
            for (pause, cost, step, restarts) in requests {
                minute += pause;
                let before = clocks(minute, offset);
                offset = (offset + step).clamp(-1_000_000_000, 1_000_000_000);
                if restarts {
                    ledger = passed_on(&ledger, before, ["one", "one"], clocks(minute, offset));
                }
                let at = clocks(minute, offset).moment;
                if ledger.affords(at, &budget, cost, Purpose::Start) {
                    ledger.spend(at, cost);
                    sent.push((minute, cost));
                }
                let within = |window: u32| -> u32 {
                    sent.iter().filter(|(when, _)| when + window > minute).map(|(_, cost)| cost).sum()
                };
                prop_assert!(within(60) <= hourly && within(24 * 60) <= daily);
            }
            prop_assert_eq!(ledger.last_day(now(minute + 25 * 60).moment), 0);
        }
    }
}
