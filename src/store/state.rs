//! What is known, and what is being asked for. Pure: no clock, no runtime and no lock in here. A method that changes
//! something returns what is to be done about it, and `Shared` does it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::breaker::Breaker;
use super::decide::Keep;
use super::failure::Failure;
use super::kept::{Asked, Kept, Values};
use super::versions::{Item, Versions, item};
use crate::moment::{Moment, Now, Setting};
use crate::providers::{Comparable, Confirmed, FetchError};
use crate::reference::Reference;
use crate::secret::Secret;

/// The outcome of a fetch for one reference.
pub type Outcome = Result<Arc<Secret>, FetchError>;

#[derive(Default)]
pub struct State {
    /// Whose values they are; not known before there is a token.
    pub account: Option<String>,
    pub values: Values,
    /// The account before, with its values, as long as this one has given nothing: they are not served.
    pub former: Option<(String, Values)>,
    pub breaker: Breaker,
    /// Why the last fetch of a reference failed.
    pub failures: HashMap<Reference, Failure>,
    /// What units were refused for want of, and whether it could be had since.
    pub awaited: HashMap<Reference, bool>,
    /// How many units wait that have a deadline of their own.
    pub patient: usize,
    /// What is being fetched, or will be with the next fetch.
    fetching: HashMap<Reference, Fetching>,
    /// What the next fetch is for.
    wanted: Vec<Wanted>,
    /// Counts what was wanted.
    joined: u64,
    /// Counts the fetches and confirmations that began: this tells which of two began first.
    pub began: u64,
    /// The number of the fetch that last found the provider not to work: what comes late from one before says nothing.
    pub failed_at: u64,
    /// When all values that are kept were last found to hold.
    pub renewed: Option<Moment>,
    /// When values are renewed next in the background.
    pub next_refresh: Option<Moment>,
    /// Whether the values have changed since they were written to disk.
    pub unsaved: bool,
    pub versions: Versions,
    /// The wall clock by which what is of this boot has its dates on disk, if there is any.
    pub dated: Option<Setting>,
}

struct Fetching {
    /// See [`Wanted::number`].
    number: u64,
    outcome: Waiter,
    /// How many asked who have no other value: a failure that may pass is then tried again.
    urgent: usize,
    /// Whether nobody but the background asked for it.
    sought: bool,
    /// Whether nobody asked for it at all: it goes along with what is read anyway.
    along: bool,
}

/// Where those who asked for one reference wait for it.
#[derive(Clone)]
pub struct Waiter(watch::Receiver<Option<Outcome>>);

/// A reference that is to be fetched.
pub struct Wanted {
    pub reference: Reference,
    /// Tells it from the same reference, asked for anew while this was under way: then what comes of this is not kept.
    number: u64,
    /// How many fetches and confirmations had begun when it was asked for: what those bring is too old for it.
    since: u64,
    sender: watch::Sender<Option<Outcome>>,
}

/// A fetch that has begun.
#[derive(Clone, Copy)]
pub struct Begun {
    asked: Asked,
}

/// The values that the provider is asked to confirm.
pub struct Confirmation {
    pub references: Vec<Reference>,
    asked: Asked,
    at: Moment,
}

/// What is to be done.
pub enum Act {
    /// Begin a fetch for what is wanted.
    Fetch,
    /// Tell those who wait for this reference.
    Deliver(Wanted, Outcome),
    /// Count a value that changed.
    Changed,
    /// Note in the ledger that a limit is reached, and until when if that is known, or that none is any more.
    Limit(Option<Moment>),
    Lift,
    /// Tell all who have a value to fall back on that the provider does not work; with the error, if this is new.
    Down(Option<FetchError>),
    /// Say that the provider works again.
    Up,
    /// Write what changed to disk.
    Save,
}

#[derive(Default)]
#[must_use]
pub struct Acts(pub Vec<Act>);

impl Waiter {
    /// `None`: the fetch was given up.
    pub async fn outcome(&mut self) -> Option<Outcome> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

impl Wanted {
    /// It does not matter if nobody waits any more.
    pub fn deliver(self, outcome: Outcome) {
        let _ = self.sender.send(Some(outcome));
    }
}

impl State {
    /// `count` is how many values there were before those that may not be kept were dropped.
    pub fn new(account: Option<String>, values: Values, count: usize) -> Self {
        // What is no longer in the configuration leaves the disk.
        let unsaved = values.sealable().count() != count;
        Self { account, values, unsaved, ..Self::default() }
    }

