//! A provider at the other end of a network: 1Password itself, or a Connect server.
//!
//! The service knows the token and remembers names. All else happens in a child process (`process.rs`): it is kept until it
//! was idle for some seconds, so that many units that start together need one sign-in, and killed when it takes too long.

pub mod process;
pub mod token;
mod wire;

use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

use self::token::TokenSource;
pub use self::wire::Endpoint;
use self::wire::{Call, Fetched, SignIn};
use super::FetchError;
use super::ask::Listed;
use super::ask::known::{Baseline, Names};
use super::ask::service_account::token::Token;
use super::ledger::Meter;

use crate::reference::Reference;
use crate::secret::Secret;

/// How long an idle child is kept.
const IDLE: Duration = Duration::from_secs(10);
/// The environment variables that the child gets: where certificates are, and which proxy to use.
const ENVIRONMENT: [&str; 8] = [
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

pub struct Remote {
    sign_in: SignIn,
    token: TokenSource,
    meter: Meter,
    session: Arc<Mutex<Session>>,
}

/// What is kept between fetches, of which there is one at a time.
#[derive(Default)]
struct Session {
    connection: Option<Connection>,
    /// Whose names these are.
    account: Option<String>,
    names: Names,
    baseline: Baseline,
    /// Ends the connection when it was idle for too long.
    end: Option<AbortHandle>,
}

/// A child that is signed in.
struct Connection {
    stream: UnixStream,
    process: Child,
    /// The token that it is signed in with.
    token: Secret,
    meter: Meter,
}

/// The answer to a [`Call`].
enum Answer {
    Fetched(Vec<Result<Secret, FetchError>>, Names),
    Vaults(Result<Vec<Listed>, FetchError>),
}

impl Remote {
    /// `limit` is how long signing in, and then each fetch, may take. `meter` counts the requests.
    pub fn new(endpoint: Endpoint, token: TokenSource, limit: Duration, meter: Meter) -> Self {
        Self { sign_in: SignIn { endpoint, limit }, token, meter, session: Arc::default() }
    }

    /// Whose secrets they are, if that is known without a request.
    pub fn account(&self) -> Option<String> {
        match &self.sign_in.endpoint {
            Endpoint::OnePassword { hosts, .. } => {
                Some(Token::check(self.token.read().ok()?, hosts).ok()?.account().to_owned())
            }
            Endpoint::Connect(server) => Some(format!("Connect server {}", server.url)),
        }
    }

    /// Signs in, if no child is signed in already, so that a fetch can begin at once.
    pub async fn prepare(&self) -> Result<(), FetchError> {
        let mut session = self.session.lock().await;
        session.names.outdate_vaults();
        let (connection, _) = self.connection(&mut session).await?;
        self.keep(&mut session, connection);
        Ok(())
    }

    pub async fn fetch(&self, references: Vec<Reference>) -> Vec<Result<Secret, FetchError>> {
        let count = references.len();
        let all = |error: FetchError| (0..count).map(|_| Err(error.clone())).collect();
        let mut session = self.session.lock().await;
        let call = Call::Fetch { references, names: session.names.clone() };
        // The list of vaults is for this call, whatever comes of it.
        session.names.outdate_vaults();
        match self.call(&mut session, &call).await {
            Ok(Answer::Fetched(results, names)) if results.len() == count => {
                session.names = names;
                let Session { names, baseline, .. } = &mut *session;
                baseline.note(names);
                names.outdate_vaults();
                results
            }
            Ok(_) => all(FetchError::Broken { why: "an answer to another question".into() }),
            Err(error) => all(error),
        }
    }

    /// Says for each reference whether its value cannot have changed since it was fetched. Costs one request.
    pub async fn unchanged(&self, references: &[Reference]) -> Result<Vec<bool>, FetchError> {
        let mut session = self.session.lock().await;
        match self.call(&mut session, &Call::Vaults).await? {
            Answer::Vaults(vaults) => {
                let Session { names, baseline, .. } = &mut *session;
                Ok(baseline.renew(vaults?, names, references))
            }
            Answer::Fetched(..) => Err(FetchError::Broken { why: "an answer to another question".into() }),
        }
    }

    async fn call(&self, session: &mut Session, call: &Call) -> Result<Answer, FetchError> {
        loop {
            // The connection is out of the session until the answer is complete: if this future is dropped before, as when a
            // fetch is cancelled, the child is killed.
            let (mut connection, reused) = self.connection(session).await?;
            match connection.call(call).await {
                Ok(answer) => {
                    self.keep(session, connection);
                    return Ok(answer);
                }
                // It may have died since it was last used: try a new one.
                Err(_) if reused => continue,
                Err(error) => return Err(connection.failure(&error).await),
            }
        }
    }

    /// A child that is signed in with the current token, and whether it was used before.
    async fn connection(&self, session: &mut Session) -> Result<(Connection, bool), FetchError> {
        if let Some(end) = session.end.take() {
            end.abort();
        }
        let kept = session.connection.take();
        let token = self.token.read()?;
        if let Some(mut kept) = kept.filter(|kept| kept.token.expose() == token.expose())
            && kept.process.try_wait().is_ok_and(|status| status.is_none())
        {
            return Ok((kept, true));
        }
        let account = self.account();
        if session.account != account {
            *session = Session { account, ..Session::default() };
        }
        let mut new = Connection::start(token, self.meter.clone())
            .map_err(|error| FetchError::Process { why: error.to_string() })?;
        match new.sign_in(&self.sign_in).await {
            Ok(signed_in) => signed_in.map(|()| (new, false)),
            Err(error) => Err(new.failure(&error).await),
        }
    }

    fn keep(&self, session: &mut Session, connection: Connection) {
        session.connection = Some(connection);
        let shared = self.session.clone();
        let end = tokio::spawn(async move {
            tokio::time::sleep(IDLE).await;
            let mut session = shared.lock().await;
            session.connection = None;
        });
        session.end = Some(end.abort_handle());
    }
}

impl Connection {
    fn start(token: Secret, meter: Meter) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let kept = ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let process = Command::new("/proc/self/exe")
            .arg("fetch")
            .env_clear()
            .envs(kept)
            .current_dir("/")
            // All other descriptors are closed on exec. The output of the core is discarded: it could contain secrets.
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { stream: UnixStream::from_std(ours)?, process, token, meter })
    }

    async fn sign_in(&mut self, sign_in: &SignIn) -> io::Result<Result<(), FetchError>> {
        wire::send(&mut self.stream, sign_in).await?;
        wire::write(&mut self.stream, self.token.expose()).await?;
        wire::receive(&mut self.stream, || self.meter.count_one()).await
    }

    async fn call(&mut self, call: &Call) -> io::Result<Answer> {
        let Self { stream, meter, .. } = self;
        let counted = || meter.count_one();
        wire::send(stream, call).await?;
        if let Call::Vaults = call {
            return Ok(Answer::Vaults(wire::receive(stream, counted).await?));
        }
        let Fetched { results, names } = wire::receive(stream, counted).await?;
        let mut values = Vec::with_capacity(results.len());
        for result in results {
            values.push(match result {
                Ok(()) => Ok(Secret::take(wire::read(stream, counted).await?).map_err(io::Error::other)?),
                Err(error) => Err(error),
            });
        }
        Ok(Answer::Fetched(values, names))
    }

    /// Ends the child, and says why it could not be talked to.
    async fn failure(mut self, error: &io::Error) -> FetchError {
        let _ = self.process.start_kill();
        let why = match self.process.wait().await {
            Ok(status) if error.kind() == io::ErrorKind::UnexpectedEof => {
                format!("it ended with {status}")
            }
            _ => format!("it answered wrongly: {error}"),
        };
        FetchError::Broken { why: format!("the process that asks 1Password failed: {why}") }
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}
