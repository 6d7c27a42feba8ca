//! What answers and failures say about the provider: whether it works. Pure, as [`State`] is.

use super::state::{Act, Acts, State, Wanted};
use crate::moment::Now;
use crate::providers::FetchError;

impl State {
    /// What failures say about the provider. A limit counts before all else.
    pub fn learn(&mut self, failed: &[(Wanted, FetchError)], now: Now, chance: f64) -> Acts {
        let mut errors: Vec<&FetchError> = failed.iter().map(|(_, error)| error).collect();
        errors.sort_by_key(|error| match error {
            FetchError::RateLimited { .. } => 0,
            error => 1 + u8::from(!error.consequences().provider_is_down),
        });
        errors.first().map_or_else(Acts::default, |error| self.found(error, now, chance))
    }

    /// What one failure says about the provider.
    pub fn found(&mut self, error: &FetchError, now: Now, chance: f64) -> Acts {
        match error {
            FetchError::RateLimited { until } => {
                self.failed_at = self.began;
                // It is not out of order, but not worth waiting for either.
                let back = self.breaker.down().is_some().then_some(Act::Up);
                self.breaker.works();
                Acts(back.into_iter().chain([Act::Limit(*until), Act::Down(None)]).collect())
            }
            error if error.consequences().provider_is_down => {
                self.failed_at = self.began;
                self.fails(error.clone(), now, chance)
            }
            _ => self.works(),
        }
    }

    /// The token is another one: what the last tries came to does not count.
    pub fn forget_failures(&mut self) {
        self.failures.clear();
        self.breaker.works();
    }

    /// The provider does not work: whoever has a value that will do need not wait for it.
    pub fn fails(&mut self, error: FetchError, now: Now, chance: f64) -> Acts {
        let new = self.breaker.down().is_none().then(|| error.clone());
        self.breaker.fails(now.moment, error, chance);
        Acts(vec![Act::Down(new)])
    }

    pub fn works(&mut self) -> Acts {
        let back = self.breaker.down().is_some().then_some(Act::Up);
        self.breaker.works();
        self.failures.retain(|_, failure| !matches!(failure.error, FetchError::RateLimited { .. }));
        Acts(back.into_iter().chain([Act::Lift]).collect())
    }
}