    /// Has a reference fetched, unless that is under way. `urgent`: a failure that may pass is tried again.
    pub fn join(&mut self, reference: &Reference, urgent: bool) -> (Waiter, Acts) {
        if let (true, Some(fetching)) = (self.is_fetching(reference), self.fetching.get_mut(reference)) {
            fetching.urgent += usize::from(urgent);
            (fetching.sought, fetching.along) = (false, false);
            return (fetching.outcome.clone(), Acts::default());
        }
        self.want(reference, usize::from(urgent))
    }

    pub fn is_fetching(&self, reference: &Reference) -> bool {
        // One that nobody will tell any more was given up.
        self.fetching.get(reference).is_some_and(|of| of.outcome.0.has_changed().is_ok())
    }

    /// Has a reference fetched for nobody but the background.
    pub fn seek(&mut self, reference: &Reference) -> Acts {
        let (_, acts) = self.want(reference, 0);
        if let Some(fetching) = self.fetching.get_mut(reference) {
            fetching.sought = true;
        }
        acts
    }

    /// The same, but what is under way already does not do: it may be from before the change that somebody knows of. Whether
    /// the last tries failed does not count any more.
    pub fn join_anew(&mut self, reference: &Reference) -> (Waiter, Acts) {
        self.failures.remove(reference);
        if let Some(wanted) = self.wanted.iter_mut().find(|wanted| wanted.reference == *reference) {
            // What is being confirmed for others was asked for before.
            wanted.since = self.began;
            return self.join(reference, false);
        }
        let urgent = self.fetching.get(reference).map_or(0, |fetching| fetching.urgent);
        self.want(reference, urgent)
    }

    fn want(&mut self, reference: &Reference, urgent: usize) -> (Waiter, Acts) {
        let (sender, receiver) = watch::channel(None);
        let outcome = Waiter(receiver);
        self.joined += 1;
        let number = self.joined;
        self.fetching.insert(
            reference.clone(),
            Fetching { number, outcome: outcome.clone(), urgent, sought: false, along: false },
        );
        let begin = self.wanted.is_empty().then_some(Act::Fetch);
        self.wanted.push(Wanted { reference: reference.clone(), number, since: self.began, sender });
        (outcome, Acts(begin.into_iter().collect()))
    }

    /// Has everything that may be kept fetched, with the next fetch.
    pub fn join_all(&mut self) -> (Vec<Waiter>, Acts) {
        let settings = self.values.settings().iter();
        let kept = settings.filter(|(_, settings)| settings.keep > Keep::Never);
        let kept: Vec<Reference> = kept.map(|(reference, _)| reference.clone()).collect();
        let mut all = Acts::default();
        let join = |reference| {
            let (waiter, acts) = self.join(reference, false);
            all.0.extend(acts.0);
            waiter
        };
        (kept.iter().map(join).collect(), all)
    }

    /// What the fetch that begins now is for, without the references whose value has come meanwhile: it is delivered.
    pub fn take_wanted(&mut self) -> (Vec<Wanted>, Acts) {
        let mut acts = Acts::default();
        let mut still = Vec::new();
        for wanted in std::mem::take(&mut self.wanted) {
            let had = |kept: &&Kept| kept.asked > wanted.since && kept.denied.is_none();
            match self.values.get(&wanted.reference).filter(had) {
                Some(kept) => {
                    self.fetching.remove(&wanted.reference);
                    acts.0.push(Act::Deliver(wanted, Ok(kept.value.clone())));
                }
                None => still.push(wanted),
            }
        }
        (still, acts)
    }

