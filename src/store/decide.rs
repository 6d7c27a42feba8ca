//! What to do about a value that was fetched some time ago, and how the provider is. Pure: time comes in from outside.

use std::time::Duration;

use crate::moment::Now;
use crate::providers::budget::{Budget, Purpose};
use crate::providers::ledger::Meter;

/// Where a value may be kept, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// Not at all: every start asks 1Password.
    Never,
    /// Until the service ends.
    Memory,
    /// On disk too, sealed.
    Sealed,
}

/// How one secret may be kept and used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub keep: Keep,
    /// Younger than this, a value is served without asking 1Password.
    pub fresh_for: Duration,
    /// Younger than this, it is served when 1Password cannot be asked.
    pub stale_for: Duration,
    /// Never serve it without asking 1Password.
    pub always_fetch: bool,
    /// How long a value is still served when 1Password says that it is not there, or not ours, any more.
    pub grace: Duration,
}

impl Settings {
    /// What both allow: two entries of the configuration can have one reference.
    #[must_use]
    pub fn strictest(self, other: Self) -> Self {
        Self {
            keep: self.keep.min(other.keep),
            fresh_for: self.fresh_for.min(other.fresh_for),
            stale_for: self.stale_for.min(other.stale_for),
            always_fetch: self.always_fetch || other.always_fetch,
            grace: self.grace.min(other.grace),
        }
    }
}

/// What is known of a value that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// How long ago 1Password last gave or confirmed it. `None` when that was in an earlier boot and, by the wall clock, lies
    /// in the future.
    pub age: Option<Duration>,
    /// How long 1Password has said that it is not there, or not ours.
    pub denied_for: Option<Duration>,
    /// The configuration was reloaded since: whoever did that wants what is true now.
    pub doubtful: bool,
}

/// How the provider is, as far as we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Nothing is known against it.
    Up,
    /// It cannot be reached, is out of order or slow, or rejects our token.
    Down,
    /// Our own budget of requests is used up, or its limit is reached and nobody knows until when.
    Spent,
    /// It told us not to ask again before a certain time.
    Limited,
}

/// What limits requests to the provider.
pub struct Limits<'a> {
    pub meter: &'a Meter,
    pub budget: &'a Budget,
    /// How long a unit may wait.
    pub deadline: Duration,
}

impl Limits<'_> {
    /// `down`: it was found not to work.
    pub fn health(&self, down: bool, now: Now) -> Health {
        let ledger = self.meter.ledger();
        // A limit that ends before a unit's time does can be waited for.
        if ledger.told_until(now).is_some_and(|until| until > now.moment + self.deadline) {
            Health::Limited
        } else if down {
            Health::Down
        } else if ledger.limited_until(now).is_some()
            || !ledger.affords(now.moment, self.budget, 1, Purpose::Start)
        {
            Health::Spent
        } else {
            Health::Up
        }
    }

    /// Whether a unit's request stays within the budget.
    pub fn affords(&self, now: Now) -> bool {
        self.meter.ledger().affords(now.moment, self.budget, 1, Purpose::Start)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The value that is kept, at once.
    Serve,
    /// The value that is kept, at once and with a warning; the next refresh is to renew it.
    ServeAndRefresh,
    /// Ask 1Password. `fall_back`: only briefly, then serve the value that is kept, with a warning.
    Fetch { fall_back: bool },
    /// There is nothing to serve, and 1Password is not to be asked.
    Refuse,
}

