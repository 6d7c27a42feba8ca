//! The process that asks 1Password.
//!
//! The core of 1Password's SDK is twenty megabytes of foreign code that wipes nothing, and an HTTP client does not wipe its
//! buffers either. So both run in a process of their own: it gets the token and the references over a socket pair, answers
//! with values, and when it ends, what they left in memory is gone.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::fd::AsFd;

use nix::sys::signal::{SigSet, Signal};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::wire::{self, Call, Endpoint, Fetched, SignIn};
use crate::providers::ask::Account;
use crate::providers::ask::connect::Connect;
use crate::providers::ask::resolve::Resolver;
use crate::providers::ask::service_account::Client;
use crate::providers::ask::service_account::core::Core;
use crate::providers::ask::service_account::token::{Token, TokenError};
use crate::providers::error::FetchError;
use crate::remedy::Remedy;
use crate::secret::Secret;

/// The service, at the other end of our standard input. Not asynchronous, because 1Password's core is not.
struct Parent {
    runtime: Runtime,
    stream: RefCell<UnixStream>,
}

impl Parent {
    fn find() -> io::Result<Self> {
        let stream = std::os::unix::net::UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        stream.set_nonblocking(true)?;
        let runtime = crate::process::runtime()?;
        let stream = {
            let _inside = runtime.enter();
            UnixStream::from_std(stream)?
        };
        Ok(Self { runtime, stream: stream.into() })
    }

    fn receive<T: DeserializeOwned>(&self) -> io::Result<T> {
        self.runtime.block_on(wire::receive(&mut self.stream.borrow_mut(), || ()))
    }

    fn read(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        self.runtime.block_on(wire::read(&mut self.stream.borrow_mut(), || ()))
    }

    fn send(&self, message: &impl Serialize) -> io::Result<()> {
        self.runtime.block_on(wire::send(&mut self.stream.borrow_mut(), message))
    }

    fn write(&self, content: &[u8]) -> io::Result<()> {
        self.runtime.block_on(wire::write(&mut self.stream.borrow_mut(), content))
    }

    /// So many requests are about to go out.
    fn count(&self, requests: usize) {
        // If the service is gone, this process is about to be killed.
        let _ = self.runtime.block_on(wire::count(&mut self.stream.borrow_mut(), requests));
    }
}

/// What `opnix fetch` does: serves one parent over its standard input until that closes.
pub fn run() -> io::Result<()> {
    // systemd sends these to all processes of the service. Only the service is to act on them: it may still need an answer
    // from here. The threads of the core inherit this.
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect::<SigSet>().thread_block()?;
    close_inherited()?;
    // When the service ends, this process ends too, whatever the core is doing.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    nix::sys::prctl::set_no_new_privs()?;
    // The service has already logged what is not possible: it is the same for both.
    let _ = crate::process::protect();

    let parent = Parent::find()?;
    let counter = |requests| parent.count(requests);
    let SignIn { endpoint, limit } = parent.receive()?;
    let token = parent.read()?;
    let token = Secret::take(token)
        .map_err(|error| FetchError::TokenMalformed { what: error.to_string(), remedy: None });
    match endpoint {
        Endpoint::OnePassword { library, hosts } => {
            let core = Core::load(&library)
                .map_err(|error| FetchError::Core { what: error.to_string(), remedy: error.remedy() });
            let malformed = |error: TokenError| FetchError::TokenMalformed {
                what: error.to_string(),
                remedy: error.remedy(),
            };
            let token = token.and_then(|token| Token::check(token, &hosts).map_err(malformed));
            // If both are faulty, the error is about the token.
            let both = token.and_then(|token| Ok((token, core?)));
            let client = both.as_ref().map_err(FetchError::clone);
            let client = client.and_then(|(token, core)| Client::sign_in(core, token, limit, &counter));
            serve(&parent, client)
        }
        Endpoint::Connect(server) => {
            let connect = |token| Connect::new(&server, &token, limit, &counter, &parent.runtime);
            serve(&parent, token.and_then(connect))
        }
    }
}

/// Says whether signing in worked, then answers calls.
fn serve<A: Account>(parent: &Parent, account: Result<A, FetchError>) -> io::Result<()> {
    parent.send(&account.as_ref().map(drop).map_err(FetchError::clone))?;
    let Ok(account) = account else { return Ok(()) };
    loop {
        let (references, names) = match parent.receive() {
            Ok(Call::Fetch { references, names }) => (references, names),
            Ok(Call::Vaults) => {
                parent.send(&account.vaults())?;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut resolver = Resolver::new(&account, names);
        let values = resolver.resolve(&references);
        let results =
            values.iter().map(|value| value.as_ref().map(drop).map_err(FetchError::clone)).collect();
        parent.send(&Fetched { results, names: resolver.names })?;
        for value in values.iter().flatten() {
            parent.write(value.expose())?;
        }
    }
}

/// Closes descriptors that the service inherited itself, without the close-on-exec flag. Runs before this process opens any.
fn close_inherited() -> io::Result<()> {
    let open = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    for fd in open.filter(|fd| *fd > 2).collect::<Vec<_>>() {
        // The one that the list was read through is closed already.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}
