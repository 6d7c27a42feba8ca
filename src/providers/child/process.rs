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
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::wire::{self, Call, Endpoint, Reply, SignIn};
use crate::providers::ask::connect::Connect;
use crate::providers::ask::resolve::{Fetched, Resolver, Told};
use crate::providers::ask::service_account::Client;
use crate::providers::ask::service_account::core::Core;
use crate::providers::ask::service_account::token::Token;
use crate::providers::ask::{Account, Count, REQUEST_MAX, reaching};
use crate::providers::error::{FetchError, Step};
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
        self.runtime.block_on(wire::receive(&mut self.stream.borrow_mut(), &(), None))
    }

    fn read(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        self.runtime.block_on(wire::read(&mut self.stream.borrow_mut(), &(), None))
    }

    /// Connects to 1Password, and hangs up: the core counts on being heard, and does not say when it was not. Behind a proxy
    /// the core alone knows the way.
    fn reach(&self, token: &Token) -> Result<(), FetchError> {
        if reaching::proxy().is_some() {
            return Ok(());
        }
        let (host, port) = token.endpoint();
        let connect = async { timeout(REQUEST_MAX, any_of(host, port)).await };
        match self.runtime.block_on(connect) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(reaching::no_connection(host, port, &error)),
            Err(_) => {
                let why = format!("{host}:{port}: it did not answer in time");
                Err(FetchError::Unreachable { why, at: Step::Answer })
            }
        }
    }

    fn send(&self, message: &impl Serialize) -> io::Result<()> {
        self.runtime.block_on(wire::send(&mut self.stream.borrow_mut(), message))
    }

    fn write(&self, content: &[u8]) -> io::Result<()> {
        self.runtime.block_on(wire::write(&mut self.stream.borrow_mut(), content))
    }

    fn give(&self, results: &[(usize, Fetched)]) -> io::Result<()> {
        let told = results.iter().map(|(index, result)| {
            let result = result.as_ref().map(drop).map_err(FetchError::clone);
            (*index, result)
        });
        self.send(&Reply::Results(told.collect()))?;
        results
            .iter()
            .filter_map(|(_, result)| result.as_ref().ok())
            .try_for_each(|value| self.write(value.expose()))
    }
}

/// If the service is gone, this process is about to be killed.
impl Count for Parent {
    fn count(&self, requests: usize) {
        let _ = self.runtime.block_on(wire::count(&mut self.stream.borrow_mut(), requests));
    }

    fn never_sent(&self) {
        let _ = self.runtime.block_on(wire::never_sent(&mut self.stream.borrow_mut()));
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
    let SignIn { endpoint } = parent.receive()?;
    let token = parent.read()?;
    let token = Secret::take(token)
        .map_err(|error| FetchError::TokenMalformed { what: error.to_string(), remedy: None });
    match endpoint {
        Endpoint::OnePassword { library, hosts } => {
            let core = Core::load(&library)
                .map_err(|error| FetchError::Core { what: error.to_string(), remedy: error.remedy() });
            let token = token.and_then(|token| Ok(Token::check(token, &hosts)?));
            // If both are faulty, the error is about the token.
            let both = token.and_then(|token| Ok((token, core?)));
            let client = both.as_ref().map_err(FetchError::clone);
            let client = client.and_then(|(token, core)| {
                parent.reach(token)?;
                Client::sign_in(core, token, &parent)
            });
            serve(&parent, client)
        }
        Endpoint::Connect(server) => {
            let connect = |token| Connect::new(&server, &token, &parent, &parent.runtime);
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
        let mut sent = Ok(());
        let mut tell = |told| {
            if sent.is_ok() {
                sent = match told {
                    Told::Vaults(vaults) => parent.send(&Reply::Vaults(vaults)),
                    Told::Results(results) => parent.give(&results),
                };
            }
        };
        let names = Resolver::new(&account, names, &references, &mut tell).resolve();
        sent?;
        parent.send(&Reply::Done(names))?;
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

/// Connects to whichever address of the host answers first: one family may lead nowhere.
async fn any_of(host: &str, port: u16) -> io::Result<()> {
    let mut tries: JoinSet<io::Result<()>> = lookup_host((host, port))
        .await?
        .map(async |address| TcpStream::connect(address).await.map(drop))
        .collect();
    let mut last = io::Error::other("it has no address");
    while let Some(tried) = tries.join_next().await {
        match tried {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => last = error,
            Err(error) => last = io::Error::other(error),
        }
    }
    Err(last)
}
