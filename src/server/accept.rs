//! The accept loop: takes connections, and answers those at once that can be answered from memory.

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
use crate::systemd::notify;

/// How long to wait after running out of descriptors, memory or places for another connection.
const PAUSE: Duration = Duration::from_millis(100);
/// How many connections are accepted before the bell is listened to again.
const ROUND: usize = 64;

/// Accepts until the other end of `bell` closes. Each byte from there is a heartbeat to pass on to systemd.
pub fn accept(listener: &UnixListener, mut bell: UnixStream, service: &Arc<Service>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    loop {
        let mut ends = [bell.as_fd(), listener.as_fd()].map(|end| PollFd::new(end, PollFlags::POLLIN));
        match poll(&mut ends, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if ends[0].any() == Some(true) {
            if bell.read(&mut [0; 16])? == 0 {
                return Ok(());
            }
            notify::watchdog();
        }
        for _ in 0..ROUND {
            // A permit first, then a connection: what is accepted must be answered, what is not can wait in the
            // backlog, which survives us.
            if !service.park.has_room() {
                thread::sleep(PAUSE);
                break;
            }
            match listener.accept() {
                Ok((stream, address)) => {
                    request::handle(Request { stream, address: Ok(address), place: None }, service);
                }
                Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EAGAIN) => break,
                    Some(Errno::ECONNABORTED | Errno::EINTR) => {}
                    Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                        error!("cannot accept a connection for now: {error}");
                        thread::sleep(PAUSE);
                        break;
                    }
                    _ => return Err(error),
                },
            }
        }
    }
}
