//! Whether the provider works, as far as the last attempts tell: what lets a thousand starts wait for it only once.

use std::mem::discriminant;
use std::time::Duration;

use crate::moment::Moment;
use crate::providers::FetchError;

/// How long to wait before it is tried again in the background; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);
/// No longer than this while something waits for it, if it may come back by itself.
const EAGER_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Breaker(Option<Down>);

/// A provider that does not work.
#[derive(Debug, Clone)]
pub struct Down {
    pub since: Moment,
    pub error: FetchError,
    /// When it was last tried, whoever did.
    pub tried: Moment,
    /// When to try again, if nobody does before.
    probe: Moment,
    next_pause: Duration,
    /// How often in a row it was tried.
    tries: u32,
}

impl Breaker {
    pub fn down(&self) -> Option<&Down> {
        self.0.as_ref()
    }

    pub fn works(&mut self) {
        self.0 = None;
    }

    /// The same for a store that takes over. A reload mends nothing by itself, but something may have been mended before it: it is
    /// tried again at once, whatever the last tries came to.
    pub fn handed_on(&self, now: Moment) -> Self {
        Self(self.0.clone().map(|down| Down { probe: now, next_pause: FIRST_PAUSE, tries: 1, ..down }))
    }

    /// `spread`, from 0 to 1, keeps machines that failed together from trying again together.
    pub fn fails(&mut self, now: Moment, error: FetchError, spread: f64) {
        let before = self.0.take();
        let since = before.as_ref().map_or(now, |down| down.since);
        // An outage, whichever words it has each time, or once more the same that only a person can mend.
        let passes = error.consequences().retry;
        let same = before.filter(|down| match passes {
            true => down.error.consequences().retry,
            false => discriminant(&down.error) == discriminant(&error),
        });
        let tries = same.as_ref().map_or(0, |down| down.tries).saturating_add(1);
        let (probe, next_pause) = match same {
            // Units that try on their own account do not make it come later.
            Some(down) if now < down.probe => (down.probe, down.next_pause),
            same => {
                let pause = match same {
                    None => FIRST_PAUSE,
                    Some(down) if passes => down.next_pause,
                    // Once may be a mistake; each further try may count against the limits.
                    Some(_) => LONGEST_PAUSE,
                };
                (now + pause.mul_f64(0.5 + spread / 2.0), (pause * 2).min(LONGEST_PAUSE))
            }
        };
        self.0 = Some(Down { since, error, tried: now, probe, next_pause, tries });
    }
}

impl Down {
    /// When to try again, if nobody does before. `awaited`: somebody waits for it to work.
    pub fn probe(&self, awaited: bool) -> Moment {
        if awaited && (self.error.consequences().retry || self.error.is_local()) {
            self.probe.min(self.tried + EAGER_PAUSE)
        } else {
            self.probe
        }
    }

    /// Whether a unit that has nothing else is refused without asking: it was tried twice, and asking cannot mend it.
    pub fn stands(&self, now: Moment) -> bool {
        self.tries > 1 && !self.error.consequences().retry && now < self.probe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> FetchError {
        FetchError::Unreachable { why: "down".into(), at: Default::default() }
    }

    fn probe(breaker: &Breaker) -> Moment {
        breaker.down().unwrap().probe(false)
    }

    #[test]
    fn it_is_tried_again_less_and_less_often_until_it_works() {
        let mut now = Moment::BOOT;
        let mut breaker = Breaker::default();
        let mut pauses = Vec::new();
        for _ in 0..10 {
            breaker.fails(now, unreachable(), 1.0);
            // What units try meanwhile changes nothing.
            breaker.fails(now + Duration::from_secs(1), unreachable(), 1.0);
            pauses.push(probe(&breaker).since(now).as_secs());
            now = probe(&breaker);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]);
        let down = breaker.down().unwrap();
        assert_eq!(down.probe(true), down.tried + EAGER_PAUSE, "somebody waits");
        assert!(!down.stands(now), "it may come back at any moment");
        breaker.works();
        assert!(breaker.down().is_none());
        breaker.fails(now, unreachable(), 0.0);
        assert_eq!(probe(&breaker), now + FIRST_PAUSE / 2);
    }

    #[test]
    fn what_only_a_person_can_mend_is_tried_once_more_and_then_rarely() {
        let mut now = Moment::BOOT;
        let mut breaker = Breaker::default();
        let mut pauses = Vec::new();
        for _ in 0..3 {
            breaker.fails(now, FetchError::TokenRejected, 1.0);
            pauses.push(probe(&breaker).since(now).as_secs());
            assert_eq!(breaker.down().unwrap().probe(true), probe(&breaker), "whoever waits");
            now = probe(&breaker);
        }
        assert_eq!(pauses, [5, 900, 900]);
        let mut breaker = Breaker::default();
        breaker.fails(now, FetchError::TokenRejected, 1.0);
        assert!(!breaker.down().unwrap().stands(now), "it may have been a mistake");
        breaker.fails(now, FetchError::TokenRejected, 1.0);
        assert!(breaker.down().unwrap().stands(now) && !breaker.down().unwrap().stands(now + FIRST_PAUSE));
    }

    #[test]
    fn since_when_it_is_down_is_kept_and_why_is_renewed() {
        let (first, later) = (Moment::BOOT, Moment::BOOT + Duration::from_secs(1));
        let mut breaker = Breaker::default();
        breaker.fails(first, unreachable(), 0.5);
        breaker.fails(later, FetchError::TokenRejected, 0.0);
        let down = breaker.down().unwrap();
        assert_eq!((down.since, &down.error), (first, &FetchError::TokenRejected));
        assert_eq!(down.probe(true), later + FIRST_PAUSE / 2);
    }
}
