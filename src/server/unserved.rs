//! What units do not get, as it happens: for whoever tells it where people look first, in the journals of those units.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::refusals::Refused;
use super::{Service, Wait};
use crate::moment::Moment;
use crate::peer::Claim;
use crate::policy::MIRROR;

/// A request that waits no longer is nothing to tell of.
const LONG: Duration = Duration::from_secs(3);
/// How often to look at requests that wait, while there are any that were not told of.
const LOOK: Duration = Duration::from_secs(1);
/// How many of each kind are told at a time.
const PAGE: usize = 64;

/// What was not told yet.
pub struct News {
    /// Of the last refusal that was told.
    pub number: u64,
    pub refusals: Vec<(Claim, Refused)>,
    /// Requests that wait for long, each once.
    pub waits: Vec<Wait>,
}

/// Tells one listener.
pub struct Feed {
    service: Arc<Service>,
    number: Option<u64>,
    refused: watch::Receiver<()>,
    listed: watch::Receiver<()>,
    /// When to look at what waits; `None`: when something begins to.
    look: Option<Instant>,
    told: BTreeSet<(Claim, Moment)>,
    is_new: bool,
}

impl Feed {
    /// From the refusal after this number on.
    pub fn after(number: Option<u64>, service: Arc<Service>) -> Self {
        let (refused, listed) = (service.refusals.news(), service.waiting.news());
        let look = Some(Instant::now());
        Self { service, number, refused, listed, look, told: BTreeSet::new(), is_new: true }
    }

    /// What there is to tell, at first at once, even if that is nothing.
    pub async fn next(&mut self) -> News {
        loop {
            let (number, refusals) = self.service.refusals.after(self.number, PAGE);
            self.number = Some(number);
            let is_time = self.look.is_some_and(|look| look <= Instant::now());
            let waits = if is_time { self.waits() } else { Vec::new() };
            if std::mem::take(&mut self.is_new) || !refusals.is_empty() || !waits.is_empty() {
                return News { number, refusals, waits };
            }
            self.something().await;
        }
    }

    /// Returns when there may be something to tell.
    async fn something(&mut self) {
        loop {
            let look = self.look;
            select! {
                // Whoever changes them lives as long as the service.
                _ = self.refused.changed() => return,
                // A crowd that begins to wait is looked at once.
                _ = self.listed.changed() => {
                    self.look.get_or_insert_with(|| Instant::now() + LOOK);
                }
                () = async { sleep_until(look.unwrap_or_else(Instant::now)).await }, if look.is_some() => return,
            }
        }
    }

    fn waits(&mut self) -> Vec<Wait> {
        let now = Moment::now();
        let all = self.service.waiting.all().into_iter().filter(|wait| wait.claim.unit.as_str() != MIRROR);
        let all: Vec<Wait> = all.collect();
        let key = |wait: &Wait| (wait.claim.clone(), wait.since);
        let waiting: BTreeSet<_> = all.iter().map(key).collect();
        self.told.retain(|one| waiting.contains(one));
        let untold: Vec<Wait> = all.into_iter().filter(|wait| !self.told.contains(&key(wait))).collect();
        self.look = (!untold.is_empty()).then(|| Instant::now() + LOOK);
        let mut due = untold;
        due.retain(|wait| now.since(wait.since) >= LONG);
        due.truncate(PAGE);
        // A unit may ask for the same twice, in two steps of its start.
        due.retain(|wait| self.told.insert(key(wait)));
        due
    }
}