pub fn decide(known: Option<Known>, settings: &Settings, health: Health) -> Decision {
    let usable = known.filter(|known| {
        let denied = known.denied_for.is_some_and(|denied| denied >= settings.grace);
        // A clock that is behind says nothing about the age; machines without a hardware clock boot in the past.
        let too_old = known.age.is_some_and(|age| age >= settings.stale_for);
        !settings.always_fetch && !denied && !too_old
    });
    let Some(known) = usable else {
        return match health {
            Health::Limited => Decision::Refuse,
            // What a unit cannot start without is asked for in any case: the provider may be back, and the budget is
            // only our own.
            Health::Up | Health::Down | Health::Spent => Decision::Fetch { fall_back: false },
        };
    };
    let fresh = known.age.is_some_and(|age| age < settings.fresh_for);
    match health {
        _ if fresh && known.denied_for.is_none() && !known.doubtful => Decision::Serve,
        Health::Up => Decision::Fetch { fall_back: true },
        Health::Down | Health::Spent | Health::Limited => Decision::ServeAndRefresh,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn settings() -> Settings {
        Settings {
            keep: Keep::Sealed,
            fresh_for: 15 * MINUTE,
            stale_for: 600 * MINUTE,
            always_fetch: false,
            grace: 60 * MINUTE,
        }
    }

    fn aged(minutes: u32) -> Option<Known> {
        Some(Known { age: Some(minutes * MINUTE), denied_for: None, doubtful: false })
    }

    #[test]
    fn a_value_is_served_asked_for_or_refused_by_its_age() {
        use Decision::*;
        use Health::*;
        let table = [
            (aged(0), [Serve, Serve, Serve, Serve]),
            (aged(14), [Serve, Serve, Serve, Serve]),
            (aged(15), [Fetch { fall_back: true }, ServeAndRefresh, ServeAndRefresh, ServeAndRefresh]),
            (aged(599), [Fetch { fall_back: true }, ServeAndRefresh, ServeAndRefresh, ServeAndRefresh]),
            (
                aged(600),
                [Fetch { fall_back: false }, Fetch { fall_back: false }, Fetch { fall_back: false }, Refuse],
            ),
            (
                None,
                [Fetch { fall_back: false }, Fetch { fall_back: false }, Fetch { fall_back: false }, Refuse],
            ),
        ];
        for (known, expected) in table {
            let decisions = [Up, Down, Spent, Limited].map(|health| decide(known, &settings(), health));
            assert_eq!(decisions, expected, "{known:?}");
        }
    }

    #[test]
    fn what_1password_denies_is_served_for_the_grace_only() {
        let denied = |minutes| Some(Known { denied_for: Some(minutes * MINUTE), ..aged(1).unwrap() });
        assert_eq!(decide(denied(0), &settings(), Health::Up), Decision::Fetch { fall_back: true });
        assert_eq!(decide(denied(59), &settings(), Health::Down), Decision::ServeAndRefresh);
        assert_eq!(decide(denied(60), &settings(), Health::Up), Decision::Fetch { fall_back: false });
        assert_eq!(decide(denied(60), &settings(), Health::Limited), Decision::Refuse);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_value_fresh_and_none_too_old() {
        let known = Some(Known { age: None, denied_for: None, doubtful: false });
        assert_eq!(decide(known, &settings(), Health::Up), Decision::Fetch { fall_back: true });
        assert_eq!(decide(known, &settings(), Health::Down), Decision::ServeAndRefresh);
    }

    prop_compose! {
        fn any_settings()(
            keep in prop_oneof![Just(Keep::Never), Just(Keep::Memory), Just(Keep::Sealed)],
            fresh in 0u64..1000, more in 0u64..1000, always_fetch: bool, grace in 0u64..1000,
        ) -> Settings {
            let seconds = Duration::from_secs;
            Settings { keep, fresh_for: seconds(fresh), stale_for: seconds(fresh + more), always_fetch, grace: seconds(grace) }
        }
    }

    prop_compose! {
        fn any_known()(
            age in proptest::option::of(0u64..3000), denied in proptest::option::of(0u64..3000), doubtful: bool,
        ) -> Known {
            Known {
                age: age.map(Duration::from_secs),
                denied_for: denied.map(Duration::from_secs),
                doubtful,
            }
        }
    }

    fn any_health() -> impl Strategy<Value = Health> {
        prop_oneof![Just(Health::Up), Just(Health::Down), Just(Health::Spent), Just(Health::Limited)]
    }

    fn serves(decision: Decision) -> bool {
        matches!(decision, Decision::Serve | Decision::ServeAndRefresh | Decision::Fetch { fall_back: true })
    }

    proptest! {
        #[test]
        fn nothing_is_served_that_is_too_old_denied_for_too_long_or_to_be_fetched_always(
            known in any_known(), settings in any_settings(), health in any_health(),
        ) {
            let decision = decide(Some(known), &settings, health);
            let too_old = known.age.is_some_and(|age| age >= settings.stale_for);
            let gone = known.denied_for.is_some_and(|denied| denied >= settings.grace);
            prop_assert_eq!(serves(decision), !(too_old || gone || settings.always_fetch));
        }

        #[test]
        fn a_value_that_ages_is_never_served_more_readily(
            known in any_known(), settings in any_settings(), health in any_health(), later in 0u64..1000,
        ) {
            let readiness = |known: Known| match decide(Some(known), &settings, health) {
                Decision::Serve => 0,
                Decision::ServeAndRefresh | Decision::Fetch { fall_back: true } => 1,
                Decision::Fetch { fall_back: false } | Decision::Refuse => 2,
            };
            let older = Known { age: known.age.map(|age| age + Duration::from_secs(later)), ..known };
            prop_assert!(readiness(older) >= readiness(known));
        }

        #[test]
        fn no_start_waits_for_a_provider_that_is_known_to_be_down_if_a_value_will_do(
            known in any_known(), settings in any_settings(),
            health in prop_oneof![Just(Health::Down), Just(Health::Spent), Just(Health::Limited)],
        ) {
            prop_assert_ne!(decide(Some(known), &settings, health), Decision::Fetch { fall_back: true });
        }

        #[test]
        fn the_strictest_of_two_settings_serves_only_what_both_serve(
            known in any_known(), one in any_settings(), other in any_settings(), health in any_health(),
        ) {
            let both = one.strictest(other);
            if serves(decide(Some(known), &both, health)) {
                prop_assert!(serves(decide(Some(known), &one, health)) && serves(decide(Some(known), &other, health)));
            }
            prop_assert_eq!(both, other.strictest(one));
        }
    }
}
