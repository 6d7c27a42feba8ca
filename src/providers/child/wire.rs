//! What the service and the child process say to each other, over a socket pair.
//!
//! A frame is its length (four bytes, big-endian) and its content. An empty frame says that a request goes out to 1Password,
//! so that it is counted even if no answer comes back; a length that no frame has takes that back. The others are messages:
//! JSON, except for the token and the values, which are raw bytes.
//!
//! 1. The service sends [`SignIn`], then the token; the child answers with a `Result<(), FetchError>`.
//! 2. As often as it likes, the service sends a [`Call`], which the child answers.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::providers::ask::known::Names;
use crate::providers::ask::{ANSWER_MAX, Count, List, REQUEST_MAX, connect};
use crate::providers::error::FetchError;
use crate::reference::Reference;

/// The longest content of a frame, in bytes: a value can be as long as an answer.
const FRAME_MAX: usize = ANSWER_MAX;
/// An empty frame.
const REQUEST: [u8; 4] = [0; 4];
/// Instead of a frame: the last request was not made.
const NEVER_SENT: [u8; 4] = [0xff; 4];
/// Longer than anybody waits.
const EVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// How much longer than its requests the child may take.
const SLACK: Duration = Duration::from_secs(5);

#[derive(Serialize, Deserialize)]
pub struct SignIn {
    pub endpoint: Endpoint,
}

/// The other end of the network: who is asked for the values.
#[derive(Serialize, Deserialize)]
pub enum Endpoint {
    OnePassword {
        /// Where the core library is.
        library: PathBuf,
        /// The hosts that the token may name besides 1Password's.
        hosts: Vec<String>,
    },
    Connect(connect::Server),
}

#[derive(Serialize, Deserialize)]
pub enum Call {
    /// Asks for values. The answer is [`Reply`]s.
    Fetch { references: Vec<Reference>, names: Names },
    /// Asks for the vaults with their versions. The answer is a `Result<List, FetchError>`.
    Vaults,
}

/// A part of the answer to [`Call::Fetch`].
#[derive(Serialize, Deserialize)]
pub enum Reply {
    /// The vaults as they were before any value was read.
    Vaults(List),
    /// The results for the references of these numbers, which belong together. A frame with the value follows for each that is
    /// not an error.
    Results(Vec<(usize, Result<(), FetchError>)>),
    /// There is one for each reference.
    Done(Names),
}

pub async fn send(to: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    write(to, &serde_json::to_vec(message)?).await
}

pub async fn write(to: &mut UnixStream, content: &[u8]) -> io::Result<()> {
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_be_bytes()).await?;
    to.write_all(content).await
}

/// Says that so many requests go out.
pub async fn count(to: &mut UnixStream, requests: usize) -> io::Result<()> {
    to.write_all(&REQUEST.repeat(requests)).await
}

pub async fn never_sent(to: &mut UnixStream) -> io::Result<()> {
    to.write_all(&NEVER_SENT).await
}

/// The next message. `count` is told of the requests that go out before it.
pub async fn receive<T: DeserializeOwned>(
    from: &mut UnixStream,
    count: &impl Count,
    limit: Option<Duration>,
) -> io::Result<T> {
    Ok(serde_json::from_slice(&read(from, count, limit).await?)?)
}

/// The same of a message that is not JSON. Its length is checked before anything is allocated, and its buffer never grows.
/// `limit` is how long a request may take before the other end is given up; `None`: for ever.
pub async fn read(
    from: &mut UnixStream,
    count: &impl Count,
    limit: Option<Duration>,
) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut length = REQUEST;
    let of = |requests: u32| limit.map_or(EVER, |limit| limit.saturating_mul(requests) + SLACK);
    // To connect takes no longer than one request.
    let mut patience = limit.map_or(EVER, |limit| limit.min(REQUEST_MAX) + SLACK);
    let mut requests = 0;
    loop {
        within(patience, from.read_exact(&mut length)).await?;
        match length {
            REQUEST => {
                count.count(1);
                requests += 1;
                patience = of(requests);
            }
            NEVER_SENT => count.never_sent(),
            _ => break,
        }
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut content = Zeroizing::new(vec![0; length]);
    within(patience, from.read_exact(&mut content)).await?;
    Ok(content)
}

pub async fn within<T>(patience: Duration, io: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(patience, io).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// For what makes no requests.
impl Count for () {
    fn count(&self, _: usize) {}
    fn never_sent(&self) {}
}
