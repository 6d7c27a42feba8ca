//! The only place that writes to a peer. A peer gets the whole value or the agreed refusal, nothing else.
//!
//! systemd takes what was written until the connection closes for the credential, even nothing and even half of it.
//! Its one portable "no" is a credential over its size limit: so a refusal is [`REFUSAL`] zero bytes.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, Shutdown, getsockopt, send, setsockopt, shutdown, sockopt};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::names::CredentialName;
use crate::secret::Secret;

/// systemd's limit on a unit's credentials, names and values together, in bytes.
pub const CREDENTIALS_MAX: usize = 1 << 20;
/// The zero bytes of a refusal: one more than systemd accepts.
const REFUSAL: usize = CREDENTIALS_MAX + 1;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The socket priority that marks a connection on which an answer has begun. It has no effect on a local socket, but
/// stays with the socket when its descriptor passes from one instance of the service to the next.
const BEGUN: i32 = 6;

/// Half of the smallest send buffer that the kernel lets anybody set (4,608 bytes), less the 64: it always fits.
const ALWAYS_FITS: usize = 2240;

/// The largest value that systemd takes under this name, in bytes.
pub fn size_limit(credential: &CredentialName) -> usize {
    CREDENTIALS_MAX - credential.as_str().len()
}

/// Writes `value` at once, if the kernel is sure to take it whole: then not even our death can cut it off.
/// False when it is too large for that, and nothing was written.
pub fn at_once(stream: &net::UnixStream, value: &Secret) -> io::Result<bool> {
    if value.len() > ALWAYS_FITS && value.len() > one_buffer(stream)? {
        return Ok(false);
    }
    let sent = send(stream.as_raw_fd(), value.expose(), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
    assert_eq!(sent, value.len(), "the kernel cut a single buffer");
    Ok(true)
}

/// What a fresh connection takes in one indivisible buffer: the kernel allocates no larger one than half of the send
/// buffer's limit, less 64 bytes (`unix_stream_sendmsg`), and 32 KiB without looking for fragments.
fn one_buffer(stream: &net::UnixStream) -> io::Result<usize> {
    let limit = getsockopt(stream, sockopt::SndBuf)?;
    Ok((limit / 2).saturating_sub(64).min(32 << 10))
}

/// Whether an answer was begun, here or by an earlier instance. Only a refusal may follow: it makes whatever was
/// written before it invalid.
pub fn begun(stream: &net::UnixStream) -> bool {
    getsockopt(stream, sockopt::Priority) == Ok(BEGUN)
}

/// The connection under the runtime's eyes, for an answer that takes time.
pub fn watched(stream: net::UnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Writes `value` piece by piece as the peer reads. The connection must be parked, so that our death leaves a
/// connection which the next instance refuses, not a value cut off.
pub async fn whole(stream: &UnixStream, value: &Secret) -> io::Result<()> {
    begin(stream)?;
    write(stream, value.expose()).await?;
    finish(stream)
}

/// Writes the refusal. The connection must be parked, for the same reason.
pub async fn refuse(stream: &UnixStream) -> io::Result<()> {
    begin(stream)?;
    let mut left = REFUSAL;
    while left > 0 {
        let piece = &ZEROS[..left.min(ZEROS.len())];
        write(stream, piece).await?;
        left -= piece.len();
    }
    finish(stream)
}

/// Returns when the peer has hung up.
pub async fn hung_up(stream: &UnixStream) {
    let is_hung_up = || {
        let mut peer = [PollFd::new(stream.as_fd(), PollFlags::empty())];
        match poll(&mut peer, PollTimeout::ZERO) {
            // Not yet: look again at the connection's next change.
            Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    };
    // An error ends the wait as well; answering will meet it again.
    let _ = stream.async_io(Interest::WRITABLE, is_hung_up).await;
}

fn begin(stream: &UnixStream) -> io::Result<()> {
    Ok(setsockopt(stream, sockopt::Priority, &BEGUN)?)
}

/// The peer sees the end now, although systemd's store holds the connection open.
fn finish(stream: &UnixStream) -> io::Result<()> {
    Ok(shutdown(stream.as_raw_fd(), Shutdown::Write)?)
}

async fn write(stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    let send = |bytes: &[u8]| {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        Ok::<_, io::Error>(send(stream.as_raw_fd(), bytes, flags)?)
    };
    while !bytes.is_empty() {
        // Tried before any waiting: while [`hung_up`] watched, the runtime may have missed that there is room.
        let sent = match send(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.async_io(Interest::WRITABLE, || send(bytes)).await
            }
            sent => sent,
        };
        bytes = &bytes[sent?..];
    }
    Ok(())
}
