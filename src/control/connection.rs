//! A connection to the control socket, with limits that zlink does not have: what a peer may take of us, in bytes and in
//! time, and when it is over.

use std::cell::Cell;
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
/// How soon to look whether what a peer said before it hung up is done: it need not wait for an answer.
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
    let state = Rc::new(State::default());
    let served = async {
        // Before anything else has the stream: zlink's end of it would close it.
        if !timeout(PATIENCE, says_something(stream)).await?? {
            // Or it is nobody any more.
            return Ok(if answer::is_gone(stream) { End::Over } else { End::OnlyReads });
        }
        let copy =
            Stream::try_from(std::os::unix::net::UnixStream::from(stream.as_fd().try_clone_to_owned()?));
        let limited = Limited { stream: copy.map_err(io::Error::other)?, state: state.clone() };
        select! {
            () = state.unread.notified() => Err(io::Error::other("the peer does not read its answers")),
            ended = serve(ReadyListener::new(limited)) => ended.map(|_| End::Over).map_err(io::Error::other),
        }
    };
    select! {
        biased;
        end = served => end,
        () = async { hung_up(stream).await; state.is_idle().await } => Ok(End::Over),
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

#[derive(Debug, Default)]
struct State {
    /// Told when an answer was not read in time.
    unread: Notify,
    /// A call was read and is not answered yet.
    is_busy: Cell<bool>,
}

impl State {
    /// Waits until what a peer said before it hung up is done, if that does not take long.
    async fn is_idle(&self) {
        let end = Instant::now() + PATIENCE;
        sleep(LAST_WORDS).await;
        while self.is_busy.get() && Instant::now() < end {
            sleep(LAST_WORDS).await;
        }
    }
}

/// A stream within the limits.
#[derive(Debug)]
pub struct Limited {
    stream: Stream,
    state: Rc<State>,
}

#[derive(Debug)]
pub struct ReadHalf {
    half: <Stream as Socket>::ReadHalf,
    state: Rc<State>,
    /// When the call that is being read must be whole.
    until: Option<Instant>,
    /// How many bytes of it were read, and how many descriptors came with them.
    begun: usize,
    descriptors: usize,
}

#[derive(Debug)]
pub struct WriteHalf {
    half: <Stream as Socket>::WriteHalf,
    state: Rc<State>,
}

impl Socket for Limited {
    type ReadHalf = ReadHalf;
    type WriteHalf = WriteHalf;
    const CAN_TRANSFER_FDS: bool = Stream::CAN_TRANSFER_FDS;

    fn split(self) -> (ReadHalf, WriteHalf) {
        let (read, write) = self.stream.split();
        let state = self.state.clone();
        let read = ReadHalf { half: read, state, until: None, begun: 0, descriptors: 0 };
        (read, WriteHalf { half: write, state: self.state })
    }
}

impl socket::ReadHalf for ReadHalf {
    async fn read(&mut self, buffer: &mut [u8]) -> zlink::Result<ReadResult> {
        let until = *self.until.get_or_insert_with(|| Instant::now() + PATIENCE);
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let read = timeout_at(until, self.half.read(buffer)).await.map_err(late)??;
        let bytes = &buffer[..read.bytes_read()];
        // A zero byte ends each call.
        self.descriptors += read.fds().len();
        let is_too_much = self.begun + bytes.len() > CALL_MAX || self.descriptors > DESCRIPTORS;
        match bytes.iter().rposition(|byte| *byte == 0) {
            Some(end) => {
                (self.begun, self.descriptors, self.until) = (bytes.len() - end - 1, 0, None);
                self.state.is_busy.set(true);
            }
            None => self.begun += bytes.len(),
        }
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
        self.state.is_busy.set(false);
        match timeout(PATIENCE, self.half.write(bytes, descriptors, credentials)).await {
            Ok(Ok(())) => Ok(()),
            // Mostly the peer is gone, which is no fault of anybody's: the connection ends by that.
            Ok(Err(_)) => {
                sleep(PATIENCE).await;
                self.state.unread.notify_one();
                pending().await
            }
            Err(_) => {
                self.state.unread.notify_one();
                pending().await
            }
        }
    }
}
