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
    /// How many fetches in a row that units asked for came to nothing although the provider works.
    in_a_row: u32,
    /// The same of those that the background asked for since, which keep no unit from asking.
    sought: u32,
}

impl Failure {
    /// `last` is the failure before it, if no success came between them.
    pub fn new(error: FetchError, at: Moment, last: Option<&Self>) -> Self {
        // When an outage ends, nobody is to wait any longer.
        let is_outage =
            error.consequences().provider_is_down && !matches!(error, FetchError::RateLimited { .. });
        let before = last.map_or(0, |last| last.in_a_row);
        let sought = last.map_or(0, |last| last.sought);
        Self { error, at, in_a_row: if is_outage { 0 } else { before + 1 }, sought }
    }

    /// The same of a fetch that only the background asked for.
    pub fn sought(error: FetchError, at: Moment, last: Option<&Self>) -> Self {
        let sought = last.map_or(0, |last| last.sought);
        Self { sought: sought.saturating_add(1), ..Self::passing(error, at, last) }
    }

    /// The same of one that is tried again at once, or goes on: it is told, and does not count.
    pub fn passing(error: FetchError, at: Moment, last: Option<&Self>) -> Self {
        let (in_a_row, sought) = last.map_or((0, 0), |last| (last.in_a_row, last.sought));
        Self { error, at, in_a_row, sought }
    }

    /// When the background asks again for somebody who waits.
    pub fn next(&self) -> Moment {
        self.at + pause(self.in_a_row.max(self.sought + 1)).unwrap_or(FIRST_PAUSE)
    }

    /// Whether it is too early to ask again. A unit that systemd starts again and again, for a value that cannot be had, must
    /// not use up the limits of the account.
    pub fn stands(&self, now: Moment) -> bool {
        pause(self.in_a_row).is_some_and(|pause| now.since(self.at) < pause)
    }
}

fn pause(in_a_row: u32) -> Option<Duration> {
    let doublings = in_a_row.checked_sub(2)?;
    Some(FIRST_PAUSE.saturating_mul(1 << doublings.min(16)).min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> FetchError {
        FetchError::VaultNotFound { vault: "v".into(), has: Vec::new() }
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
    fn the_background_asks_less_and_less_often_and_keeps_no_unit_from_asking() {
        let mut at = Moment::BOOT;
        let mut failure = Failure::new(denied(), at, None);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            pauses.push(failure.next().since(at).as_secs());
            at = failure.next();
            failure = Failure::sought(denied(), at, Some(&failure));
            assert!(!failure.stands(at));
        }
        assert_eq!(pauses, [5, 5, 10, 20, 40, 80, 160, 320, 640, 900]);
        assert!(Failure::new(denied(), at, Some(&failure)).stands(at), "units alone count for units");
    }

    #[test]
    fn an_outage_says_nothing_about_the_value() {
        let at = Moment::BOOT;
        let twice = Failure::new(denied(), at, Some(&Failure::new(denied(), at, None)));
        let down = Failure::new(
            FetchError::Unreachable { why: "down".into(), at: Default::default() },
            at,
            Some(&twice),
        );
        assert!(twice.stands(at) && !down.stands(at));
        assert!(!Failure::new(denied(), at, Some(&down)).stands(at));
    }
}