    /// What goes along with what the fetch that begins now is for: the other fields of the items that are read anyway, so that all
    /// that is known of an item is of one version of it. What is under way is waited for as it is.
    pub fn join_siblings(&mut self, wanted: &mut Vec<Wanted>) {
        let wanted_ones: HashSet<&Reference> = wanted.iter().map(|wanted| &wanted.reference).collect();
        let items: HashSet<Item> = wanted_ones.iter().filter_map(|one| item(one)).collect();
        if items.is_empty() {
            return;
        }
        let is_sibling = |one: &&Reference| {
            item(one).is_some_and(|item| items.contains(&item))
                && !wanted_ones.contains(one)
                && !self.is_fetching(one)
        };
        let siblings: Vec<Reference> = self.values.settings().keys().filter(is_sibling).cloned().collect();
        for reference in siblings {
            // It begins with this one.
            let _ = self.want(&reference, 0);
            if let Some(fetching) = self.fetching.get_mut(&reference) {
                (fetching.sought, fetching.along) = (true, true);
            }
        }
        wanted.append(&mut self.wanted);
    }

    /// How many asked for these who have no other value.
    pub fn urgent<'w>(&self, wanted: impl Iterator<Item = &'w Wanted>) -> usize {
        wanted.filter_map(|wanted| self.fetching.get(&wanted.reference)).map(|of| of.urgent).sum()
    }

    /// What is under way was asked for with another account's token, and so was what failed.
    pub fn disown_fetches(&mut self) {
        let wanted: HashSet<u64> = self.wanted.iter().map(|wanted| wanted.number).collect();
        self.fetching.retain(|_, fetching| wanted.contains(&fetching.number));
        self.forget_failures();
    }

    fn ask(&mut self, now: Now) -> Asked {
        self.began += 1;
        Asked { number: self.began, at: now.moment }
    }

    pub fn begin(&mut self, now: Now) -> Begun {
        Begun { asked: self.ask(now) }
    }

    /// Which values the provider can be asked to confirm; `None` if none of them is wanted.
    pub fn begin_confirmation(&mut self, now: Now) -> Option<Confirmation> {
        let known = |wanted: &Wanted| self.values.get(&wanted.reference);
        let is_confirmable = |wanted| known(wanted).is_some_and(|kept| kept.is_confirmable(now.moment));
        self.wanted.iter().any(is_confirmable).then(|| self.begin_confirmation_of_all(now))
    }

    pub fn begin_confirmation_of_all(&mut self, now: Now) -> Confirmation {
        let references = self.values.iter().filter(|(_, kept)| kept.is_confirmable(now.moment));
        let references = references.map(|(reference, _)| reference.clone()).collect();
        Confirmation { references, asked: self.ask(now), at: now.moment }
    }

    /// What the provider says of each of them.
    pub fn confirmed(&mut self, confirmation: Confirmation, confirmed: Confirmed) {
        let Confirmation { references, asked, at } = confirmation;
        let Confirmed { before, now, unchanged } = confirmed;
        let holds: HashSet<Reference> =
            references.into_iter().zip(unchanged).filter_map(|(known, same)| same.then_some(known)).collect();
        let kept = holds.iter().filter_map(|of| Some((of, &*self.values.get(of)?.value)));
        self.versions.confirmed(kept);
        if self.values.confirm(&holds, (before, now), asked) {
            // As good as a round of the background.
            self.renewed = Some(at);
        }
        self.unsaved = true;
    }

    /// Delivers a result as soon as it is there. What is worth another try, or says that the provider does not work, is put to
    /// what failed, for the end of the fetch.
    pub fn arrived(
        &mut self,
        wanted: Wanted,
        result: Result<Secret, FetchError>,
        (begun, comparable): (Begun, Comparable),
        now: Now,
        failed: &mut Vec<(Wanted, FetchError)>,
    ) -> Acts {
        match result {
            Err(error) if error.consequences().retry || error.consequences().provider_is_down => {
                failed.push((wanted, error));
                Acts::default()
            }
            // Any answer at all shows that it works.
            result => {
                let is_news = begun.asked.number > self.failed_at;
                let mut acts = if is_news { self.works() } else { Acts::default() };
                acts.0.extend(self.conclude(wanted, result.map(Arc::new), Some((begun, comparable)), now).0);
                acts
            }
        }
    }

