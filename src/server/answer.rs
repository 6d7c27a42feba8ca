//! The only place that writes to a peer. A peer gets the whole value or the agreed refusal, nothing else.
//!
//! systemd takes whatever was written before the connection closes for the credential, even nothing and even half of
//! it. Its one portable "no" is a credential over its size limit: so a refusal is [`REFUSAL`] zero bytes.
//!
//! Only three things mean that the peer is gone: EPIPE, ECONNRESET and a hang-up. After any other error the connection
//! stays as it is, and what failed is tried again: to close it would be an answer.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, Shutdown, getsockopt, send, setsockopt, shutdown, sockopt};
use tokio::io::Interest;
use tokio::time::sleep;
use tracing::error;

use crate::names::CREDENTIALS_MAX;
use crate::secret::Secret;

/// The zero bytes of a refusal: one more than systemd accepts.
const REFUSAL: usize = CREDENTIALS_MAX + 1;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The socket priority that marks a connection on which an answer has begun. It has no effect on a local socket, but
/// stays with the socket when its descriptor passes from one instance of the service to the next.
const BEGUN: i32 = 6;

/// Half of the smallest send buffer that the kernel lets anybody set (4,608 bytes), less the 64: it always fits.
const ALWAYS_FITS: usize = 2240;

/// How long to wait after an error that says nothing about the peer; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A connection that the runtime watches.
pub struct Watched {
    stream: UnixStream,
    /// A second descriptor of it: the runtime would have to own the first to watch it, and would close it if it could
    /// not.
    ready: tokio::net::UnixStream,
}

impl Watched {
    pub fn connection(&self) -> &UnixStream {
        &self.stream
    }
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum End {
    /// The kernel has all of it for the peer.
    Whole,
    /// Nobody reads it any more.
    Gone,
}

/// What became of an answer that must not wait.
#[must_use]
pub enum AtOnce {
    Ended(End),
    /// How many bytes were written: none, unless the kernel did what it never does.
    Later(usize),
}

/// Writes `value` if the kernel is sure to take it whole. The connection bears its mark before the first byte, so that
/// whoever finds it after our death does not answer it a second time.
pub fn at_once(stream: &UnixStream, value: &Secret) -> AtOnce {
    let fits = value.len() <= ALWAYS_FITS || value.len() <= one_buffer(stream);
    if !fits || begin(stream).is_err() {
        return AtOnce::Later(0);
    }
    match write_some(stream, value.expose()) {
        Wrote::Some(sent) if sent == value.len() => AtOnce::Ended(End::Whole),
        Wrote::Some(sent) => AtOnce::Later(sent),
        Wrote::Gone => AtOnce::Ended(End::Gone),
        Wrote::Full | Wrote::Nothing(_) => AtOnce::Later(0),
    }
}

/// What a fresh connection takes in one indivisible buffer: the kernel allocates no larger one than half of the send
/// buffer's limit, less 64 bytes (`unix_stream_sendmsg`), and 32 KiB without looking for fragments.
fn one_buffer(stream: &UnixStream) -> usize {
    let limit = getsockopt(stream, sockopt::SndBuf).unwrap_or(0);
    (limit / 2).saturating_sub(64).min(32 << 10)
}

/// Whether an answer may have been begun, here or by an earlier instance. Only a refusal may follow: it makes whatever
/// was written before it invalid.
pub fn may_be_begun(stream: &impl AsFd) -> bool {
    !getsockopt(stream, sockopt::Priority).is_ok_and(|priority| priority != BEGUN)
}

/// Has the runtime watch a connection, for an answer that takes time. Never closes it.
pub async fn watched(stream: UnixStream) -> Watched {
    let mut pause = Pause::default();
    let ready = |stream: &UnixStream| {
        stream.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(stream.try_clone()?)
    };
    loop {
        match ready(&stream) {
            Ok(ready) => return Watched { stream, ready },
            Err(error) => pause.after("watch a connection", error).await,
        }
    }
}

/// Writes `value`, of which `sent` bytes are already written, piece by piece as the peer reads.
pub async fn whole(stream: &Watched, value: &Secret, sent: usize) -> End {
    if mark(stream).await == End::Gone {
        return End::Gone;
    }
    match write(stream, &value.expose()[sent..]).await {
        End::Whole => finish(stream).await,
        End::Gone => End::Gone,
    }
}

/// Writes the refusal, whatever was written before.
pub async fn refuse(stream: &Watched) -> End {
    if mark(stream).await == End::Gone {
        return End::Gone;
    }
    let mut left = REFUSAL;
    while left > 0 {
        let piece = &ZEROS[..left.min(ZEROS.len())];
        if write(stream, piece).await == End::Gone {
            return End::Gone;
        }
        left -= piece.len();
    }
    finish(stream).await
}

/// A refusal step by step, for the keeper, which has no runtime.
#[derive(Default)]
pub struct Refusing {
    begun: bool,
    sent: usize,
}

impl Refusing {
    /// Writes as much as there is room for; says whether all is written or the peer is gone.
    pub fn go_on(&mut self, stream: impl AsFd) -> bool {
        self.begun = self.begun || begin(&stream).is_ok();
        while self.begun && self.sent < REFUSAL {
            match write_some(&stream, &ZEROS[..ZEROS.len().min(REFUSAL - self.sent)]) {
                Wrote::Some(sent) => self.sent += sent,
                Wrote::Full | Wrote::Nothing(_) => return false,
                Wrote::Gone => return true,
            }
        }
        self.begun && shutdown(stream.as_fd().as_raw_fd(), Shutdown::Write).is_ok()
    }
}

/// Returns when the peer has hung up.
pub async fn hung_up(stream: &Watched) {
    loop {
        // Not yet: look again at the connection's next change.
        let gone = || if is_gone(&stream.stream) { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) };
        if stream.ready.async_io(Interest::WRITABLE, gone).await.is_ok() {
            return;
        }
        // The runtime cannot watch it for now.
        sleep(LONGEST_PAUSE).await;
    }
}

