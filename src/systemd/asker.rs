//! Asking for a credential exactly as systemd does: for the mirror, the demo, the benchmark and the tests.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, connect, socket};

/// Connects from the address that systemd would use for this unit and credential.
pub fn connect_as(socket_path: &Path, unit: &str, credential: &str) -> io::Result<UnixStream> {
    let end = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // systemd draws the number at random; here it must only differ between simultaneous requests.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = u64::from(std::process::id()) << 32 | u64::from(COUNT.fetch_add(1, Ordering::Relaxed));
    let name = format!("{number:016x}/unit/{unit}/{credential}");
    bind(end.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
    connect(end.as_raw_fd(), &UnixAddr::new(socket_path)?)?;
    let stream = UnixStream::from(end);
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(stream)
}

/// What systemd would make of the answer: `None` stands for a start that fails because it is over the size limit.
pub fn ask(socket_path: &Path, unit: &str, credential: &str) -> io::Result<Option<Vec<u8>>> {
    let mut answer = Vec::new();
    connect_as(socket_path, unit, credential)?.read_to_end(&mut answer)?;
    Ok(Some(answer).filter(|answer| answer.len() <= crate::names::CREDENTIALS_MAX))
}
