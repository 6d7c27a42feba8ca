//! How a unit gets its value when it takes time: from a fetch, or from memory when the fetch does not end in time.

use std::sync::Arc;

use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::served::Served;
use super::source::Source;
use super::state::{Outcome, Waiter};
use super::{Shared, Store};
use crate::moment::{Moment, Now};
use crate::policy::Grant;
use crate::process::random;
use crate::providers::FetchError;
use crate::quote::RenderError;
use crate::reference::{Kind, Reference};

impl Store {
    /// The value, fetched where needed. Takes no longer than the deadline.
    pub async fn get(&self, grant: &Grant) -> Result<Served, FetchError> {
        let (deadline, since) = (self.deadline(), Moment::now());
        timeout(deadline, self.collect(grant)).await.unwrap_or_else(|_| {
            let references = grant.entry().content.references();
            let late = FetchError::TimedOut(deadline);
            Err(self.0.state().late(references, since, late, Now::read()))
        })
    }

    async fn collect(&self, grant: &Grant) -> Result<Served, FetchError> {
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
                let (source, acts) = state.source(reference, &self.0.limits(), Now::read());
                (source, acts, down)
            };
            self.0.act(acts);
            sources.push((reference, source?, down));
        }
        let mut values = Vec::with_capacity(sources.len());
        let mut caveat = None;
        for (reference, source, down) in sources {
            let served = match source {
                Source::Kept(served) => served,
                Source::Fetch(waiter) => {
                    Served { value: self.0.wait(reference, waiter).await?, caveat: None }
                }
                Source::FetchOrKept(waiter) => self.0.wait_briefly(reference, waiter, down, patience).await?,
            };
            values.push(served.value);
            caveat = caveat.or(served.caveat);
        }
        if let (Some(_), [value]) = (content.as_plain(), &values[..]) {
            return Ok(Served { value: value.clone(), caveat });
        }
        let named = grant.entry().name.clone();
        let value = content.render(&values).map_err(|error| match error {
            RenderError::Empty(_) => FetchError::Empty { reference: named },
            RenderError::NoText => FetchError::Malformed { reference: named, what: error.to_string() },
        })?;
        Ok(Served { value: value.into(), caveat })
    }
}

impl Shared {
    /// What the last token came to says nothing about the next one, and what another account's is, is not ours.
    fn notice_new_token<'r>(&self, mut references: impl Iterator<Item = &'r Reference>) {
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

    /// Waits for as long as the caller lets us.
    async fn wait(self: &Arc<Self>, reference: &Reference, mut waiter: Waiter) -> Outcome {
        loop {
            match waiter.outcome().await {
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
    ) -> Result<Served, FetchError> {
        let outcome = async {
            select! {
                biased;
                outcome = waiter.outcome() => outcome,
                _ = down.changed() => None,
            }
        };
        let late = || FetchError::TimedOut(self.timing.short_deadline);
        let error = match timeout_at(patience, outcome).await {
            Ok(Some(Ok(value))) => return Ok(Served { value, caveat: None }),
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
