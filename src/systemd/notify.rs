//! What the service tells systemd. Without systemd (`$NOTIFY_SOCKET` unset) all of it does nothing.

use std::io;
use std::os::fd::BorrowedFd;

use sd_notify::NotifyState;
use tracing::warn;

pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The start of a reload; [`ready`] is its end.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => warn!("cannot read the clock to announce a reload: {error}"),
    }
}

pub fn stopping(status: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("cannot notify systemd: {error}");
    }
}

/// Puts a descriptor into systemd's store. When this returns, the kernel holds it for systemd, whatever becomes of us.
/// `FDPOLL=0`: systemd must not drop it by itself when the peer hangs up, so that our count of it stays right.
pub fn store(name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    sd_notify::notify_with_fds(
        &[NotifyState::FdStore, NotifyState::FdName(name), NotifyState::Custom("FDPOLL=0")],
        &[fd],
    )
}

/// Takes all descriptors of that name out of systemd's store.
pub fn unstore(name: &str) {
    send(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}
