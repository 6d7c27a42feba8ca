//! Whether the provider works, as far as the last attempts tell: what lets a thousand starts wait for it only once.

use std::time::Duration;

use crate::moment::Moment;
use crate::providers::FetchError;

/// How long to wait before it is tried again in the background; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);
/// The same when each try counts against the limits and only a person can mend it: 1Password rejects the token.
const REJECTED_PAUSE: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Default)]
pub struct Breaker(Option<Down>);

/// A provider that does not work.
#[derive(Debug, Clone)]
pub struct Down {
    pub since: Moment,
    pub error: FetchError,
    /// When to try again, if no unit does before.
    pub probe: Moment,
    next_pause: Duration,
}

impl Breaker {
    pub fn down(&self) -> Option<&Down> {
        self.0.as_ref()
    }

    pub fn works(&mut self) {
        self.0 = None;
    }

    /// `spread`, from 0 to 1, keeps machines that failed together from trying again together.
    pub fn fails(&mut self, now: Moment, error: FetchError, spread: f64) {
        let (since, pause) = self.0.as_ref().map_or((now, FIRST_PAUSE), |down| (down.since, down.next_pause));
        let wait = if error == FetchError::TokenRejected { REJECTED_PAUSE } else { pause };
        let probe = now + wait.mul_f64(0.5 + spread / 2.0);
        self.0 = Some(Down { since, error, probe, next_pause: (pause * 2).min(LONGEST_PAUSE) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> FetchError {
        FetchError::Unreachable { why: "down".into() }
    }

    #[test]
    fn it_is_tried_again_less_and_less_often_until_it_works() {
        let now = Moment::BOOT;
        let mut breaker = Breaker::default();
        let mut pauses = Vec::new();
        for _ in 0..10 {
            breaker.fails(now, unreachable(), 1.0);
            pauses.push(breaker.down().unwrap().probe.since(now).as_secs());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]);
        breaker.works();
        assert!(breaker.down().is_none());
        breaker.fails(now, unreachable(), 0.0);
        assert_eq!(breaker.down().unwrap().probe, now + FIRST_PAUSE / 2);
    }

    #[test]
    fn since_when_it_is_down_is_kept_and_why_is_renewed() {
        let (first, later) = (Moment::BOOT, Moment::BOOT + FIRST_PAUSE);
        let mut breaker = Breaker::default();
        breaker.fails(first, unreachable(), 0.5);
        breaker.fails(later, FetchError::TokenRejected, 0.0);
        let down = breaker.down().unwrap();
        assert_eq!((down.since, &down.error), (first, &FetchError::TokenRejected));
        assert_eq!(down.probe, later + REJECTED_PAUSE / 2);
    }
}
