//! How far a look at many files is, for `systemctl status`, and how long it took, for the journal.

use std::time::{Duration, Instant};

use tracing::info;

use crate::counted::counted;
use crate::systemd::notify::Notifier;

/// What takes less is told by its end alone, and without the time.
const LONG: Duration = Duration::from_secs(2);
/// How often systemd is told.
const AGAIN: Duration = Duration::from_secs(1);

pub struct Telling {
    begun: Instant,
    next: Instant,
    /// How many files are looked at, and how many were.
    all: usize,
    done: usize,
}

impl Telling {
    pub fn new() -> Self {
        let begun = Instant::now();
        Self { begun, next: begun + LONG, all: 0, done: 0 }
    }

    /// So many files are looked at, if that is not known yet.
    pub fn expect(&mut self, files: usize) {
        if self.all == 0 {
            self.all = files;
        }
    }

    pub fn one_is_done(&mut self) {
        self.done += 1;
        let now = Instant::now();
        // One that an earlier look began is one too many.
        if now >= self.next && self.done <= self.all {
            self.next = now + AGAIN;
            Notifier::direct().status(&format!("Bringing files up to date: {} of {}.", self.done, self.all));
        }
    }

    pub fn end(&self, written: usize) {
        let took = self.begun.elapsed();
        let files = counted(written, "file");
        if written > 0 && took >= LONG {
            let took = humantime::format_duration(Duration::from_secs(took.as_secs()));
            info!("wrote {files} in {took}");
        } else if written > 0 {
            info!("wrote {files}");
        }
    }
}
