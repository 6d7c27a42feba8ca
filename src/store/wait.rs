//! How a unit gets its value when it takes time: from a fetch, or from memory when the fetch does not end in time.

use std::mem::discriminant;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::failure::Failure;
use super::served::{Caveat, Part, Served};
use super::source::Source;
use super::state::{Outcome, Waiter};
use super::{Shared, Store};
use crate::counters::Origin;
use crate::moment::{Moment, Now};
use crate::policy::Grant;
use crate::process::random;
use crate::providers::FetchError;
use crate::providers::ask::Target;
use crate::quote::RenderError;
use crate::records;
use crate::reference::{Kind, Reference};
use crate::secret::Secret;
use crate::template::Template;

/// How long a unit that has a deadline of its own waits after a failure, at least.
const PAUSE: Duration = Duration::from_secs(5);
/// How long it waits, at most, before it looks for a new token. (And the clock that we sleep by stands still while the machine
/// is suspended.)
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// The values of all references, in their order, why one of them is not a newer one, and where they come from.
type Parts = (Vec<Arc<Secret>>, Option<Caveat>, Origin);

impl Store {
    /// How long a unit may wait for its value; [`Duration::MAX`] is for ever.
    pub fn deadline_of(&self, grant: &Grant) -> Duration {
        grant.deadline().unwrap_or(self.0.timing.deadline)
    }

    /// The value, fetched where needed. Takes no longer than until the deadline, counted from when the unit first asked. If
    /// that was an earlier instance, there is time for one try at least.
    pub async fn get(&self, grant: &Grant, since: Moment) -> Result<Served, FetchError> {
        let (deadline, began) = (self.deadline_of(grant), Moment::now());
        let left = (since + deadline).since(began).max(self.0.timing.short_deadline.min(deadline));
        let mut why = None;
        let value = async {
            match grant.deadline() {
                None => rendered(grant, self.collect(grant).await?),
                Some(_) => self.persist(grant, &mut why).await,
            }
        };
        if let Ok(value) = timeout(left, value).await {
            return value;
        }
        let late = FetchError::TimedOut(deadline);
        let references = grant.entry().content.references();
        Err(why.unwrap_or_else(|| self.0.state().late(references, began, late, Now::read())))
    }

    /// For a unit that has a deadline of its own: no failure ends this, and the last one is left in `why`. 1Password is not
    /// asked more often because of it than units and the background ask anyway.
    async fn persist(&self, grant: &Grant, why: &mut Option<FetchError>) -> Result<Served, FetchError> {
        let _counted = Patient::count(&self.0);
        let mut good_news = self.0.good_news.subscribe();
        let mut changes = self.0.changes.subscribe();
        let mut note = |error: FetchError| {
            if why.as_ref().is_none_or(|last| discriminant(last) != discriminant(&error)) {
                records::waits_on(&grant.claim(), &error);
            }
            *why = Some(error);
        };
        let mut unusable: Option<Failure> = None;
        let mut again = false;
        loop {
            while let Some((rest, error)) = self.0.rest(&grant.entry().content, again) {
                error.into_iter().for_each(&mut note);
                select! {
                    () = sleep(rest.min(LONGEST_SLEEP)) => {}
                    _ = good_news.changed() => {}
                }
            }
            changes.mark_unchanged();
            let error = match self.collect(grant).await {
                Ok(parts) => match rendered(grant, parts) {
                    Ok(served) => return Ok(served),
                    // The state knows nothing of it: the values are there.
                    Err(error) => {
                        unusable = Some(Failure::new(error.clone(), Moment::now(), unusable.as_ref()));
                        error
                    }
                },
                Err(error) => {
                    unusable = None;
                    error
                }
            };
            note(error);
            again = true;
            let pause = unusable.as_ref().map_or(PAUSE, |of| of.next().since(Moment::now()));
            select! {
                () = sleep(pause) => {}
                _ = changes.changed() => {}
            }
        }
    }

