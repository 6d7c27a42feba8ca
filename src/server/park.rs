//! Waiting requests in systemd's fd store. What is parked outlives us: the next instance finds it and answers it.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::stat::fstat;

use crate::systemd::notify;

/// The names of our descriptors in the store: this and the socket's inode number, which is unique while it lives.
pub const PREFIX: &str = "request-";
/// `FileDescriptorStoreMax=` of `systemd/opnix.service` (a test compares them). systemd 254 and later say it in `$FDSTORE`.
pub const STORE_MAX: usize = 4096;

/// The places in the store. A quarter of them is kept for refusals, which take long to write and so must be parked too:
/// a request that finds no place to wait finds one to be refused in.
pub struct Park {
    /// Whether systemd holds a store for us at all.
    backed: bool,
    capacity: usize,
    taken: AtomicUsize,
}

/// One place in the store. Dropping it leaves the request there; [`Place::leave`] takes it out.
#[must_use]
pub struct Place {
    park: Arc<Park>,
    name: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ParkError {
    #[error("too many requests are waiting already ({0})")]
    Full(usize),
    #[error("systemd did not take the request into its store: {0}")]
    Refused(#[from] io::Error),
}

impl Park {
    pub fn new(backed: bool) -> Arc<Self> {
        let capacity = std::env::var("FDSTORE").ok().and_then(|max| max.parse().ok()).unwrap_or(STORE_MAX);
        Arc::new(Self { backed, capacity, taken: AtomicUsize::new(0) })
    }

    pub fn is_backed(&self) -> bool {
        self.backed
    }

    /// Whether another request can be accepted: there is a place to refuse it in, at least.
    pub fn has_room(&self) -> bool {
        self.taken() < self.capacity
    }

    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Parks a request that waits for its value.
    pub fn wait(self: &Arc<Self>, stream: &UnixStream) -> Result<Place, ParkError> {
        let limit = self.capacity - self.capacity / 4;
        // Only the accept loop adds, so what is free now stays free.
        if self.taken() >= limit {
            return Err(ParkError::Full(self.taken()));
        }
        self.hold(stream)
    }

    /// Parks a request that is about to be refused.
    pub fn hold(self: &Arc<Self>, stream: &UnixStream) -> Result<Place, ParkError> {
        let name = format!("{PREFIX}{}", fstat(stream).map_err(io::Error::from)?.st_ino);
        if self.backed {
            notify::store(&name, stream.as_fd())?;
        }
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(Place { park: self.clone(), name })
    }

    /// The place of a request that was found in the store at start.
    pub fn found(self: &Arc<Self>, name: String) -> Place {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Place { park: self.clone(), name }
    }
}

impl Place {
    pub fn leave(self) {
        if self.park.backed {
            notify::unstore(&self.name);
        }
        self.park.taken.fetch_sub(1, Ordering::Relaxed);
    }
}
