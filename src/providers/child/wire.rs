//! What the service and the child process say to each other, over a socket pair.
//!
//! A frame is its length (four bytes, big-endian) and its content. An empty frame says that a request goes out to 1Password,
//! so that it is counted even if no answer comes back. The others are messages: JSON, except for the token and the values,
//! which are raw bytes.
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
use zeroize::Zeroizing;

use crate::providers::ask::known::Names;
use crate::providers::ask::{ANSWER_MAX, connect};
use crate::providers::error::FetchError;
use crate::reference::Reference;

/// The longest content of a frame, in bytes: a value can be as long as an answer.
const FRAME_MAX: usize = ANSWER_MAX;
/// An empty frame.
const REQUEST: [u8; 4] = [0; 4];

#[derive(Serialize, Deserialize)]
pub struct SignIn {
    pub endpoint: Endpoint,
    /// How long signing in, and later each request, may take.
    pub limit: Duration,
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
    /// Asks for values. The answer is [`Fetched`].
    Fetch { references: Vec<Reference>, names: Names },
    /// Asks for the vaults with their versions. The answer is a `Result<Vec<Listed>, FetchError>`.
    Vaults,
}

/// The answer to [`Call::Fetch`]. A frame with the value follows for each result that is not an error, in their order.
#[derive(Serialize, Deserialize)]
pub struct Fetched {
    pub results: Vec<Result<(), FetchError>>,
    pub names: Names,
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

/// The next message; `counted` is called for each request that goes out before it.
pub async fn receive<T: DeserializeOwned>(from: &mut UnixStream, counted: impl Fn()) -> io::Result<T> {
    Ok(serde_json::from_slice(&read(from, counted).await?)?)
}

/// The same of a message that is not JSON. Its length is checked before anything is allocated, and its buffer never grows.
pub async fn read(from: &mut UnixStream, counted: impl Fn()) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut length = REQUEST;
    loop {
        from.read_exact(&mut length).await?;
        if length != REQUEST {
            break;
        }
        counted();
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut content = Zeroizing::new(vec![0; length]);
    from.read_exact(&mut content).await?;
    Ok(content)
}
