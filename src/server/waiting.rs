//! The requests of units that wait for their value, for administrators to see.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::moment::Moment;
use crate::peer::Claim;

/// One request that waits.
#[derive(Debug, Clone)]
pub struct Wait {
    pub claim: Claim,
    /// When the unit first asked.
    pub since: Moment,
    /// When it is refused at the latest; `None`: it waits for ever.
    pub until: Option<Moment>,
}

/// All of them, in the order in which they began to wait here.
#[derive(Debug, Default)]
pub struct Waiting {
    list: Mutex<(u64, BTreeMap<u64, Wait>)>,
    news: watch::Sender<()>,
}

/// Takes its request off the list when it is dropped.
#[must_use]
pub struct Listed<'a> {
    waiting: &'a Waiting,
    number: u64,
}

impl Waiting {
    pub fn list(&self, wait: Wait) -> Listed<'_> {
        let mut listed = self.lock();
        listed.0 += 1;
        let number = listed.0;
        listed.1.insert(number, wait);
        drop(listed);
        self.news.send_replace(());
        Listed { waiting: self, number }
    }

    pub fn all(&self) -> Vec<Wait> {
        self.lock().1.values().cloned().collect()
    }

    /// Hears of each request that begins to wait.
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Wait>)> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.waiting.lock().1.remove(&self.number);
    }
}
