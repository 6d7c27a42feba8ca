//! A failed fetch of one reference, and how long it is not tried again.

use std::time::Duration;

use crate::moment::Moment;
use crate::providers::FetchError;

/// How long units do not ask again for a value that could not be had twice; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, Clone)]
pub struct Failure {
    pub error: FetchError,
    pub at: Moment,
    /// How many fetches in a row came to nothing although the provider works.
    in_a_row: u32,
}

impl Failure {
    /// `last` is the failure before it, if no success came between them.
    pub fn new(error: FetchError, at: Moment, last: Option<&Self>) -> Self {
        // When an outage ends, nobody is to wait any longer.
        let is_outage =
            error.consequences().provider_is_down && !matches!(error, FetchError::RateLimited { .. });
        let before = last.map_or(0, |last| last.in_a_row);
        Self { error, at, in_a_row: if is_outage { 0 } else { before + 1 } }
    }

    /// The same of one that is tried again at once, or goes on: it is told, and does not count.
    pub fn passing(error: FetchError, at: Moment, last: Option<&Self>) -> Self {
        Self { error, at, in_a_row: last.map_or(0, |last| last.in_a_row) }
    }

    /// When the background asks again for somebody who waits.
    pub fn next(&self) -> Moment {
        self.at + self.pause().unwrap_or(FIRST_PAUSE)
    }

    /// Whether it is too early to ask again. A unit that systemd starts again and again, for a value that cannot be had, must
    /// not use up the limits of the account.
    pub fn stands(&self, now: Moment) -> bool {
        self.pause().is_some_and(|pause| now.since(self.at) < pause)
    }

    fn pause(&self) -> Option<Duration> {
        let doublings = self.in_a_row.checked_sub(2)?;
        Some(FIRST_PAUSE.saturating_mul(1 << doublings.min(16)).min(LONGEST_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> FetchError {
        FetchError::VaultNotFound { vault: "v".into() }
    }

    #[test]
    fn what_is_denied_twice_is_asked_for_less_and_less_often() {
        let at = Moment::BOOT;
        let mut failure = Failure::new(denied(), at, None);
        assert!(!failure.stands(at), "it may have been a mistake");
        for pause in [5, 10, 20, 40, 80, 160, 320, 640, 900, 900] {
            failure = Failure::new(denied(), at, Some(&failure));
            assert!(failure.stands(at + Duration::from_secs(pause - 1)), "{pause}");
            assert!(!failure.stands(at + Duration::from_secs(pause)), "{pause}");
        }
    }

    #[test]
    fn an_outage_says_nothing_about_the_value() {
        let at = Moment::BOOT;
        let twice = Failure::new(denied(), at, Some(&Failure::new(denied(), at, None)));
        let down = Failure::new(FetchError::Unreachable { why: "down".into() }, at, Some(&twice));
        assert!(twice.stands(at) && !down.stands(at));
        assert!(!Failure::new(denied(), at, Some(&down)).stands(at));
    }
}
