//! The descriptors that systemd passes at start: listening sockets, and what the last instance left in the store.
//!
//! The only file with unsafe code.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

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
