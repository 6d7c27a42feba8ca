//! The process that asks 1Password, and what is said between it and the service.
//!
//! The core of 1Password's SDK is twenty megabytes of other people's code and wipes nothing that it keeps, nor does an HTTP
//! client: they live apart, get the token and the references through a socket pair, answer with values, and take what
//! they leave in memory with them when they end.
//!
//! A message is its length (four bytes, big-endian) and its content: JSON, but for the token and the values. An empty one
//! says that a request goes out to 1Password, so that it counts even if nobody lives to see its answer.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::providers::ask::connect::{self, Connect};
use crate::providers::ask::resolve::{Account, Names, Resolver};
use crate::providers::ask::service_account::Client;
use crate::providers::ask::service_account::core::Core;
use crate::providers::ask::service_account::token::{Token, TokenError};
use crate::providers::error::FetchError;
use crate::reference::Reference;
use crate::remedy::Remedy;
use crate::secret::{self, Secret};

/// The longest message, in bytes: more than the largest file that 1Password keeps.
pub const MESSAGE_MAX: usize = 64 << 20;

/// The first message; the second is the token, the answer to both a `Result<(), FetchError>`.
#[derive(Serialize, Deserialize)]
pub struct Hello {
    pub service: Service,
    /// How long signing in, and later each request, may take.
    pub limit: Duration,
}

/// Who is asked.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Service {
    Account {
        /// Where the core is.
        library: PathBuf,
        /// The hosts that the token may name besides 1Password's.
        hosts: Vec<String>,
    },
    Connect(connect::Server),
}

/// What the service asks for.
#[derive(Serialize, Deserialize)]
pub enum Ask {
    /// Values. The answer is [`Fetched`].
    Fetch { references: Vec<Reference>, names: Names },
    /// The vaults with their versions. The answer is a `Result<Vec<Listed>, FetchError>`.
    Vaults,
}

/// The answer to [`Ask::Fetch`]. A message with the value follows for each result that is not an error, in their order.
#[derive(Serialize, Deserialize)]
pub struct Fetched {
    pub results: Vec<Result<(), FetchError>>,
    pub names: Names,
}

/// Where the service learns of each request before it goes out.
pub struct Counter(UnixStream);

impl Counter {
    /// So many requests follow.
    pub fn count(&self, requests: usize) {
        // A service that is gone kills us in a moment.
        let _ = (&self.0).write_all(&[0; 4].repeat(requests));
    }
}

/// What `opnix fetch` does: serves one parent over its standard input until that closes.
pub fn run() -> io::Result<()> {
    // systemd's signals to the service's processes are the service's business: it may need our answer to end well. The
    // threads of the core inherit this.
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect::<SigSet>().thread_block()?;
    close_inherited()?;
    let mut parent = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // The service goes away: so do we, whatever the core is doing.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    nix::sys::prctl::set_no_new_privs()?;
    // What could not be had was said by the service already: it is the same for both.
    let _ = secret::protect_process();

    let counter = Counter(parent.try_clone()?);
    let Hello { service, limit } = receive(&mut parent)?;
    let token = read(&mut parent)?;
    let token = Secret::take(token)
        .map_err(|error| FetchError::TokenMalformed { what: error.to_string(), remedy: None });
    match service {
        Service::Account { library, hosts } => {
            let core = Core::load(&library)
                .map_err(|error| FetchError::Core { what: error.to_string(), remedy: error.remedy() });
            let malformed = |error: TokenError| FetchError::TokenMalformed {
                what: error.to_string(),
                remedy: error.remedy(),
            };
            let token = token.and_then(|token| Token::check(token, &hosts).map_err(malformed));
            // The token first: what is wrong with it is wrong whatever the library.
            let both = token.and_then(|token| Ok((token, core?)));
            let client = both.as_ref().map_err(FetchError::clone);
            let client = client.and_then(|(token, core)| Client::sign_in(core, token, limit, &counter));
            serve(&mut parent, client)
        }
        Service::Connect(server) => {
            serve(&mut parent, token.and_then(|token| Connect::new(&server, &token, limit, &counter)))
        }
    }
}

/// Says whether the account can be asked, then asks it for whatever the service wants.
fn serve<A: Account>(parent: &mut UnixStream, account: Result<A, FetchError>) -> io::Result<()> {
    send(parent, &account.as_ref().map(drop).map_err(FetchError::clone))?;
    let Ok(account) = account else { return Ok(()) };
    loop {
        let (references, names) = match receive(parent) {
            Ok(Ask::Fetch { references, names }) => (references, names),
            Ok(Ask::Vaults) => {
                send(parent, &account.vaults())?;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut resolver = Resolver::new(&account, names);
        let values = resolver.resolve(&references);
        let results =
            values.iter().map(|value| value.as_ref().map(drop).map_err(FetchError::clone)).collect();
        send(parent, &Fetched { results, names: resolver.names })?;
        for value in values.iter().flatten() {
            write(parent, value.expose())?;
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
