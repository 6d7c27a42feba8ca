//! A provider at the other end of a network: 1Password itself, or a Connect server.
//!
//! The service knows the token and remembers names. All else happens in a child process (`process.rs`): it is kept until it
//! was idle for some seconds, so that many units that start together need one sign-in, and killed when it makes no progress.

mod connection;
pub mod process;
pub mod token;
mod wire;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use self::connection::{Answer, Connection, Tell};
use self::token::TokenSource;
pub use self::wire::Endpoint;
use self::wire::{Call, SignIn};
use super::FetchError;
use super::ask::known::{Baseline, Names};
use super::ask::resolve::{Fetched, Told};
use super::ask::service_account::token::Token;
use super::ask::{List, connect};
use super::ledger::Meter;
use crate::counters::{self, Asked};
use crate::reference::{Kind, Reference};
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

/// How many children there may be: while one is busy with what takes long, the other is for everything else.
const CHILDREN: usize = 2;

pub struct Remote {
    sign_in: SignIn,
    token: TokenSource,
    meter: Meter,
    children: Semaphore,
    /// One child at most fetches files, which take long.
    files: Semaphore,
    session: Arc<Mutex<Session>>,
}

/// What is kept between fetches.
#[derive(Default)]
struct Session {
    idle: Vec<Connection>,
    /// Whose names these are.
    account: Option<String>,
    names: Names,
    baseline: Baseline,
    /// The number of the baseline: see [`Comparable`].
    generation: u64,
    /// Ends the connections when they were idle for too long.
    end: Option<AbortHandle>,
    /// A digest of the token that was last used.
    token: Option<[u8; 32]>,
}

/// Which baseline a value can be compared with: it was read after the vaults of this one were listed. `None`: with none. No two
/// baselines have the same number.
pub type Comparable = Option<u64>;

/// The number of the next baseline.
static NEXT_GENERATION: AtomicU64 = AtomicU64::new(1);

/// Which values the provider confirms.
pub struct Confirmed {
    /// A value that is not comparable with this baseline is not confirmed.
    pub before: Comparable,
    /// One that is confirmed is comparable with this one.
    pub now: Comparable,
    /// For each reference: nothing in its vault has changed since that baseline.
    pub unchanged: Vec<bool>,
}

fn another_question() -> FetchError {
    FetchError::Broken { why: "an answer to another question".into() }
}

/// Is told the results for the references of these numbers, as soon as they are there: those that were read together, together.
pub type Give<'g> = &'g mut (dyn FnMut(Vec<(usize, Fetched)>, Comparable) + Send);