    async fn collect(&self, grant: &Grant) -> Result<Parts, FetchError> {
        for anew in [false, true, true] {
            if anew {
                let references = || grant.entry().content.references();
                let state = self.0.state();
                if !state.may_ask_anew(references(), &self.0.limits(), Now::read()) {
                    let why = state.trouble(references()).cloned();
                    return Err(why.unwrap_or_else(|| apart(grant)));
                }
            }
            if let Some(parts) = self.collect_once(grant, anew).await? {
                return Ok(parts);
            }
        }
        Err(apart(grant))
    }

    /// `None`: they do not belong together. `anew`: what is kept does not do.
    async fn collect_once(&self, grant: &Grant, anew: bool) -> Result<Option<Parts>, FetchError> {
        let content = &grant.entry().content;
        let patience = Instant::now() + self.0.timing.short_deadline;
        self.0.notice_new_token(content.references());
        // All are asked for before the first is waited for, so that they go together.
        let mut sources = Vec::new();
        for reference in content.references() {
            let (source, acts, down) = {
                let mut state = self.0.state();
                // Of what the state tells already nobody is to be told again.
                let down = self.0.down.subscribe();
                let (source, acts) = if anew {
                    let (waiter, acts) = state.join_anew(reference);
                    (Ok(Source::Fetch(waiter)), acts)
                } else {
                    state.source(reference, &self.0.limits(), Now::read())
                };
                (source, acts, down)
            };
            self.0.act(acts);
            sources.push((reference, source?, down));
        }
        let mut parts = Vec::with_capacity(sources.len());
        for (reference, source, down) in sources {
            let part = match source {
                Source::Kept(part) => part,
                Source::Fetch(waiter) => {
                    let again = grant.deadline().is_none();
                    let value = self.0.wait(reference, waiter, again).await?;
                    Part { value, caveat: None, origin: Origin::Provider }
                }
                Source::FetchOrKept(waiter) => self.0.wait_briefly(reference, waiter, down, patience).await?,
            };
            parts.push(part);
        }
        // What was kept when this began, and what has come since, may be of two versions of one item: what is kept is taken as it
        // is now, and what is not must be what came last.
        if parts.len() > 1 {
            let (limits, now) = (self.0.limits(), Now::read());
            let state = self.0.state();
            for (reference, part) in content.references().zip(&mut parts) {
                if let Some(as_now) = state.served(reference, &limits, now) {
                    // It was waited for all the same.
                    *part = Part { origin: as_now.origin.max(part.origin), ..as_now };
                } else if state
                    .print(reference)
                    .is_some_and(|now| now != state.versions.print_of(&part.value))
                {
                    return Ok(None);
                }
            }
            if !state.versions.agree(content.references()) {
                return Ok(None);
            }
        }
        let origin = parts.iter().map(|part| part.origin).max().unwrap_or(Origin::Memory);
        let caveat = parts.iter().position(|part| part.caveat.is_some());
        let (values, mut caveats): (Vec<_>, Vec<_>) =
            parts.into_iter().map(|part| (part.value, part.caveat)).unzip();
        Ok(Some((values, caveat.and_then(|at| caveats[at].take()), origin)))
    }
}

/// The values of an item do not belong together.
fn apart(grant: &Grant) -> FetchError {
    let why = "it is being edited: its fields are not of one version".into();
    let item = grant.entry().content.references().next().map(Target::item);
    FetchError::Unavailable { why }.of_part(&item.unwrap_or(Target::Account))
}

fn rendered(grant: &Grant, (values, caveat, origin): Parts) -> Result<Served, FetchError> {
    let content = &grant.entry().content;
    if let (Some(_), [value]) = (content.as_plain(), &values[..]) {
        return Ok(Served { value: value.clone(), caveat, parts: values, origin });
    }
    let named = grant.entry().name.clone();
    let value = content.render(&values).map_err(|error| match error {
        RenderError::Empty(_) => FetchError::Empty { reference: named },
        RenderError::Unfit { .. } => FetchError::Malformed { reference: named, what: error.to_string() },
    })?;
    Ok(Served { value: value.into(), caveat, parts: values, origin })
}

