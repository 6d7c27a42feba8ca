//! The accept loop: takes connections, and answers at once those that can be answered from memory. Its thread waits for
//! nothing but the next connection.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::error;

use super::Service;
use super::request::{self, Request};
use crate::moment::Moment;

/// How long to wait after an error, such as running out of descriptors or memory for another connection.
const PAUSE: Duration = Duration::from_millis(100);
/// How many connections are accepted before the heartbeats are looked at again.
const ROUND: usize = 64;

/// Accepts until the other end of `heartbeats` closes. Each byte read from it is a heartbeat to pass on to systemd.
pub fn accept(
    listeners: &[UnixListener],
    mut heartbeats: UnixStream,
    service: &Arc<Service>,
) -> io::Result<()> {
    for listener in listeners {
        listener.set_nonblocking(true)?;
    }
    heartbeats.set_nonblocking(true)?;
    let mut ends: Vec<PollFd<'_>> =
        listeners.iter().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)).collect();
    let watched = heartbeats.try_clone()?;
    ends.push(PollFd::new(watched.as_fd(), PollFlags::POLLIN));
    let mut failing = false;
    loop {
        let failed = match poll(&mut ends, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => None,
            Err(errno) => Some(errno.into()),
        };
        match heartbeats.read(&mut [0; 16]) {
            Ok(0) => return Ok(()),
            Ok(_) => service.notifier.heartbeat(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        let accepted = listeners.iter().map(|listener| accept_from(listener, service));
        match accepted.filter_map(Result::err).chain(failed).last() {
            Some(error) => {
                // What waits is in the backlog, which survives us.
                if !std::mem::replace(&mut failing, true) {
                    error!("cannot accept connections for now, trying again: {error}");
                }
                thread::sleep(PAUSE);
            }
            None => failing = false,
        }
    }
}

fn accept_from(listener: &UnixListener, service: &Arc<Service>) -> io::Result<()> {
    for _ in 0..ROUND {
        match listener.accept() {
            Ok((stream, address)) => {
                let request = Request { stream, since: Moment::now(), found: None, misdirected: false };
                request::handle(request, address, service);
            }
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EAGAIN) => return Ok(()),
                Some(Errno::ECONNABORTED | Errno::EINTR) => {}
                _ => return Err(error),
            },
        }
    }
    Ok(())
}
