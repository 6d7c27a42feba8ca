//! The process that holds 1Password's core, and what is said between it and the service.
//!
//! The core wipes nothing that it keeps, and is twenty megabytes of other people's code: it lives apart, gets the token and
//! the references through a socket pair, answers with values, and takes what it leaves in memory with it when it ends.
//!
//! A message is its length (four bytes, big-endian) and its content: JSON, but for the token and the values.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::client::Client;
use super::core::Core;
use super::failure::Asked;
use super::resolve::{Names, Resolver};
use super::token::Token;
use crate::providers::FetchError;
use crate::reference::Reference;
use crate::secret::{self, Secret};

/// The longest message, in bytes: more than the largest file that 1Password keeps.
pub const MESSAGE_MAX: usize = 64 << 20;

/// The first message; the second is the token, the answer to both a `Result<(), FetchError>`.
#[derive(Serialize, Deserialize)]
pub struct Hello {
    /// Where the core is.
    pub library: PathBuf,
    /// The hosts that the token may name besides 1Password's.
    pub hosts: Vec<String>,
    /// How long signing in, and later each fetch, may take.
    pub limit: Duration,
}

/// Asks for values.
#[derive(Serialize, Deserialize)]
pub struct Fetch {
    pub references: Vec<Reference>,
    pub names: Names,
}

/// The answer. A message with the value follows for each result that is not an error, in their order.
#[derive(Serialize, Deserialize)]
pub struct Fetched {
    pub results: Vec<Result<(), FetchError>>,
    pub names: Names,
}

/// What `opnix fetch` does: serves one parent over its standard input until that closes.
pub fn run() -> io::Result<()> {
    close_inherited()?;
    let mut parent = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // The service goes away: so do we, whatever the core is doing.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    nix::sys::prctl::set_no_new_privs()?;
    // What could not be had was said by the service already: it is the same for both.
    let _ = secret::protect_process();

    let Hello { library, hosts, limit } = receive(&mut parent)?;
    let token = read(&mut parent)?;
    let core = match Core::load(&library) {
        Ok(core) => core,
        Err(error) => return send(&mut parent, &refusal(FetchError::Core { why: error.to_string() })),
    };
    let mut client = match sign_in(&core, token, &hosts, limit) {
        Ok(client) => client,
        Err(error) => return send(&mut parent, &refusal(error)),
    };
    send(&mut parent, &Ok::<(), FetchError>(()))?;
    loop {
        let Fetch { references, names } = match receive(&mut parent) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            request => request?,
        };
        let mut resolver = Resolver::new(client, names, Instant::now() + limit);
        let results = resolver.resolve(&references);
        let errors =
            results.iter().map(|result| result.as_ref().map(drop).map_err(FetchError::clone)).collect();
        let Resolver { names, client: same, .. } = resolver;
        client = same;
        send(&mut parent, &Fetched { results: errors, names })?;
        for value in results.iter().flatten() {
            write(&mut parent, value.expose())?;
        }
    }
}

/// Closes what the service may itself have inherited from a caller who did not mark it. Nothing of ours is open yet.
fn close_inherited() -> io::Result<()> {
    let open = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    for fd in open.filter(|fd| *fd > 2).collect::<Vec<_>>() {
        // The one that the list itself was read through is closed already.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}

fn refusal(error: FetchError) -> Result<(), FetchError> {
    Err(error)
}

fn sign_in<'c>(
    core: &'c Core,
    token: Zeroizing<Vec<u8>>,
    hosts: &[String],
    limit: Duration,
) -> Result<Client<'c>, FetchError> {
    let malformed = |why: String| FetchError::TokenMalformed { why };
    let token = Secret::take(token).map_err(|error| malformed(error.to_string()))?;
    let token = Token::check(token, hosts).map_err(|error| malformed(error.to_string()))?;
    Client::sign_in(core, &token, Instant::now() + limit).map_err(|failure| failure.explain(&Asked::Account))
}

fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    write(to, &serde_json::to_vec(message)?)
}

fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    Ok(serde_json::from_slice(&read(from)?)?)
}

fn write(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(bytes)
}

fn read(from: &mut impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut bytes = Zeroizing::new(vec![0; checked(length)?]);
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The length of a message, before anything is allocated for it.
pub fn checked(length: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(length) as usize;
    if length <= MESSAGE_MAX { Ok(length) } else { Err(io::ErrorKind::InvalidData.into()) }
}
