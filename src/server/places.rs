//! Places for requests that cannot be answered at once. Each kind of peer has its own, and each group of peers only so many
//! of them, so that no peer can take the place of a unit that starts.
//!
//! What has a place is in systemd's descriptor store as well, so that the next instance finds it even if the keeper dies
//! with the worker. There are fewer places in all than systemd stores, because it closes whatever exceeds its limit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::select;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::moment::Moment;
use crate::policy::MIRROR;
use crate::remedy::Remedy;
use crate::systemd::notify::Notifier;
use crate::systemd::store::{self, STORE_MAX};

/// How long a request may take before systemd is asked to store it.
const MOMENT: Duration = Duration::from_millis(2);

/// How long until systemd is asked again when it is behind.
const LATER: Duration = Duration::from_millis(100);

/// What a request takes a place for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A unit that waits for its value.
    Waiting,
    /// A unit that is being refused.
    Refused,
    /// A unit that is being refused, or a peer that may be one or is held, when all places for that are taken: it is not in
    /// systemd's store, and only the keeper looks after it.
    Unstored,
    /// A peer that is being refused because it is not, or may not be, the unit that it claims to be.
    Pretender,
    /// A peer that does not claim to be a unit, and is held without an answer.
    Stranger,
}

const KINDS: [Kind; 5] = [Kind::Waiting, Kind::Refused, Kind::Unstored, Kind::Pretender, Kind::Stranger];

impl Kind {
    /// How many places there are in all, and for each group: a unit that asks, or the unit in whose cgroup the peers
    /// sit.
    const fn limits(self) -> (usize, usize) {
        match self {
            Self::Waiting => (2560, 64),
            Self::Refused => (512, 64),
            // There are descriptors for this many.
            Self::Unstored => (4096, 256),
            Self::Pretender => (512, 64),
            Self::Stranger => (448, 16),
        }
    }

    fn limit_of(self, group: &str) -> usize {
        let (_, each) = self.limits();
        // It asks for 256 files at a time, and its next instance may do so before the last one's requests are cleared away.
        if group == MIRROR { each * 8 } else { each }
    }
}

pub struct Places {
    notifier: Notifier,
    /// Whether systemd holds a store for us at all.
    backed: bool,
    /// How many connections it stores.
    capacity: usize,
    pools: Mutex<[Pool; KINDS.len()]>,
    /// What systemd is known to have: the messages that the requests were stored with.
    stored: Mutex<HashSet<String>>,
}

#[derive(Default)]
struct Pool {
    next: u64,
    /// In the order in which they came.
    taken: BTreeMap<u64, Occupant>,
    by_group: HashMap<Arc<str>, usize>,
}

struct Occupant {
    group: Arc<str>,
    /// Told when it has to make room; `None`: it never has to.
    leave: Option<oneshot::Sender<()>>,
}

/// One place. Dropping it leaves the request in the store; [`Place::leave`] takes it out.
#[must_use]
pub struct Place {
    places: Arc<Places>,
    kind: Kind,
    number: u64,
    name: String,
    /// Whether systemd was told to store it.
    sent: AtomicBool,
}

/// There is no place for a further request of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("{0} requests of this unit wait already")]
    Group(usize),
    #[error("{0} requests wait already")]
    All(usize),
}

impl Remedy for Full {
    fn remedy(&self) -> Option<String> {
        let remedy = match self {
            Self::Group(_) => "find out why it asks so often, and start it again",
            Self::All(_) => "find out what they wait for: opnix status",
        };
        Some(remedy.to_owned())
    }
}

impl Places {
    pub fn new(notifier: Notifier, backed: bool) -> Arc<Self> {
        let capacity = std::env::var("FDSTORE").ok().and_then(|max| max.parse().ok()).unwrap_or(STORE_MAX);
        Arc::new(Self { notifier, backed, capacity, pools: Mutex::default(), stored: Mutex::default() })
    }

    pub fn is_backed(&self) -> bool {
        self.backed
    }

    /// systemd has the descriptor that came with this message.
    pub fn confirm(&self, message: String) {
        self.stored().insert(message);
    }

    /// `since` is when the peer began to wait; `leave` is told when the request has to make room for a later one.
    pub fn take(
        self: &Arc<Self>,
        kind: Kind,
        group: &str,
        stream: &impl AsFd,
        since: Moment,
        leave: Option<oneshot::Sender<()>>,
    ) -> Result<Place, Full> {
        let (total, _) = kind.limits();
        let total = if kind == Kind::Unstored { total } else { total * self.capacity / STORE_MAX };
        let number = {
            let pool = &mut self.pools()[kind as usize];
            let held = pool.by_group.get(group).copied().unwrap_or(0);
            if held >= kind.limit_of(group) {
                return Err(Full::Group(held));
            }
            if pool.taken.len() >= total && !pool.make_room() {
                return Err(Full::All(pool.taken.len()));
            }
            pool.add(group, leave)
        };
        Ok(Place {
            places: self.clone(),
            kind,
            number,
            name: store::name_of(stream, since),
            sent: AtomicBool::new(false),
        })
    }

