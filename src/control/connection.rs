//! A connection to the control socket, with limits that zlink does not have: what a peer may take of us, in bytes and in
//! time, and when it is over.

use std::future::{Future, pending};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::select;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use zlink::ReadyListener;
use zlink::connection::PassedCredentials;
use zlink::connection::socket::{self, ReadResult, Socket};
use zlink::tokio::unix::Stream;

use crate::server::answer;

/// How long a peer has to say its next call, all of it, and to read an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The bytes of one call: the names of more secrets than a configuration has.
const CALL_MAX: usize = 1 << 20;

/// No call comes with more than one.
const DESCRIPTORS: usize = 4;
/// How long what a peer said before it hung up may take to be begun: it need not wait for an answer.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Over,
    /// The peer said nothing, closed its own side, and waits for what it can read: so does whoever reads a secret.
    OnlyReads,
}

/// Has `serve` answer the calls of a connection, as long as somebody is at its other end.
pub async fn limited<F, T>(
    stream: &UnixStream,
    serve: impl FnOnce(ReadyListener<Limited>) -> F,
) -> io::Result<End>
where
    F: Future<Output = zlink::Result<T>>,
{
    let unread = Rc::new(Notify::new());
    let served = async {
        // Before anything else has the stream: zlink's end of it would close it.
        if !timeout(PATIENCE, says_something(stream)).await?? {
            return Ok(End::OnlyReads);
        }
        let copy =
            Stream::try_from(std::os::unix::net::UnixStream::from(stream.as_fd().try_clone_to_owned()?));
        let limited = Limited { stream: copy.map_err(io::Error::other)?, unread: unread.clone() };
        select! {
            () = unread.notified() => Err(io::Error::other("the peer does not read its answers")),
            ended = serve(ReadyListener::new(limited)) => ended.map(|_| End::Over).map_err(io::Error::other),
        }
    };
    select! {
        biased;
        end = served => end,
        () = async { hung_up(stream).await; sleep(LAST_WORDS).await } => Ok(End::Over),
    }
}

async fn hung_up(stream: &UnixStream) {
    let gone = || if answer::is_gone(stream) { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) };
    while stream.async_io(Interest::WRITABLE, gone).await.is_err() {
        sleep(PATIENCE).await;
    }
}

/// Whether there is a first byte; `false` if there will never be one. It is left where it is.
async fn says_something(stream: &UnixStream) -> io::Result<bool> {
    let peek = || Ok(recv(stream.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK)?);
    Ok(stream.async_io(Interest::READABLE, peek).await? > 0)
}

/// A stream within the limits.
#[derive(Debug)]
pub struct Limited {
    stream: Stream,
    unread: Rc<Notify>,
}

#[derive(Debug)]
pub struct ReadHalf {
    half: <Stream as Socket>::ReadHalf,
    /// When the call that is being read must be whole.
    until: Option<Instant>,
    /// How many bytes of it were read.
    begun: usize,
}

#[derive(Debug)]
pub struct WriteHalf {
    half: <Stream as Socket>::WriteHalf,
    /// Told when an answer was not read in time.
    unread: Rc<Notify>,
}

impl Socket for Limited {
    type ReadHalf = ReadHalf;
    type WriteHalf = WriteHalf;
    const CAN_TRANSFER_FDS: bool = Stream::CAN_TRANSFER_FDS;

    fn split(self) -> (ReadHalf, WriteHalf) {
        let (read, write) = self.stream.split();
        (ReadHalf { half: read, until: None, begun: 0 }, WriteHalf { half: write, unread: self.unread })
    }
}

impl socket::ReadHalf for ReadHalf {
    async fn read(&mut self, buffer: &mut [u8]) -> zlink::Result<ReadResult> {
        let until = *self.until.get_or_insert_with(|| Instant::now() + PATIENCE);
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let read = timeout_at(until, self.half.read(buffer)).await.map_err(late)??;
        let bytes = &buffer[..read.bytes_read()];
        // A zero byte ends each call.
        match bytes.iter().rposition(|byte| *byte == 0) {
            Some(end) => (self.begun, self.until) = (bytes.len() - end - 1, None),
            None => self.begun += bytes.len(),
        }
        let is_too_much = self.begun > CALL_MAX || read.fds().len() > DESCRIPTORS;
        if is_too_much { Err(zlink::Error::BufferOverflow) } else { Ok(read) }
    }
}

impl socket::WriteHalf for WriteHalf {
    async fn write(
        &mut self,
        bytes: &[u8],
        descriptors: &[impl AsFd],
        credentials: Option<&PassedCredentials>,
    ) -> zlink::Result<()> {
        match timeout(PATIENCE, self.half.write(bytes, descriptors, credentials)).await {
            Ok(Ok(())) => Ok(()),
            // Mostly the peer is gone, which is no fault of anybody's: the connection ends by that.
            Ok(Err(_)) => {
                sleep(PATIENCE).await;
                self.unread.notify_one();
                pending().await
            }
            Err(_) => {
                self.unread.notify_one();
                pending().await
            }
        }
    }
}