impl Remote {
    /// `meter` counts the requests.
    pub fn new(endpoint: Endpoint, token: TokenSource, meter: Meter) -> Self {
        let children = Semaphore::new(CHILDREN);
        let files = Semaphore::new(1);
        Self { sign_in: SignIn { endpoint }, token, meter, children, files, session: Arc::default() }
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

    /// What is wrong with the token that it would be asked with now.
    pub fn token_error(&self) -> Option<FetchError> {
        self.token.read().and_then(|token| self.check_token(token)).err()
    }

    /// The token, unless something is wrong with it that shows without a request.
    pub fn check_token(&self, token: Secret) -> Result<Secret, FetchError> {
        match &self.sign_in.endpoint {
            Endpoint::OnePassword { hosts, .. } => Ok(Token::check(token, hosts)?.into_secret()),
            Endpoint::Connect(_) => connect::bearer(&token).map(|_| token),
        }
    }

    /// Whether the token is another one than was last used.
    pub fn has_new_token(&self) -> bool {
        let now = self.token.read().ok().map(|token| digest(&token));
        now != self.session().token
    }

    /// Signs in, if no child is signed in already, so that a fetch can begin at once.
    pub async fn prepare(&self) -> Result<(), FetchError> {
        let _child = self.children.acquire().await;
        self.session().names.outdate_vaults();
        let (connection, _) = self.connection().await?;
        self.keep(connection);
        Ok(())
    }

    /// `give` is told each result as soon as it is there. When all is over without an error, it was told all of them. Files are
    /// fetched by themselves, so that one child is always free for what is quick.
    pub async fn fetch(&self, references: Vec<Reference>, give: Give<'_>) -> Result<(), FetchError> {
        let (files, others): (Vec<_>, Vec<_>) =
            references.into_iter().enumerate().partition(|(_, reference)| reference.kind == Kind::File);
        let mut over = None;
        let mut noted = |results: Vec<(usize, Fetched)>, comparable| {
            let ends =
                |error: &&FetchError| error.consequences().provider_is_down && !error.is_about_the_answer();
            let mut errors = results.iter().filter_map(|(_, result)| result.as_ref().err());
            over = over.take().or_else(|| errors.find(ends).cloned());
            give(results, comparable);
        };
        self.fetch_of(others, &mut noted).await?;
        if let Some(error) = over {
            // It would be asked in vain, and perhaps over its limit.
            give(files.into_iter().map(|(number, _)| (number, Err(error.clone()))).collect(), None);
            return Ok(());
        }
        if files.is_empty() {
            return Ok(());
        }
        let _file = self.files.acquire().await;
        self.fetch_of(files, give).await
    }

    /// The references have the numbers that `give` is told.
    async fn fetch_of(&self, of: Vec<(usize, Reference)>, give: Give<'_>) -> Result<(), FetchError> {
        if of.is_empty() {
            return Ok(());
        }
        let (numbers, references): (Vec<usize>, Vec<Reference>) = of.into_iter().unzip();
        let _child = self.children.acquire().await;
        let (names, account, mut comparable) = {
            let mut session = self.session();
            let names = session.names.clone();
            // The list of vaults is for this call, whatever comes of it.
            session.names.outdate_vaults();
            let comparable = names.vaults_are_current().then_some(session.generation);
            (names, session.account.clone(), comparable)
        };
        let mut tell = |told| match told {
            Told::Vaults(vaults) => {
                let mut session = self.session();
                if session.account == account {
                    session.baseline.note(&vaults);
                    comparable = Some(session.generation);
                }
            }
            Told::Results(results) => {
                give(
                    results.into_iter().map(|(index, result)| (numbers[index], result)).collect(),
                    comparable,
                );
            }
        };
        let call = Call::Fetch { references, names };
        let Answer::Fetched(names) = self.call(&call, &mut tell).await? else {
            return Err(another_question());
        };
        let mut session = self.session();
        if session.account == account {
            session.names = names;
            session.names.outdate_vaults();
        }
        Ok(())
    }

    /// The vaults that the token may read. Costs one request.
    pub async fn vaults(&self) -> Result<List, FetchError> {
        let _child = self.children.acquire().await;
        self.list_vaults().await
    }

    async fn list_vaults(&self) -> Result<List, FetchError> {
        match self.call(&Call::Vaults, &mut |_| {}).await? {
            Answer::Vaults(vaults) => vaults,
            Answer::Fetched(_) => Err(another_question()),
        }
    }

    /// Says for each reference whether its value cannot have changed since it was fetched. Costs one request.
    pub async fn unchanged(&self, references: &[Reference]) -> Result<Confirmed, FetchError> {
        let _child = self.children.acquire().await;
        let vaults = self.list_vaults().await?;
        let mut session = self.session();
        let before = Some(session.generation);
        session.generation = NEXT_GENERATION.fetch_add(1, Ordering::Relaxed);
        let now = Some(session.generation);
        let Session { names, baseline, .. } = &mut *session;
        Ok(Confirmed { before, now, unchanged: baseline.renew(vaults, names, references) })
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call(&self, call: &Call, tell: Tell<'_>) -> Result<Answer, FetchError> {
        loop {
            // The connection is out of the session until the answer is complete: if this future is dropped before, as when a
            // fetch is cancelled, the child is killed.
            let (mut connection, reused) = self.connection().await?;
            let answered = connection.call(call, tell).await;
            match answered {
                Ok(answer) => {
                    self.keep(connection);
                    return Ok(answer);
                }
                // It may have died since it was last used: try a new one.
                Err(_) if reused && !connection.heard => continue,
                Err(error) => return Err(connection.failure(&error).await),
            }
        }
    }

    /// A child that is signed in with the current token, and whether it was used before.
    async fn connection(&self) -> Result<(Connection, bool), FetchError> {
        let token = self.token.read();
        let account = self.account();
        {
            let mut session = self.session();
            session.token = token.as_ref().ok().map(digest);
            let token = token.as_ref().map_err(FetchError::clone)?;
            session.idle.retain_mut(|kept| kept.token.expose() == token.expose() && kept.process.is_alive());
            if let Some(mut kept) = session.idle.pop() {
                kept.heard = false;
                return Ok((kept, true));
            }
            if session.account != account {
                let token = session.token;
                let generation = NEXT_GENERATION.fetch_add(1, Ordering::Relaxed);
                *session = Session { account, token, generation, ..Session::default() };
            }
        }
        let mut new = Connection::start(token?, self.meter.clone())
            .map_err(|error| FetchError::Process { why: error.to_string() })?;
        let signed_in = match new.sign_in(&self.sign_in).await {
            Ok(signed_in) => signed_in.map(|()| (new, false)),
            Err(error) => Err(new.failure(&error).await),
        };
        counters::called(Asked::SignIn, signed_in.as_ref());
        signed_in
    }

    fn keep(&self, connection: Connection) {
        let shared = self.session.clone();
        let end = tokio::spawn(async move {
            tokio::time::sleep(IDLE).await;
            let idle = std::mem::take(&mut shared.lock().unwrap_or_else(PoisonError::into_inner).idle);
            drop(idle);
        });
        let mut session = self.session();
        session.idle.push(connection);
        if let Some(before) = session.end.replace(end.abort_handle()) {
            before.abort();
        }
    }
}

fn digest(token: &Secret) -> [u8; 32] {
    Sha256::digest(token.expose()).into()
}

impl Drop for Remote {
    fn drop(&mut self) {
        let mut session = self.session();
        session.idle.clear();
        if let Some(end) = session.end.take() {
            end.abort();
        }
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}
