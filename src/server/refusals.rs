//! What units were refused, for whatever reason, and have not got since: for administrators to see, and to be told in the journals of
//! the units.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

use super::refusal::Refusal;
use crate::moment::Moment;
use crate::peer::Claim;
use crate::remedy::Remedy;

/// How many are remembered, the last ones first.
const MOST: usize = 4096;
/// How many numbers there are for each millisecond: more than there can be refusals, so that those of the next instance are higher.
const NUMBERS: u64 = 1024;
/// The check of a refusal for want of a right.
const POLICY: &str = "policy";

/// In memory only: who was refused by an earlier instance and still needs its secret asks again.
pub struct Refusals {
    list: Mutex<List>,
    news: watch::Sender<()>,
}

struct List {
    /// Of the last refusal. It goes up through restarts of the service as well, within a boot.
    last: u64,
    refused: BTreeMap<Claim, Refused>,
    by_number: BTreeMap<u64, Claim>,
}

/// What a unit was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub number: u64,
    /// When it was last.
    pub at: SystemTime,
    /// How often, in this run of the service.
    pub times: u64,
    pub check: &'static str,
    /// With what to do about it.
    pub reason: String,
}

impl Refusals {
    pub fn new() -> Self {
        let last = Moment::now().millis().saturating_mul(NUMBERS);
        let list = List { last, refused: BTreeMap::new(), by_number: BTreeMap::new() };
        Self { list: Mutex::new(list), news: watch::Sender::new(()) }
    }

    /// The unit was refused.
    pub fn note(&self, claim: &Claim, refusal: &Refusal) {
        let mut list = self.list();
        let times = list.remove(claim).map_or(0, |before| before.times) + 1;
        list.last += 1;
        let number = list.last;
        let (check, reason) = (refusal.check(), refusal.lines());
        list.by_number.insert(number, claim.clone());
        list.refused.insert(claim.clone(), Refused { number, at: SystemTime::now(), times, check, reason });
        if list.refused.len() > MOST {
            let oldest = list.by_number.first_key_value().map(|(_, claim)| claim.clone());
            oldest.map(|oldest| list.remove(&oldest));
        }
        drop(list);
        self.news.send_replace(());
    }

    /// The unit has its value.
    pub fn settle(&self, claim: &Claim) {
        self.list().remove(claim);
    }

    /// Another configuration is in force, which may give these units these credentials, or not: nobody is refused any more for want of
    /// a right that he has, and nobody misses what he has no right to.
    pub fn judge(&self, maps: impl Fn(&Claim) -> bool) {
        let mut list = self.list();
        let is_over = |(claim, refused): (&Claim, &Refused)| {
            ((refused.check == POLICY) == maps(claim)).then(|| claim.clone())
        };
        let over: Vec<Claim> = list.refused.iter().filter_map(is_over).collect();
        over.iter().for_each(|claim| drop(list.remove(claim)));
    }

    /// All of them, the last first.
    pub fn all(&self) -> Vec<(Claim, Refused)> {
        let list = self.list();
        let one = |claim: &Claim| Some((claim.clone(), list.refused.get(claim)?.clone()));
        list.by_number.values().rev().filter_map(one).collect()
    }

    /// So many of those after this number, the first first, and the number of the last of them; `None`, or a number that there was
    /// not yet: of all.
    pub fn after(&self, number: Option<u64>, most: usize) -> (u64, Vec<(Claim, Refused)>) {
        let list = self.list();
        let number = number.filter(|number| *number <= list.last).unwrap_or(0);
        let one = |claim: &Claim| Some((claim.clone(), list.refused.get(claim)?.clone()));
        let later = list.by_number.range(number + 1..).map(|(_, claim)| claim);
        let some: Vec<_> = later.filter_map(one).take(most).collect();
        let last = if some.len() < most { None } else { some.last().map(|(_, refused)| refused.number) };
        (last.unwrap_or(list.last), some)
    }

    /// Hears of each refusal.
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    fn remove(&mut self, claim: &Claim) -> Option<Refused> {
        let refused = self.refused.remove(claim)?;
        self.by_number.remove(&refused.number);
        Some(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Denied;

    fn claim(unit: &str) -> Claim {
        Claim { unit: unit.parse().unwrap(), credential: "key".parse().unwrap() }
    }

    fn units(some: &[(Claim, Refused)]) -> Vec<&str> {
        some.iter().map(|(claim, _)| claim.unit.as_str()).collect()
    }

    #[test]
    fn each_refusal_is_told_after_the_one_before_and_the_last_of_a_unit_counts() {
        let refusals = Refusals::new();
        let denied = Refusal::Policy(Denied::NotForUnit);
        for unit in ["a.service", "b.service", "a.service", "c.service"] {
            refusals.note(&claim(unit), &denied);
        }
        let (first, some) = refusals.after(None, 2);
        assert_eq!(units(&some), ["b.service", "a.service"]);
        assert_eq!((some[1].1.times, some[1].1.check), (2, "policy"));
        let (last, some) = refusals.after(Some(first), 2);
        assert_eq!(units(&some), ["c.service"]);
        assert_eq!(refusals.after(Some(last), 2), (last, Vec::new()));
        // The numbers of somebody else.
        assert_eq!(refusals.after(Some(u64::MAX), 9).1.len(), 3);
        assert_eq!(units(&refusals.all()), ["c.service", "a.service", "b.service"]);
        refusals.settle(&claim("a.service"));
        assert_eq!(units(&refusals.all()), ["c.service", "b.service"]);
        assert!(
            Refusals::new().after(None, 1).0 < last + NUMBERS,
            "an instance that begins at the same time"
        );
    }

    #[test]
    fn another_configuration_ends_what_it_mends_and_what_it_takes_away() {
        let refusals = Refusals::new();
        for unit in ["mended.service", "denied.service"] {
            refusals.note(&claim(unit), &Refusal::Policy(Denied::NotForUnit));
        }
        for unit in ["waits.service", "left.service"] {
            refusals.note(&claim(unit), &Refusal::Stopping);
        }
        refusals.judge(|claim| ["mended.service", "waits.service"].contains(&claim.unit.as_str()));
        assert_eq!(units(&refusals.all()), ["waits.service", "denied.service"]);
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let refusals = Refusals::new();
        for number in 0..=MOST {
            refusals.note(&claim(&format!("u{number}.service")), &Refusal::WrongSocket);
        }
        let all = refusals.all();
        assert_eq!((all.len(), all[0].0.unit.as_str()), (MOST, format!("u{MOST}.service").as_str()));
        assert!(!units(&all).contains(&"u0.service"), "the oldest goes");
    }
}
