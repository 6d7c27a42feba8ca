//! A provider at the other end of a network: 1Password itself, or a Connect server.
//!
//! The service knows the token and remembers names; everything else happens in a child process (`process.rs`), which is
//! kept for a few idle seconds, so that a boot storm signs in once, and killed when it takes too long.

pub mod process;
pub mod token;

use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use zeroize::Zeroizing;

use self::process::{Ask, Fetched, Hello, Service, checked};

use self::token::TokenSource;
use super::FetchError;
use super::ask::resolve::{Baseline, Listed, Names};
use super::ask::service_account::token::Token;
use super::budget::Meter;

use crate::reference::Reference;
use crate::secret::Secret;

/// How long a child is kept that has nothing to do.
const IDLE: Duration = Duration::from_secs(10);
/// What the child may know of our environment: where certificates are, and the way out.
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
    hello: Hello,
    token: TokenSource,
    meter: Meter,
    line: Arc<Mutex<Line>>,
}

/// The one conversation with 1Password.
#[derive(Default)]
struct Line {
    connection: Option<Connection>,
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

/// What a child answers.
enum Answer {
    Fetched(Vec<Result<Secret, FetchError>>, Names),
    Vaults(Result<Vec<Listed>, FetchError>),
}

impl Remote {
    /// `limit` is how long signing in, and then each fetch, may take. `meter` counts the requests.
    pub fn new(service: Service, token: TokenSource, limit: Duration, meter: Meter) -> Self {
        Self { hello: Hello { service, limit }, token, meter, line: Arc::default() }
    }

    /// Whose secrets it gives, if that can be said without asking it.
    pub fn account(&self) -> Option<String> {
        match &self.hello.service {
            Service::Account { hosts, .. } => {
                Some(Token::check(self.token.read().ok()?, hosts).ok()?.account().to_owned())
            }
            Service::Connect(server) => Some(format!("Connect server {}", server.url)),
        }
    }

    /// Signs in, if that was not done already, so that a fetch can begin at once.
    pub async fn prepare(&self) -> Result<(), FetchError> {
        let mut line = self.line.lock().await;
        let (connection, _) = self.connection(&mut line).await?;
        self.keep(&mut line, connection);
        Ok(())
    }

    pub async fn fetch(&self, references: Vec<Reference>) -> Vec<Result<Secret, FetchError>> {
        let count = references.len();
        let all = |error: FetchError| (0..count).map(|_| Err(error.clone())).collect();
        let mut line = self.line.lock().await;
        let ask = Ask::Fetch { references, names: line.names.clone() };
        match self.talk(&mut line, &ask).await {
            Ok(Answer::Fetched(results, names)) if results.len() == count => {
                line.names = names;
                let Line { names, baseline, .. } = &mut *line;
                baseline.note(names);
                results
            }
            Ok(_) => all(FetchError::Broken { why: "an answer to another question".into() }),
            Err(error) => all(error),
        }
    }

    /// Of which references the values cannot have changed since they were fetched. Costs one request.
    pub async fn unchanged(&self, references: &[Reference]) -> Result<Vec<bool>, FetchError> {
        let mut line = self.line.lock().await;
        match self.talk(&mut line, &Ask::Vaults).await? {
            Answer::Vaults(vaults) => {
                let Line { names, baseline, .. } = &mut *line;
                Ok(baseline.renew(vaults?, names, references))
            }
            Answer::Fetched(..) => Err(FetchError::Broken { why: "an answer to another question".into() }),
        }
    }

    /// One question and its answer.
    async fn talk(&self, line: &mut Line, ask: &Ask) -> Result<Answer, FetchError> {
        loop {
            // Whatever ends this before its end, a cancelled fetch too, ends the child with it: it is in nobody's hands.
            let (mut connection, reused) = self.connection(line).await?;
            match connection.ask(ask).await {
                Ok(answer) => {
                    self.keep(line, connection);
                    return Ok(answer);
                }
                // It may have died since it was used last: that is no fault of this question.
                Err(_) if reused => continue,
                Err(error) => return Err(connection.autopsy(&error).await),
            }
        }
    }

    /// A child that is signed in with the token of the moment, and whether it is one from before.
    async fn connection(&self, line: &mut Line) -> Result<(Connection, bool), FetchError> {
        if let Some(end) = line.end.take() {
            end.abort();
        }
        let kept = line.connection.take();
        let token = self.token.read()?;
        if let Some(mut kept) = kept.filter(|kept| kept.token.expose() == token.expose())
            && kept.process.try_wait().is_ok_and(|status| status.is_none())
        {
            return Ok((kept, true));
        }
        let mut new = Connection::start(token, self.meter.clone())
            .map_err(|error| FetchError::Process { why: error.to_string() })?;
        match new.sign_in(&self.hello).await {
            Ok(signed_in) => signed_in.map(|()| (new, false)),
            Err(error) => Err(new.autopsy(&error).await),
        }
    }

    fn keep(&self, line: &mut Line, connection: Connection) {
        line.connection = Some(connection);
        let shared = self.line.clone();
        let end = tokio::spawn(async move {
            tokio::time::sleep(IDLE).await;
            let mut line = shared.lock().await;
            line.connection = None;
        });
        line.end = Some(end.abort_handle());
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
            // All other descriptors close by themselves. What the core prints is nobody's business: it could be anything.
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { stream: UnixStream::from_std(ours)?, process, token, meter })
    }

    async fn sign_in(&mut self, hello: &Hello) -> io::Result<Result<(), FetchError>> {
        self.send(hello).await?;
        let token = self.token.expose();
        self.stream.write_all(&(token.len() as u32).to_be_bytes()).await?;
        self.stream.write_all(token).await?;
        self.receive().await
    }

    async fn ask(&mut self, ask: &Ask) -> io::Result<Answer> {
        self.send(ask).await?;
        if let Ask::Vaults = ask {
            return Ok(Answer::Vaults(self.receive().await?));
        }
        let Fetched { results, names } = self.receive().await?;
        let mut values = Vec::with_capacity(results.len());
        for result in results {
            values.push(match result {
                Ok(()) => Ok(Secret::take(self.read().await?).map_err(io::Error::other)?),
                Err(error) => Err(error),
            });
        }
        Ok(Answer::Fetched(values, names))
    }

    async fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let message = serde_json::to_vec(message)?;
        self.stream.write_all(&(message.len() as u32).to_be_bytes()).await?;
        self.stream.write_all(&message).await
    }

    async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        Ok(serde_json::from_slice(&self.read().await?)?)
    }

    async fn read(&mut self) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut length = [0; 4];
        while length == [0; 4] {
            self.stream.read_exact(&mut length).await?;
            if length == [0; 4] {
                self.meter.tick();
            }
        }
        let mut bytes = Zeroizing::new(vec![0; checked(length)?]);
        self.stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    /// What a conversation died of.
    async fn autopsy(mut self, error: &io::Error) -> FetchError {
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