/// Whether the kernel says that the other end is closed. An error of the call does not say so.
pub fn is_gone(stream: impl AsFd) -> bool {
    let mut peer = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    loop {
        match poll(&mut peer, PollTimeout::ZERO) {
            Err(Errno::EINTR) => {}
            Err(_) => return false,
            Ok(_) => {
                let told = peer[0].revents().unwrap_or(PollFlags::empty());
                return told.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
            }
        }
    }
}

fn begin(stream: &impl AsFd) -> nix::Result<()> {
    setsockopt(stream, sockopt::Priority, &BEGUN)
}

async fn mark(stream: &Watched) -> End {
    let mut pause = Pause::default();
    while let Err(errno) = begin(&stream.stream) {
        if is_gone(&stream.stream) {
            return End::Gone;
        }
        pause.after("mark a connection", errno).await;
    }
    End::Whole
}

/// The peer sees the end now, although systemd's store holds the connection open.
async fn finish(stream: &Watched) -> End {
    let mut pause = Pause::default();
    while let Err(errno) = shutdown(stream.stream.as_raw_fd(), Shutdown::Write) {
        if is_gone(&stream.stream) {
            return End::Gone;
        }
        pause.after("end an answer", errno).await;
    }
    End::Whole
}

/// What became of a write.
enum Wrote {
    Some(usize),
    /// There is no room until the peer reads.
    Full,
    Gone,
    /// Nothing, for a reason that says nothing about the peer.
    Nothing(Errno),
}

fn write_some(stream: &impl AsFd, bytes: &[u8]) -> Wrote {
    loop {
        match send(stream.as_fd().as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Ok(sent) => return Wrote::Some(sent),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Wrote::Full,
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Wrote::Gone,
            Err(errno) => return Wrote::Nothing(errno),
        }
    }
}

async fn write(stream: &Watched, mut bytes: &[u8]) -> End {
    let mut pause = Pause::default();
    while !bytes.is_empty() {
        // Tried before any waiting: while [`hung_up`] watched, the runtime may have missed that there is room.
        let wrote = match write_some(&stream.stream, bytes) {
            Wrote::Full => {
                let room = || match write_some(&stream.stream, bytes) {
                    Wrote::Full => Err(io::ErrorKind::WouldBlock.into()),
                    wrote => Ok(wrote),
                };
                stream.ready.async_io(Interest::WRITABLE, room).await.unwrap_or(Wrote::Nothing(Errno::EIO))
            }
            wrote => wrote,
        };
        match wrote {
            Wrote::Some(sent) => bytes = &bytes[sent..],
            Wrote::Gone => return End::Gone,
            Wrote::Full => {}
            Wrote::Nothing(_) if is_gone(&stream.stream) => return End::Gone,
            Wrote::Nothing(errno) => pause.after("write an answer", errno).await,
        }
    }
    End::Whole
}

/// Waits longer and longer between tries, and says once why.
#[derive(Default)]
struct Pause(Option<Duration>);

impl Pause {
    async fn after(&mut self, what: &str, why: impl std::fmt::Display) {
        let pause = match self.0 {
            Some(last) => (last * 2).min(LONGEST_PAUSE),
            None => {
                error!("cannot {what} for now, trying again: {why}");
                FIRST_PAUSE
            }
        };
        self.0 = Some(pause);
        sleep(pause).await;
    }
}
