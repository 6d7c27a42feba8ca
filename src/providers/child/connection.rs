//! A child that is signed in, and what is said to it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::ENVIRONMENT;
use super::wire::{self, Call, Reply, SignIn};
use crate::providers::FetchError;
use crate::providers::ask::known::Names;
use crate::providers::ask::resolve::Told;
use crate::providers::ask::{FILE_MAX, List, REQUEST_MAX};
use crate::providers::error::Step;
use crate::providers::ledger::Meter;
use crate::reference::{Kind, Reference};
use crate::secret::Secret;

/// More requests than signing in takes.
const SIGN_IN: u32 = 5;
/// How long a child may take to end when it has hung up.
const ENDING: Duration = Duration::from_secs(1);

/// A child that is signed in.
pub struct Connection {
    stream: UnixStream,
    pub process: Process,
    /// The token that it is signed in with.
    pub token: Secret,
    meter: Meter,
    /// Whether it said anything since it was last taken into use.
    pub heard: bool,
}

/// A process that ends with this, and is waited for then.
pub struct Process(Option<Child>);

/// The answer to a [`Call`].
pub enum Answer {
    Fetched(Names),
    Vaults(Result<List, FetchError>),
}

pub type Tell<'g> = &'g mut (dyn FnMut(Told) + Send);

impl Connection {
    pub fn start(token: Secret, meter: Meter) -> io::Result<Self> {
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
        let process = Process(Some(process));
        Ok(Self { stream: UnixStream::from_std(ours)?, process, token, meter, heard: false })
    }

    pub async fn sign_in(&mut self, sign_in: &SignIn) -> io::Result<Result<(), FetchError>> {
        wire::within(REQUEST_MAX, wire::send(&mut self.stream, sign_in)).await?;
        wire::within(REQUEST_MAX, wire::write(&mut self.stream, self.token.expose())).await?;
        // Several requests, of which only the first is told before.
        self.receive(REQUEST_MAX * SIGN_IN).await
    }

    /// `limit` is how long each request may take.
    async fn receive<T: DeserializeOwned>(&mut self, limit: Duration) -> io::Result<T> {
        let message = wire::receive(&mut self.stream, &self.meter, Some(limit)).await?;
        self.heard = true;
        Ok(message)
    }

    pub async fn call(&mut self, call: &Call, tell: Tell<'_>) -> io::Result<Answer> {
        wire::within(REQUEST_MAX, wire::send(&mut self.stream, call)).await?;
        Ok(match call {
            Call::Vaults => Answer::Vaults(self.receive(REQUEST_MAX).await?),
            Call::Fetch { references, .. } => Answer::Fetched(self.results(references, tell).await?),
        })
    }

    /// Passes the results on, of which there is one for each reference.
    async fn results(&mut self, references: &[Reference], tell: Tell<'_>) -> io::Result<Names> {
        let mut files = references.iter().filter(|reference| reference.kind == Kind::File).count();
        let mut others = references.len() - files;
        loop {
            // Files come last.
            let limit = if others > 0 { REQUEST_MAX } else { FILE_MAX };
            let told = match self.receive(limit).await? {
                Reply::Done(names) if others + files == 0 => return Ok(names),
                Reply::Done(_) => return Err(io::Error::other("not all results are there")),
                Reply::Vaults(vaults) => {
                    tell(Told::Vaults(vaults));
                    continue;
                }
                Reply::Results(told) => told,
            };
            let mut results = Vec::with_capacity(told.len());
            for (index, result) in told {
                let left = match references.get(index).map(|reference| reference.kind) {
                    Some(Kind::File) => &mut files,
                    Some(Kind::Field) => &mut others,
                    None => return Err(io::Error::other("a result that nobody asked for")),
                };
                *left = left.checked_sub(1).ok_or_else(|| io::Error::other("one result too many"))?;
                let result = match result {
                    Ok(()) => {
                        let value = wire::read(&mut self.stream, &self.meter, Some(REQUEST_MAX)).await?;
                        Ok(Secret::take(value).map_err(io::Error::other)?)
                    }
                    Err(error) => Err(error),
                };
                results.push((index, result));
            }
            tell(Told::Results(results));
        }
    }

    /// Ends the child, and says why it could not be talked to.
    pub async fn failure(mut self, error: &io::Error) -> FetchError {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof};
        if error.kind() == TimedOut {
            return FetchError::Unreachable {
                why: "the process that asks it makes no progress".into(),
                at: Step::Answer,
            };
        }
        let has_hung_up = [BrokenPipe, ConnectionReset, UnexpectedEof].contains(&error.kind());
        let status = if has_hung_up { self.process.end_by_itself().await } else { None };
        match status {
            // A core that crashed would crash again.
            Some(status) if status.signal() == Some(Signal::SIGKILL as i32) => FetchError::Killed,
            Some(status) => broken(&format!("it ended with {status}")),
            None => broken(&format!("it answered wrongly: {error}")),
        }
    }
}

fn broken(why: &str) -> FetchError {
    FetchError::Broken { why: format!("the process that asks 1Password failed: {why}") }
}

impl Process {
    pub fn is_alive(&mut self) -> bool {
        self.0.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_none()))
    }

    /// How it ended, if it does without being killed by us.
    async fn end_by_itself(&mut self) -> Option<ExitStatus> {
        timeout(ENDING, self.0.as_mut()?.wait()).await.ok()?.ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        let _ = child.start_kill();
        // Or it would stay in the list of processes until the next one ends. Outside the runtime this process ends anyway.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { child.wait().await });
        }
    }
}
