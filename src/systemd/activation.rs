//! The descriptors that systemd passes at start: listening sockets, and what the last instance left in the store.
//!
//! The only file with unsafe code.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor and the name under which systemd passes it.
pub struct Passed {
    pub name: String,
    pub fd: OwnedFd,
}

/// Takes all descriptors that were passed to this process. To be called once, before any other file is opened.
pub fn take() -> io::Result<Vec<Passed>> {
    let passed = sd_notify::listen_fds_with_names()?;
    #[expect(unsafe_code, reason = "descriptors are passed by number")]
    // SAFETY: systemd passes these descriptors to this very process (LISTEN_PID is checked), and this function, called
    // once in `main`, is the only one to claim them.
    let own = |(fd, name)| Passed { name, fd: unsafe { OwnedFd::from_raw_fd(fd) } };
    Ok(passed.map(own).collect())
}

/// The listening socket under the runtime's eyes. Not tokio's own listener, which puts every accepted connection under
/// its eyes as well: an answer from memory needs none of that, and it showed in its latency.
pub fn watched(listener: UnixListener) -> io::Result<AsyncFd<UnixListener>> {
    listener.set_nonblocking(true)?;
    #[expect(unsafe_code, reason = "tokio asks for a promise that the type of the listener gives")]
    // SAFETY: a `UnixListener` owns its descriptor and always returns the same one, and nothing can take it out of the
    // `AsyncFd` while that is registered.
    let watched = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
    Ok(watched?)
}