    /// Learns from what failed, and has it delivered. With `again`, what is worth another try is returned instead.
    /// `chance`, from 0 to 1, keeps machines that failed together from trying again together.
    pub fn ended(
        &mut self,
        failed: Vec<(Wanted, FetchError)>,
        again: bool,
        now: Now,
        chance: f64,
    ) -> (Vec<Wanted>, Acts) {
        let mut acts = self.learn(&failed, now, chance);
        let mut left = Vec::new();
        for (wanted, error) in failed {
            if again && error.retry_in(Duration::ZERO).is_some() && self.is_latest(&wanted) {
                self.note(&wanted.reference, error, now);
                left.push(wanted);
            } else {
                acts.0.extend(self.conclude(wanted, Err(error), None, now).0);
            }
        }
        (left, acts)
    }

    /// It was not asked for anew meanwhile.
    fn is_latest(&self, wanted: &Wanted) -> bool {
        self.fetching.get(&wanted.reference).is_some_and(|fetching| fetching.number == wanted.number)
    }

    fn conclude(
        &mut self,
        wanted: Wanted,
        outcome: Outcome,
        begun: Option<(Begun, Comparable)>,
        now: Now,
    ) -> Acts {
        let mut acts = Acts::default();
        let reference = &wanted.reference;
        // What was asked for anew meanwhile has the last word.
        if self.is_latest(&wanted) {
            let fetching = self.fetching.remove(reference);
            let (sought, along) =
                fetching.map_or((false, false), |fetching| (fetching.sought, fetching.along));
            match (&outcome, begun) {
                (Ok(value), Some((begun, comparable))) => {
                    let before = self.values.get(reference).map(|kept| &*kept.value);
                    self.versions.arrived(reference, value, before);
                    self.former = None;
                    self.failures.remove(reference);
                    let is_awaited =
                        self.awaited.get_mut(reference).is_some_and(|had| !std::mem::replace(had, true));
                    if self.values.insert(reference, value.clone(), begun.asked, comparable) || is_awaited {
                        acts.0.push(Act::Changed);
                    }
                    self.unsaved = true;
                }
                (Ok(_), None) => {}
                (Err(error), _) => {
                    if !error.consequences().cached_may_stand_in {
                        self.values.deny(reference, now);
                        self.unsaved = true;
                    }
                    let last = self.failures.get(reference);
                    let of = if sought { Failure::sought } else { Failure::new };
                    let failure = of(error.clone(), now.moment, last);
                    // Who asks for the first time is not to be refused for what nobody asked for.
                    if !along {
                        self.failures.insert(reference.clone(), failure);
                    }
                }
            }
        }
        acts.0.push(Act::Deliver(wanted, outcome));
        acts
    }

    /// Remembers why a reference could not be had so far.
    fn note(&mut self, reference: &Reference, error: FetchError, now: Now) {
        let failure = Failure::passing(error, now.moment, self.failures.get(reference));
        self.failures.insert(reference.clone(), failure);
    }

    /// A unit's time is over while its references are still asked for. Returns what is known of why.
    pub fn late<'r>(
        &mut self,
        references: impl Iterator<Item = &'r Reference>,
        since: Moment,
        late: FetchError,
        now: Now,
    ) -> FetchError {
        let mut why = None;
        for reference in references {
            if !self.fetching.contains_key(reference) {
                continue;
            }
            let known = self.failures.get(reference).filter(|failure| failure.at >= since);
            let is_known = known.is_some();
            why = why.or_else(|| known.map(|failure| failure.error.clone()));
            if !is_known {
                self.note(reference, late.clone(), now);
            }
        }
        why.unwrap_or(late)
    }

    /// Whether somebody waits for the provider to work: a unit got nothing, or a value has grown old.
    pub fn is_awaited(&self, now: Now) -> bool {
        let is_fresh = |(reference, kept): (&Reference, &Kept)| {
            let fresh_for = self.values.settings()[reference].fresh_for;
            !kept.doubtful && kept.known(now).age.is_some_and(|age| age < fresh_for)
        };
        self.patient > 0
            || !self.failures.is_empty()
            || self.awaited.values().any(|had| !had)
            || !self.values.iter().all(is_fresh)
    }

    pub fn forget_all_but_fetched(&mut self) {
        self.values.retain(|reference| self.fetching.contains_key(reference));
    }

    /// Nobody goes on with what is asked for: who still waits has to ask anew.
    pub fn give_up(&mut self) {
        self.wanted.clear();
        self.fetching.clear();
    }
}

#[cfg(test)]
mod tests;
