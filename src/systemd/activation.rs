//! The descriptors that systemd passes at start: listening sockets, and what the last instance left in the store.

use std::env;
use std::io;
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use nix::libc::{AF_UNIX, SOCK_STREAM};

/// What systemd passes under one name.
pub struct Passed {
    pub name: String,
    /// `None`: it was no local stream socket, so it is nothing of ours, and is closed.
    pub socket: Option<OwnedFd>,
}

/// Takes all descriptors that were passed to this process. To be called once, before any other file is opened.
pub fn take() -> io::Result<Vec<Passed>> {
    let mut passed = ListenFd::from_env();
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let count = passed.len();
    let take = |index| {
        let name = names.next().unwrap_or_default().to_owned();
        let socket = passed.take_custom(index, AF_UNIX, SOCK_STREAM, "local stream socket").unwrap_or(None);
        if let Some(foreign) = passed.take_raw_fd(index)? {
            nix::unistd::close(foreign)?;
        }
        Ok(Passed { name, socket })
    };
    (0..count).map(take).collect()
}