    /// The place of a request that was found in the store: it gets one in any case.
    pub fn found(
        self: &Arc<Self>,
        kind: Kind,
        group: &str,
        name: String,
        leave: Option<oneshot::Sender<()>>,
    ) -> Place {
        let number = self.pools()[kind as usize].add(group, leave);
        self.confirm(store::message(&name));
        Place { places: self.clone(), kind, number, name, sent: AtomicBool::new(true) }
    }

    fn stored(&self) -> MutexGuard<'_, HashSet<String>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pools(&self) -> MutexGuard<'_, [Pool; KINDS.len()]> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    fn add(&mut self, group: &str, leave: Option<oneshot::Sender<()>>) -> u64 {
        let group: Arc<str> = group.into();
        *self.by_group.entry(group.clone()).or_default() += 1;
        self.next += 1;
        self.taken.insert(self.next, Occupant { group, leave });
        self.next
    }

    fn remove(&mut self, number: u64) {
        let Some(Occupant { group, .. }) = self.taken.remove(&number) else { return };
        if let Some(count) = self.by_group.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                self.by_group.remove(&group);
            }
        }
    }

    /// Sends away the request that has been here longest, of those that may be sent away.
    fn make_room(&mut self) -> bool {
        let longest =
            self.taken.iter_mut().find_map(|(number, occupant)| Some((*number, occupant.leave.take()?)));
        let Some((number, leave)) = longest else { return false };
        self.remove(number);
        // If it was about to leave by itself, it has made room as well.
        let _ = leave.send(());
        true
    }
}

impl Place {
    /// Does the work of a request in its place. If it takes longer than `MOMENT`, its connection goes to systemd's
    /// store; a shorter one is not worth systemd's time, and the keeper looks after it.
    pub async fn keeping<T>(&self, stream: &UnixStream, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut pause = MOMENT;
        while self.kind != Kind::Unstored && !self.sent.load(Ordering::Relaxed) {
            select! {
                biased;
                done = &mut work => return done,
                () = sleep(pause) => {}
            }
            // A copy, because systemd is told in a moment, when this descriptor may be closed. Tried again as long as
            // systemd is behind or no descriptor is left for the copy.
            let copy = self.places.backed.then(|| stream.try_clone());
            let sent = match copy {
                Some(Ok(copy)) => self.places.notifier.store(store::message(&self.name), copy.into()),
                Some(Err(_)) => false,
                None => break,
            };
            self.sent.store(sent, Ordering::Relaxed);
            pause = LATER;
        }
        work.await
    }

    /// Whether systemd is known to have the request, so that the next instance finds it whatever becomes of us.
    pub fn is_stored(&self) -> bool {
        self.places.stored().contains(&store::message(&self.name))
    }

    pub fn leave(self) {
        self.places.stored().remove(&store::message(&self.name));
        if self.places.backed && self.sent.load(Ordering::Relaxed) {
            self.places.notifier.unstore(&self.name);
        }
        self.places.pools()[self.kind as usize].remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(places: &Arc<Places>, kind: Kind, group: &str) -> Result<Place, Full> {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        places.take(kind, group, &ours, Moment::now(), None)
    }

    #[test]
    fn all_places_together_are_fewer_than_systemd_stores() {
        // The queue of records takes one, too.
        let stored = KINDS.iter().filter(|kind| **kind != Kind::Unstored);
        assert!(stored.map(|kind| kind.limits().0).sum::<usize>() < STORE_MAX);
    }

    #[test]
    fn one_unit_that_asks_in_a_loop_leaves_places_to_the_others() {
        let places = Places::new(Notifier::direct(), false);
        let held: Vec<_> = (0..64).map(|_| place(&places, Kind::Waiting, "loop.service").unwrap()).collect();
        assert_eq!(place(&places, Kind::Waiting, "loop.service").err(), Some(Full::Group(64)));
        place(&places, Kind::Waiting, "other.service").unwrap().leave();
        held.into_iter().for_each(Place::leave);
        place(&places, Kind::Waiting, "loop.service").unwrap().leave();
    }

    #[test]
    fn the_kinds_have_places_of_their_own() {
        let places = Places::new(Notifier::direct(), false);
        let held: Vec<_> = (0..16).map(|_| place(&places, Kind::Stranger, "box.service").unwrap()).collect();
        assert!(place(&places, Kind::Stranger, "box.service").is_err());
        assert_eq!(held.len(), 16);
        let _waiting = place(&places, Kind::Waiting, "box.service").unwrap();
    }

    #[test]
    fn when_all_places_are_taken_the_longest_of_those_that_may_goes() {
        let places = Places::new(Notifier::direct(), false);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let (total, each) = Kind::Pretender.limits();
        let mut told = Vec::new();
        for number in 0..total {
            let (leave, leaves) = oneshot::channel();
            // The first ones may not be sent away.
            let leave = (number >= 2).then_some(leave);
            told.push(leaves);
            let group = format!("group-{}.service", number / each);
            let _ = places.take(Kind::Pretender, &group, &ours, Moment::now(), leave).unwrap();
        }
        let _ = place(&places, Kind::Pretender, "late.service").unwrap();
        assert!(told[2].try_recv().is_ok());
        assert!(told[3].try_recv().is_err());
    }
}
