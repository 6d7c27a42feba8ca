//! Waiting for the callbacks of 1Password's core.
//!
//! The library is given a number, not a pointer, and hands it back to the callback. A number that is no longer registered
//! wakes nobody, so a late callback cannot follow a stale pointer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::failure::Failure;

/// The senders of the wakers that wait, by their keys.
static WAITING: Mutex<Option<HashMap<usize, SyncSender<i8>>>> = Mutex::new(None);

pub struct Waker {
    key: usize,
    called: Receiver<i8>,
}

impl Waker {
    /// One that waits for the callback with its key.
    pub fn register() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let key = COUNT.fetch_add(1, Ordering::Relaxed);
        let (sender, called) = sync_channel(1);
        WAITING.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().insert(key, sender);
        Self { key, called }
    }

    /// The key to give to the library.
    pub fn key(&self) -> usize {
        self.key
    }

    /// What the callback was called with.
    pub fn wait(&self, deadline: Instant) -> Result<i8, Failure> {
        match self.called.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(code) => Ok(code),
            Err(RecvTimeoutError::Timeout) => Err(Failure::Late),
            Err(RecvTimeoutError::Disconnected) => Err(Failure::Broken("a lost wake-up".into())),
        }
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        take(self.key);
    }
}

fn take(key: usize) -> Option<SyncSender<i8>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.remove(&key)
}

/// The callback, which the library calls from any thread. It must not unwind into the library: nothing here panics.
pub extern "C" fn wake(key: usize, code: i8) {
    if let Some(sender) = take(key) {
        // The waker may be gone by now.
        let _ = sender.try_send(code);
    }
}
