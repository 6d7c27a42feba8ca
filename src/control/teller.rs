//! Tells units what they do not get, and why: in their own journals, where `systemctl status UNIT` and `journalctl -u UNIT` show it.
//! They show only what root wrote, or in a user's manager that user, so the mirror tells the units of the system what it hears
//! of the service, and the service of a user tells that user's units itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::select;
use tokio::time::sleep_until;

use super::interface::Refusal;
use super::unserved::{Delay, Unserved};
use crate::records;
use crate::server::{Feed, Service};

/// How often one refusal is told that comes again and again; what comes between is counted. `systemctl status` shows what is on
/// record since the last start, so each start of a unit that is started again all the time is to have its line, as it has those of
/// systemd.
const PAUSE: Duration = Duration::from_millis(100);
/// How long it is remembered how often a unit was refused.
const MEMORY: Duration = Duration::from_secs(60);
/// How many requests that wait are remembered: as many as can.
const WAITS: usize = 2560;
/// By how many seconds a time that is reckoned anew may be another one.
const JITTER: u64 = 2;

/// A unit and its credential.
type Claim = (String, String);

/// What was heard, and so is not to be told once more.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    /// The number of the last refusal; `None`: of none.
    pub number: Option<u64>,
    /// Requests that wait, with since when.
    waits: Vec<(Claim, u64)>,
}

#[derive(Debug, Default)]
pub struct Teller {
    heard: Heard,
    told: BTreeMap<Claim, Told>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    /// How often it had been refused by then.
    times: u64,
    /// It has been refused once more.
    next: Option<Refusal>,
}

impl Teller {
    pub fn new(heard: Heard) -> Self {
        Self { heard, told: BTreeMap::new() }
    }

    pub fn heard(&self) -> &Heard {
        &self.heard
    }

    /// Tells what is new, and returns whether anything was.
    pub fn tell(&mut self, unserved: Unserved) -> bool {
        let before = self.heard.clone();
        self.heard.number = Some(unserved.number);
        let now = Instant::now();
        self.told.retain(|_, told| told.next.is_some() || now < told.at + MEMORY);
        for refusal in unserved.refusals {
            let claim = (refusal.unit.clone(), refusal.credential.clone());
            match self.told.get_mut(&claim) {
                Some(told) if now < told.at + PAUSE => told.next = Some(refusal),
                told => {
                    let before = told.map_or(0, |told| told.times);
                    self.told.insert(claim, Told::now(refusal, before));
                }
            }
        }
        for delay in unserved.delays {
            if self.is_new(&delay) {
                tell_delay(&delay);
            }
        }
        self.heard != before
    }

    /// When there is something to be told that was put off.
    pub fn next(&self) -> Option<Instant> {
        self.told.values().filter(|told| told.next.is_some()).map(|told| told.at + PAUSE).min()
    }

    /// Tells what was put off, as far as its time has come.
    pub fn catch_up(&mut self) {
        let now = Instant::now();
        for told in self.told.values_mut().filter(|told| now >= told.at + PAUSE) {
            if let Some(refusal) = told.next.take() {
                *told = Told::now(refusal, told.times);
            }
        }
    }

    fn is_new(&mut self, delay: &Delay) -> bool {
        let claim = (delay.unit.clone(), delay.credential.clone());
        let is_same = |(one, since): &(Claim, u64)| *one == claim && since.abs_diff(delay.since) <= JITTER;
        if self.heard.waits.iter().any(is_same) {
            return false;
        }
        self.heard.waits.push((claim, delay.since));
        if self.heard.waits.len() > WAITS {
            self.heard.waits.remove(0);
        }
        true
    }
}

impl Told {
    /// `before`: how often it had been refused when that was told last.
    fn now(refusal: Refusal, before: u64) -> Self {
        // Those before are of another run of the service, or not known.
        let times = if before > 0 { refusal.times.saturating_sub(before).max(1) } else { 1 };
        let reason = words(&refusal.reason);
        records::unit_refused(&refusal.unit, &refusal.credential, &refusal.check, &reason, times);
        Self { at: Instant::now(), times: refusal.times, next: None }
    }
}

fn tell_delay(delay: &Delay) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let left = delay.until.map(|until| Duration::from_secs(until.saturating_sub(now)));
    records::unit_waits(&delay.unit, &delay.credential, delay.error.as_deref().map(words).as_deref(), left);
}

/// On one line, for a sentence that goes on.
fn words(reason: &str) -> String {
    reason.trim_end_matches(['.', '\n']).replace('\n', "; ")
}

/// Tells the units of a user, whose service this is. Does not end.
pub async fn tell_own(service: Arc<Service>) {
    let mut teller = Teller::default();
    let mut feed = Feed::after(None, service.clone());
    loop {
        let put_off = teller.next();
        select! {
            news = feed.next() => drop(teller.tell(Unserved::of(news, &service))),
            () = async { sleep_until(put_off.unwrap_or_else(Instant::now).into()).await }, if put_off.is_some() => {
                teller.catch_up();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(times: u64) -> Refusal {
        Refusal {
            unit: "a.service".into(),
            credential: "key".into(),
            secret: None,
            at: 0,
            times,
            check: "policy".into(),
            reason: "no".into(),
        }
    }

    fn delay(since: u64) -> Delay {
        Delay { unit: "a.service".into(), credential: "key".into(), since, until: None, error: None }
    }

    #[test]
    fn who_is_refused_again_and_again_is_told_from_time_to_time_and_the_rest_is_put_off() {
        let mut teller = Teller::default();
        for times in 1..=10 {
            teller.tell(Unserved { number: times, refusals: vec![refusal(times)], delays: Vec::new() });
        }
        let told = &teller.told[&("a.service".to_owned(), "key".to_owned())];
        assert_eq!((told.times, told.next.as_ref().map(|next| next.times)), (1, Some(10)));
        let due = teller.next().unwrap();
        teller.catch_up();
        assert_eq!(teller.next(), Some(due), "its time has not come");
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        teller.catch_up();
        assert_eq!((teller.next(), teller.heard.number), (None, Some(10)));
    }

    #[test]
    fn a_request_that_waits_is_told_once_through_restarts() {
        let mut teller = Teller::default();
        let of = |since| Unserved { number: 7, refusals: Vec::new(), delays: vec![delay(since)] };
        assert!(teller.tell(of(100)));
        let text = serde_json::to_vec(teller.heard()).unwrap();
        let mut again = Teller::new(serde_json::from_slice(&text).unwrap());
        assert!(!again.tell(of(101)), "the same, reckoned anew");
        assert!(again.tell(of(160)), "another start");
    }
}
