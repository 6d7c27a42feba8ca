//! The descriptors that systemd passes at start: listening sockets, and what the last instance left in the store.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use listenfd::ListenFd;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{SockType, UnixAddr, getpeername, getsockname, getsockopt, sockopt};

use super::store;
use crate::{kernel, records};

/// The name of the listening socket: `FileDescriptorName=` in `systemd/opnix.socket`.
const CREDENTIALS: &str = "creds";
/// That of the control socket: `FileDescriptorName=` in `systemd/opnix-control.socket`.
const CONTROL: &str = "control";

/// What systemd passed, by what it is for.
#[derive(Default)]
pub struct Passed {
    pub credentials: Vec<UnixListener>,
    pub control: Vec<UnixListener>,
    /// Requests that an earlier instance left, by their names in the store.
    pub requests: Vec<(String, OwnedFd)>,
    /// Records that it could not write.
    pub records: Option<File>,
    /// Sockets that are not known, by name. They stay open: to close a connection would be an answer, and to shut a listening
    /// socket down would end it for systemd as well.
    pub unknown: Vec<(String, OwnedFd)>,
    /// Descriptors that are not sockets, so that nobody waits for them: closed, and to be taken out of the store by
    /// these names.
    pub dropped: Vec<String>,
}

impl Passed {
    /// Takes all descriptors that were passed to this process. To be called once, before any other file is opened.
    pub fn take() -> io::Result<Self> {
        let mut passed = ListenFd::from_env();
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut rest = Vec::new();
        let mut sorted = Self::default();
        for index in 0..passed.len() {
            let name = names.next().unwrap_or_default().to_owned();
            let Some(number) = passed.take_raw_fd(index)? else { continue };
            let descriptor = kernel::own(number);
            fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
            match name.as_str() {
                CREDENTIALS if is_listener(&descriptor) => sorted.credentials.push(descriptor.into()),
                CONTROL if is_listener(&descriptor) => sorted.control.push(descriptor.into()),
                records::STORED_AS => sorted.records = Some(descriptor.into()),
                _ => rest.push((name, descriptor)),
            }
        }
        // Whatever its name, a connection to one of our sockets is a request.
        let listeners = sorted.credentials.iter().chain(&sorted.control);
        let ours: Vec<UnixAddr> =
            listeners.filter_map(|socket| getsockname(socket.as_raw_fd()).ok()).collect();
        for (name, descriptor) in rest {
            let is_ours = getsockname(descriptor.as_raw_fd()).is_ok_and(|name| ours.contains(&name));
            if is_connection(&descriptor) && (is_ours || name.starts_with(store::PREFIX)) {
                sorted.requests.push((name, descriptor));
            } else if getsockopt(&descriptor, sockopt::SockType).is_ok() {
                sorted.unknown.push((name, descriptor));
            } else {
                sorted.dropped.push(name);
            }
        }
        Ok(sorted)
    }
}

/// The connection that systemd passes to a service of an `Accept=yes` socket, if it does. To be called once, before any other file is
/// opened.
pub fn connection() -> io::Result<Option<UnixStream>> {
    let mut passed = ListenFd::from_env();
    if passed.len() != 1 {
        return Ok(None);
    }
    let Some(number) = passed.take_raw_fd(0)? else { return Ok(None) };
    let connection = kernel::own(number);
    fcntl(&connection, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(is_connection(&connection).then(|| connection.into()))
}

fn is_listener(socket: &impl AsFd) -> bool {
    getsockopt(socket, sockopt::AcceptConn) == Ok(true)
}

fn is_connection(socket: &OwnedFd) -> bool {
    getsockopt(socket, sockopt::SockType) == Ok(SockType::Stream)
        && getpeername::<UnixAddr>(socket.as_raw_fd()).is_ok()
}
