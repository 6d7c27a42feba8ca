//! Points in time that setting the clock does not move: pauses and intervals are measured by them. The wall clock only
//! tells ages and dates.

use std::ops::Add;
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

/// A point in time, since the machine booted. Unlike those of `Instant`, whose clock stands still while the machine is
/// suspended, two of them differ by the time that really passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
        let (now, today) = (Self::now(), SystemTime::now());
        let date =
            if self > now { today.checked_add(self.since(now)) } else { today.checked_sub(now.since(self)) };
        date.unwrap_or(today)
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

    #[test]
    fn time_passes_and_has_a_date() {
        let (then, date) = (Moment::now(), SystemTime::now());
        let hour = Duration::from_secs(60 * 60);
        assert!(Moment::now() >= then && then > Moment::BOOT);
        assert_eq!(((then + hour).since(then), then.since(then + hour)), (hour, Duration::ZERO));
        let off = (then + hour).date().duration_since(date).unwrap().as_secs();
        assert!((3590..3610).contains(&off), "{off}");
    }

    #[test]
    fn what_is_out_of_reach_is_no_panic() {
        let never = Moment::BOOT + Duration::MAX + Duration::MAX;
        assert!(never > Moment::now());
        let _ = never.date();
    }
}
