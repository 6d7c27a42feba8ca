//! What is being fetched, and how far that is. Pure, as [`super::state::State`] is.

use std::collections::HashMap;

use super::state::Waiter;
use crate::moment::Moment;
use crate::reference::Reference;

/// Fewer values than this are not told of in the journal, however long they take: units that wait for them are.
const MANY: usize = 10;

pub struct Fetching {
    /// See [`super::state::Wanted`].
    pub number: u64,
    pub outcome: Waiter,
    /// How many asked who have no other value: a failure that may pass is then tried again.
    pub urgent: usize,
    /// Whether nobody but the background asked for it.
    pub sought: bool,
    /// Whether nobody asked for it at all: it goes along with what is read anyway.
    pub along: bool,
}

/// How far what is being fetched is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Of how many it is known whether they can be had.
    pub done: usize,
    /// How many were asked for since nothing was being fetched.
    pub all: usize,
    /// How many of those that are done could not be had.
    pub failed: usize,
    pub since: Moment,
}

/// What is being fetched, or will be with the next fetch.
#[derive(Default)]
pub struct UnderWay {
    of: HashMap<Reference, Fetching>,
    /// These count from when nothing was being fetched.
    all: usize,
    failed: usize,
    /// `None`: the fetch has not begun.
    since: Option<Moment>,
    is_told: bool,
}

impl UnderWay {
    pub fn get(&self, reference: &Reference) -> Option<&Fetching> {
        self.of.get(reference)
    }

    pub fn get_mut(&mut self, reference: &Reference) -> Option<&mut Fetching> {
        self.of.get_mut(reference)
    }

    pub fn insert(&mut self, reference: &Reference, fetching: Fetching) {
        if self.of.is_empty() {
            (self.all, self.failed, self.since, self.is_told) = (0, 0, None, false);
        }
        if self.of.insert(reference.clone(), fetching).is_none() {
            self.all += 1;
        }
    }

    /// It is known whether it can be had.
    pub fn end(&mut self, reference: &Reference, is_had: bool) -> Option<Fetching> {
        let ended = self.of.remove(reference)?;
        self.failed += usize::from(!is_had);
        Some(ended)
    }

    /// What is not asked for any more does not count.
    pub fn retain(&mut self, is_left: impl Fn(&Fetching) -> bool) {
        let before = self.of.len();
        self.of.retain(|_, fetching| is_left(fetching));
        self.all -= before - self.of.len();
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// A fetch is at work. To be said again and again while it is, because what it is for may be other things by then.
    pub fn goes_on(&mut self, now: Moment) {
        self.since.get_or_insert(now);
    }

    /// `None`: nothing is being fetched.
    pub fn progress(&self) -> Option<Progress> {
        self.so_far().filter(|_| !self.of.is_empty())
    }

    /// Whether this is to be told now, because it takes long and is about many; its end is told then, too.
    pub fn begin_to_tell(&mut self) -> Option<Progress> {
        let progress = self.progress().filter(|progress| progress.all >= MANY && !self.is_told)?;
        self.is_told = true;
        Some(progress)
    }

    /// How it ended, if its beginning was told and nothing is left. Says so once.
    pub fn told_end(&mut self) -> Option<Progress> {
        let is_over = self.of.is_empty() && std::mem::take(&mut self.is_told);
        self.so_far().filter(|_| is_over)
    }

    fn so_far(&self) -> Option<Progress> {
        Some(Progress {
            done: self.all - self.of.len(),
            all: self.all,
            failed: self.failed,
            since: self.since?,
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    fn begin(under_way: &mut UnderWay, number: usize) -> Reference {
        let reference: Reference = format!("op://Vault/{number}/value").parse().unwrap();
        let outcome = Waiter(watch::channel(None).1);
        let fetching = Fetching { number: number as u64, outcome, urgent: 0, sought: false, along: false };
        under_way.insert(&reference, fetching);
        reference
    }

    #[test]
    fn what_comes_and_what_fails_is_counted_until_nothing_is_left() {
        let mut under_way = UnderWay::default();
        let all: Vec<Reference> = (0..MANY).map(|number| begin(&mut under_way, number)).collect();
        assert_eq!(under_way.progress(), None, "no fetch is at work");
        under_way.goes_on(Moment::BOOT);
        under_way.end(&all[0], true);
        under_way.end(&all[1], false);
        // Who asks anew for what is under way asks for nothing more.
        begin(&mut under_way, 2);
        let progress = Progress { done: 2, all: MANY, failed: 1, since: Moment::BOOT };
        assert_eq!(under_way.progress(), Some(progress));
        assert_eq!(under_way.begin_to_tell(), Some(progress));
        assert_eq!(
            (under_way.begin_to_tell(), under_way.told_end()),
            (None, None),
            "once, and not before the end"
        );
        under_way.retain(|fetching| fetching.number != 2);
        assert_eq!(under_way.progress().map(|progress| (progress.done, progress.all)), Some((2, MANY - 1)));
        all[3..].iter().for_each(|reference| drop(under_way.end(reference, true)));
        assert_eq!(under_way.progress(), None);
        let end = Progress { done: MANY - 1, all: MANY - 1, failed: 1, since: Moment::BOOT };
        assert_eq!((under_way.told_end(), under_way.told_end()), (Some(end), None));
        // The next ones are counted from the start.
        begin(&mut under_way, 1);
        under_way.goes_on(Moment::BOOT);
        assert_eq!(under_way.progress().map(|progress| (progress.done, progress.all)), Some((0, 1)));
        assert_eq!(under_way.begin_to_tell(), None, "they are few");
    }
}