/// Counts a unit that has a deadline of its own, for as long as it waits: the background then looks more often whether the
/// provider works again.
struct Patient<'a>(&'a Shared);

impl<'a> Patient<'a> {
    fn count(shared: &'a Shared) -> Self {
        shared.state().patient += 1;
        shared.news.notify_one();
        Self(shared)
    }
}

impl Drop for Patient<'_> {
    fn drop(&mut self) {
        self.0.state().patient -= 1;
    }
}

impl Store {
    /// The token may be another one.
    pub fn notice_new_token(&self) {
        self.0.check_account();
        if self.0.provider.has_new_token() {
            self.0.state().forget_failures();
            self.0.untried.store(true, Ordering::Relaxed);
        }
        // Who waits, and the background.
        self.0.good_news.send_replace(());
        self.0.news.notify_one();
    }
}

impl Shared {
    /// What the last token came to says nothing about the next one, and what another account's is, is not ours.
    pub(super) fn notice_new_token<'r>(&self, mut references: impl Iterator<Item = &'r Reference>) {
        self.check_account();
        let is_failing = {
            let state = self.state();
            let is_down = state.breaker.down().is_some_and(|down| !down.error.consequences().retry);
            is_down || references.any(|reference| state.failures.contains_key(reference))
        };
        if is_failing && self.provider.has_new_token() {
            self.state().forget_failures();
        }
    }

    /// How long it makes no sense to ask for what is in this text, and why, if it does not make sense now. `again`: it was
    /// asked for already.
    fn rest(&self, content: &Template, again: bool) -> Option<(Duration, Option<FetchError>)> {
        self.notice_new_token(content.references());
        let state = self.state();
        let rest = state.rest(content.references(), &self.limits(), Now::read(), again);
        (!rest.is_zero()).then(|| (rest, state.trouble(content.references()).cloned()))
    }

    /// Waits for as long as the caller lets us. `again`: a fetch that ran out of time is begun again at once.
    async fn wait(self: &Arc<Self>, reference: &Reference, mut waiter: Waiter, again: bool) -> Outcome {
        loop {
            match waiter.outcome().await {
                None if !again => return Err(FetchError::TimedOut(self.timing.deadline)),
                Some(outcome) if !again => return outcome,
                // A fetch that others began before us may run out of time while we still have some: begin another.
                None | Some(Err(FetchError::TimedOut(_))) => {
                    let (next, acts) = self.state().join(reference, true);
                    self.act(acts);
                    waiter = next;
                }
                Some(outcome) => return outcome,
            }
        }
    }

    /// Waits until the fetch ends, the provider is found not to work, or patience ends; without a new value, the value
    /// that is kept is served, unless 1Password has said for too long that there is none.
    async fn wait_briefly(
        self: &Arc<Self>,
        reference: &Reference,
        mut waiter: Waiter,
        mut down: watch::Receiver<()>,
        patience: Instant,
    ) -> Result<Part, FetchError> {
        let outcome = async {
            select! {
                biased;
                outcome = waiter.outcome() => outcome,
                _ = down.changed() => None,
            }
        };
        let late = || FetchError::TimedOut(self.timing.short_deadline);
        let error = match timeout_at(patience, outcome).await {
            Ok(Some(Ok(value))) => return Ok(Part { value, caveat: None, origin: Origin::Provider }),
            Ok(Some(Err(error))) => error,
            Ok(None) => self.state().breaker.down().map_or_else(late, |down| down.error.clone()),
            Err(_) => {
                // The first one whose patience ends says so for all, but not of a file, which may only be large.
                let acts = {
                    let mut state = self.state();
                    let is_first = state.breaker.down().is_none() && reference.kind != Kind::File;
                    is_first.then(|| state.fails(late(), Now::read(), random()))
                };
                self.act(acts.unwrap_or_default());
                late()
            }
        };
        self.state().fall_back(reference, error, Now::read())
    }
}
