//! How many requests this machine may send to 1Password.
//!
//! 1Password limits requests by the hour and token, and by the day and account (docs/scale.md). A budget keeps this machine
//! below both.

use std::time::Duration;

pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Requests are counted in steps of this length. A window includes the whole step that it begins in, so that it never counts
/// too few.
pub(super) const STEP: Duration = Duration::from_secs(5 * 60);
/// 1Password's own limits end within a day. A longer one is a mistake, and must not stop this machine for years.
pub(super) const LONGEST_LIMIT: Duration = DAY;

/// How many requests this machine may send in an hour and in a day. `None`: any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    pub hourly: Option<u32>,
    pub daily: Option<u32>,
}

impl Budget {
    /// For five machines in an account of the smallest plan, which allows 1,000 requests a day for all of them together.
    pub const SMALLEST_PLAN: Self = Self { hourly: Some(100), daily: Some(200) };
    pub const NONE: Self = Self { hourly: None, daily: None };

    pub(super) fn windows(&self) -> impl Iterator<Item = (Duration, u32)> {
        [(HOUR, self.hourly), (DAY, self.daily)]
            .into_iter()
            .filter_map(|(window, limit)| Some((window, limit?)))
    }

    /// The shortest interval at which refreshes of `cost` requests each stay within the budget for ever. `None`: not even
    /// one does.
    pub fn least_interval(&self, cost: u32) -> Option<Duration> {
        let mut least = Duration::ZERO;
        for (window, limit) in self.windows() {
            let share = Purpose::Refresh.share(limit);
            if share < cost {
                return None;
            }
            // Rounded up, so that no window holds one refresh too many.
            least = least.max((window + STEP) / (share / cost) + Duration::from_secs(1));
        }
        Some(least)
    }
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A unit waits for it.
    Start,
    /// It keeps values fresh. Only half of the budget is for this.
    Refresh,
}

impl Purpose {
    /// The part of a limit that is for this.
    pub(super) fn share(self, limit: u32) -> u32 {
        match self {
            Self::Start => limit,
            Self::Refresh => limit / 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_that_would_not_last_stretches_the_interval() {
        let hours =
            |budget: Budget, cost| budget.least_interval(cost).map(|least| least.as_secs_f64() / 3600.0);
        // A hundred for refreshes; 16 of 6 requests fit into a day.
        assert_eq!(hours(Budget { hourly: None, daily: Some(200) }, 6).unwrap().round(), 2.0);
        assert_eq!(hours(Budget { hourly: Some(200), daily: None }, 50).unwrap().round(), 1.0);
        assert_eq!(hours(Budget::NONE, 1000), Some(0.0));
        assert_eq!(hours(Budget { hourly: Some(0), daily: None }, 1), None);
        assert_eq!(hours(Budget { hourly: None, daily: Some(10) }, 6), None);
    }
}
