//! Points in time that setting the clock does not move: ages, pauses and intervals are measured by them. The wall clock
//! only tells dates, and how old is what is from before the machine booted.

use std::ops::Add;
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// By how much the wall clock must have been set, in milliseconds, for dates on disk to be written anew.
const SET: u64 = 60_000;

/// A point in time, since the machine booted. Unlike those of `Instant`, whose clock stands still while the machine is
/// suspended, two of them differ by the time that really passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(Duration);

impl Moment {
    pub const BOOT: Self = Self(Duration::ZERO);

    pub fn now() -> Self {
        // Linux always has this clock, and it is never negative; and a service must not end over it.
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Self::BOOT, |time| Self(time.into()))
    }

    /// Zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// What the wall clock said or will say then, if it is right now and is not set again.
    #[must_use]
    pub fn date(self) -> SystemTime {
        Now::read().date_of(self)
    }

    /// For a file, which tells of which boot it is ([`crate::boot`]).
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0.as_millis().try_into().unwrap_or(u64::MAX)
    }

    pub fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

/// A point in time by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// What the wall clock says.
    pub date: SystemTime,
    pub moment: Moment,
}

impl Now {
    pub fn read() -> Self {
        Self { date: SystemTime::now(), moment: Moment::now() }
    }

    /// See [`Moment::date`].
    #[must_use]
    pub fn date_of(self, moment: Moment) -> SystemTime {
        let date = if moment > self.moment {
            self.date.checked_add(moment.since(self.moment))
        } else {
            self.date.checked_sub(self.moment.since(moment))
        };
        date.unwrap_or(self.date)
    }

    #[must_use]
    pub fn setting(self) -> Setting {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let date = match self.date.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => millis(since),
            Err(before) => -millis(before.duration()),
        };
        Setting(date.saturating_sub(millis(self.moment.0)))
    }
}

/// How the wall clock is set: when the machine booted, by that clock, in milliseconds since 1970. Nothing but setting the
/// clock changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Setting(i64);

impl Setting {
    pub fn millis(self) -> i64 {
        self.0
    }

    /// Whether the clock was set between these two, by more than is worth no thought.
    pub fn differs(self, other: Self) -> bool {
        self.0.abs_diff(other.0) > SET
    }
}

/// A point in time that is remembered through reboots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// Whatever the wall clock is set to, this is as long ago as it is.
    ThisBoot(Moment),
    /// In an earlier boot, of which there is only what the wall clock said.
    Earlier(SystemTime),
}

impl Stamp {
    /// `None` when, by the wall clock, it lies in the future: it can be right now, or have been then, but not both.
    pub fn age(self, now: Now) -> Option<Duration> {
        match self {
            Self::ThisBoot(moment) => Some(now.moment.since(moment)),
            Self::Earlier(date) => now.date.duration_since(date).ok(),
        }
    }

    /// For the next boot, by the wall clock as it is now, which may have been set right since.
    pub fn date(self, now: Now) -> SystemTime {
        match self {
            Self::ThisBoot(moment) => now.date_of(moment),
            Self::Earlier(date) => date,
        }
    }

    /// If it is of this boot.
    pub fn moment(self) -> Option<Moment> {
        match self {
            Self::ThisBoot(moment) => Some(moment),
            Self::Earlier(_) => None,
        }
    }
}

impl From<Moment> for Stamp {
    fn from(moment: Moment) -> Self {
        Self::ThisBoot(moment)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    /// What lies too far ahead to be expressed becomes the latest moment there is, which never comes.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    /// So many hours after boot, when the wall clock says that it is so many hours after a certain date.
    fn now(moment: u32, date: u32) -> Now {
        let from = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        Now { moment: Moment::BOOT + moment * HOUR, date: from + date * HOUR }
    }

    fn ahead(now: Now) -> Now {
        Now { date: now.date + YEAR, ..now }
    }

    fn behind(now: Now) -> Now {
        Now { date: now.date - YEAR, ..now }
    }

    #[test]
    fn time_passes_and_has_a_date() {
        let (then, date) = (Moment::now(), SystemTime::now());
        assert!(Moment::now() >= then && then > Moment::BOOT);
        assert_eq!(((then + HOUR).since(then), then.since(then + HOUR)), (HOUR, Duration::ZERO));
        let off = (then + HOUR).date().duration_since(date).unwrap().as_secs();
        assert!((3590..3610).contains(&off), "{off}");
    }

    #[test]
    fn what_is_out_of_reach_is_no_panic() {
        let never = Moment::BOOT + Duration::MAX + Duration::MAX;
        assert!(never > Moment::now());
        let _ = never.date();
        assert_eq!(Moment::from_millis(never.millis()).millis(), u64::MAX);
        for date in [SystemTime::UNIX_EPOCH - YEAR, SystemTime::UNIX_EPOCH, now(0, 0).date + 8000 * YEAR] {
            for moment in [Moment::BOOT, never] {
                let odd = Now { date, moment };
                assert!(!odd.setting().differs(odd.setting()));
                let _ = (Stamp::from(never).date(odd), Stamp::from(Moment::BOOT).date(odd));
                let _ = (Stamp::from(never).age(odd), Stamp::Earlier(now(0, 0).date).age(odd));
            }
        }
    }

    #[test]
    fn within_a_boot_no_step_of_the_clock_changes_an_age() {
        let stamp = Stamp::from(now(1, 1).moment);
        for later in [now(4, 4), ahead(now(4, 4)), behind(now(4, 4))] {
            assert_eq!(stamp.age(later), Some(3 * HOUR));
        }
        let first = Now { date: SystemTime::UNIX_EPOCH, ..now(4, 4) };
        assert_eq!(stamp.age(first), Some(3 * HOUR), "as a clock that has never been set");
    }

    #[test]
    fn time_that_a_machine_was_suspended_is_age_whether_or_not_its_wall_clock_went_on() {
        let stamp = Stamp::from(now(1, 1).moment);
        assert_eq!(stamp.age(now(101, 101)), Some(100 * HOUR));
        assert_eq!(stamp.age(now(101, 1)), Some(100 * HOUR));
    }

    #[test]
    fn across_boots_the_wall_clock_counts_and_what_is_in_its_future_has_no_age() {
        let stamp = Stamp::Earlier(now(0, 0).date);
        assert_eq!(stamp.age(now(1, 3)), Some(3 * HOUR));
        assert_eq!(stamp.age(ahead(now(1, 3))), Some(YEAR + 3 * HOUR));
        assert_eq!(stamp.age(behind(now(1, 3))), None);
        assert_eq!(stamp.date(behind(now(1, 3))), now(0, 0).date, "it is right again when the clock is");
    }

    #[test]
    fn a_clock_that_is_set_right_corrects_the_dates_of_this_boot() {
        let stamp = Stamp::from(now(1, 1).moment);
        for wrong in [ahead(now(2, 2)), behind(now(2, 2))] {
            assert!(stamp.date(wrong) != now(1, 1).date);
            assert!(wrong.setting().differs(now(3, 3).setting()));
            assert_eq!(stamp.date(now(3, 3)), now(1, 1).date);
        }
    }

    #[test]
    fn neither_time_nor_suspension_counts_as_setting_the_clock() {
        assert!(!now(1, 1).setting().differs(now(1000, 1000).setting()));
        let slewed = Now { date: now(2, 2).date + Duration::from_secs(30), ..now(2, 2) };
        assert!(!now(1, 1).setting().differs(slewed.setting()));
        assert!(now(1, 1).setting().differs(now(101, 1).setting()), "it stood still");
    }
}
