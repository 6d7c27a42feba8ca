//! Brings the token to the running service, which may not read its file, and has its credentials from systemd only once.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::unistd::pipe2;
use tracing::{error, info, warn};
use zlink::tokio::unix::Connection;

use super::input::is_readable;
use crate::cli::control::{ControlArguments, Unanswered};
use crate::cli::output::say;
use crate::cli::{Exit, fail};
use crate::control::interface::{Control, TokenTaken};
use crate::files::{self, Identity};
use crate::process;
use crate::providers::FetchError;
use crate::providers::child::token::{self, Loaded};
use crate::records;
use crate::remedy::Remedy;
use crate::secret::Secret;
use crate::systemd::notify::Notifier;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// When a token is brought again that was not taken: what was in its way may be over.
const AGAIN: Duration = Duration::from_secs(30);
/// How often systemd is asked which file it is.
const WHICH: Duration = Duration::from_secs(60);
/// How long a TPM has to open a sealed one, in milliseconds.
const UNSEALING: u16 = 20_000;
/// How long the service has to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why the token in the file is not in force.
enum Trouble {
    /// The file cannot be read, or what is in it is no token.
    Token(String),
    Service(Exit, String),
}

pub fn take(named: Option<PathBuf>, control: &ControlArguments) -> Exit {
    // Here, because there the working directory is another one.
    let named = named.and_then(|path| std::path::absolute(path).ok());
    let control = &ControlArguments {
        control: std::path::absolute(&control.control).unwrap_or_else(|_| control.control.clone()),
    };
    see_what_systemd_sees();
    let loaded = match which(named.as_deref()) {
        Ok(Some(loaded)) => loaded,
        // Where no token comes from a file, none in a file is a new one.
        Ok(None) => return Exit::Ok,
        Err(error) => {
            return fail(
                Exit::System,
                format_args!("the service manager does not say where the token is: {error}"),
            );
        }
    };
    match bring(&loaded, control, false) {
        Ok(taken) => {
            say!("{}", if taken.changed { "took the new token" } else { "there is no new token" });
            Exit::Ok
        }
        Err(Trouble::Token(why)) => fail(Exit::Unavailable, why),
        Err(Trouble::Service(exit, why)) => fail(exit, why),
    }
}

/// The file of the token. What is no file, such as a socket, gives it to systemd alone.
fn which(named: Option<&Path>) -> io::Result<Option<Loaded>> {
    let loaded = match named {
        Some(path) => Some(Loaded::Plain(path.to_owned())),
        None => token::loaded_for_sure()?,
    };
    let is_other = |loaded: &Loaded| fs::metadata(loaded.path()).is_ok_and(|metadata| !metadata.is_file());
    Ok(loaded.filter(|loaded| !is_other(loaded)))
}

pub fn watch(named: Option<PathBuf>, control: &ControlArguments) -> Exit {
    if let Err(error) = records::init(None) {
        return fail(Exit::System, format_args!("cannot begin: {error}"));
    }
    for missing in process::protect() {
        warn!("{missing}");
    }
    let notifier = Notifier::direct();
    notifier.ready("");
    let mut watched = Watched::default();
    let mut asked = None::<Instant>;
    let mut told = String::new();
    loop {
        // What has changed may have done so because another file has taken its place.
        if watched.differs() || asked.is_none_or(|asked| asked.elapsed() >= WHICH) {
            // If that is not known for now, it is what it was.
            if let Ok(loaded) = which(named.as_deref()) {
                watched.is_at(loaded);
                asked = Some(Instant::now());
            }
        }
        if let Some(trouble) = watched.look(control) {
            notifier.status(trouble.lines().next().unwrap_or_default());
            if trouble != told && !trouble.is_empty() {
                error!("{}", trouble.replace('\n', "; "));
            }
            told = trouble;
        }
        sleep(LOOK);
    }
}

/// The file of the token, and what was seen of it; `None` is that it is not there.
#[derive(Default)]
struct Watched {
    loaded: Option<Loaded>,
    seen: Option<Option<Identity>>,
    /// What was brought.
    done: Option<Option<Identity>>,
    /// When what is there was not taken.
    refused: Option<(Option<Identity>, Instant)>,
}

impl Watched {
    fn is_at(&mut self, loaded: Option<Loaded>) {
        if loaded != self.loaded {
            *self = Self { loaded, ..Self::default() };
        }
    }

    /// Whether the file is another one than at the last look.
    fn differs(&self) -> bool {
        let now = |loaded: &Loaded| Identity::of(loaded.path());
        self.loaded.as_ref().is_some_and(|loaded| self.seen.as_ref().is_some_and(|seen| *seen != now(loaded)))
    }

    /// Brings a new token. Returns what is wrong, if anything, once there was something to do.
    fn look(&mut self, control: &ControlArguments) -> Option<String> {
        let loaded = self.loaded.as_ref()?;
        let now = Identity::of(loaded.path());
        // What has changed since the last look may still be written.
        let is_settled = self.seen.replace(now.clone()).as_ref() == Some(&now);
        let waits = |(refused, at): &(Option<Identity>, Instant)| *refused == now && at.elapsed() < AGAIN;
        if !is_settled || self.done.as_ref() == Some(&now) || self.refused.as_ref().is_some_and(waits) {
            return None;
        }
        Some(match bring(loaded, control, false) {
            Ok(taken) => {
                if taken.changed {
                    info!("the service took the token that is in {}", loaded.path().display());
                }
                self.done = Some(now);
                String::new()
            }
            Err(Trouble::Token(why)) => {
                self.refused = Some((now, Instant::now()));
                why
            }
            // It is tried again.
            Err(Trouble::Service(_, why)) => why,
        })
    }
}

/// The service's own view of the file system, in which `ExecReload=` runs, lacks users' directories.
fn see_what_systemd_sees() {
    if let Ok(theirs) = File::open("/proc/1/ns/mnt") {
        // Not allowed to others than root, and nothing is lost by that.
        let _ = setns(theirs, CloneFlags::CLONE_NEWNS);
    }
}

/// Whether the service would take what is in the file, and has another one in force; or why not. `None`: it cannot be asked.
pub fn try_out(loaded: &Loaded, control: &ControlArguments) -> Option<Result<TokenTaken, String>> {
    match bring(loaded, control, true) {
        Ok(taken) => Some(Ok(taken)),
        Err(Trouble::Token(why)) => Some(Err(why)),
        Err(Trouble::Service(..)) => None,
    }
}

/// Has the running service take what is in the file, which it loads; or why it does not. `None`: it cannot be asked.
pub fn hand_over(loaded: &Loaded) -> Option<Result<TokenTaken, String>> {
    let control = ControlArguments { control: crate::control::SOCKET.into() };
    match bring(loaded, &control, false) {
        Ok(taken) => Some(Ok(taken)),
        Err(Trouble::Token(why)) => Some(Err(why)),
        Err(Trouble::Service(..)) => None,
    }
}

/// Has the service take what is in the file.
fn bring(loaded: &Loaded, control: &ControlArguments, dry_run: bool) -> Result<TokenTaken, Trouble> {
    let path = loaded.path().display();
    let named = |why: String| Trouble::Token(format!("{path}: {why}"));
    // Of what is not there, or empty, the service says whether it can do without.
    let is_there = fs::metadata(loaded.path()).map(|metadata| metadata.len() > 0);
    let token = match is_there {
        Ok(false) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(true) | Err(_) => read(loaded).map_err(|error| error.lines()).map(Some),
    };
    let pipe = token.and_then(|token| {
        token.map(|token| in_a_pipe(&token)).transpose().map_err(|error| error.to_string())
    });
    // Of what cannot be read it learns as well.
    let (pipe, trouble) = match pipe {
        Ok(pipe) => (pipe, None),
        Err(why) => (None, Some(why)),
    };
    let pipe: Vec<_> = pipe.into_iter().collect();
    let ask =
        async |mut service: Connection| service.take_token(trouble.as_deref(), Some(dry_run), pipe).await;
    control.ask_within(PATIENCE, ask).map_err(|why| match why {
        Unanswered::Refused(error) => named(error.lines()),
        why => {
            let (exit, message) = control.describe(&why);
            Trouble::Service(exit, message)
        }
    })
}

pub fn read(loaded: &Loaded) -> Result<Secret, FetchError> {
    match loaded {
        Loaded::Plain(path) => token::read_file(path),
        Loaded::Sealed(path) => {
            let malformed = |what: String| FetchError::TokenMalformed { what, remedy: None };
            let mut child = Command::new("systemd-creds")
                .args(["decrypt", "--name=token"])
                .args([path.as_os_str(), "-".as_ref()])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .map_err(|error| malformed(format!("systemd-creds cannot be run: {error}")))?;
            // It says all at once, unless the TPM does not answer.
            let answers = |stdout: &ChildStdout| is_readable(stdout.as_fd(), UNSEALING).unwrap_or(false);
            let Some(stdout) = child.stdout.take().filter(answers) else {
                // Not waited for: it may hang in a driver.
                let _ = child.kill().and_then(|()| child.try_wait());
                return Err(malformed(format!("systemd-creds gave no answer within {} s", UNSEALING / 1000)));
            };
            let text = files::read_from(stdout, 0, token::SIZE_MAX);
            let opened = child.wait().is_ok_and(|status| status.success());
            match text {
                Ok(text) if opened => {
                    Secret::copy_from(text.trim_ascii()).map_err(|error| malformed(error.to_string()))
                }
                _ => Err(malformed("systemd-creds cannot open it".to_owned())),
            }
        }
    }
}

/// The end to read from, of a pipe that holds the token: what is in a pipe is never swapped.
fn in_a_pipe(token: &Secret) -> io::Result<OwnedFd> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let written = File::from(theirs).write(token.expose())?;
    if written == token.len() { Ok(ours) } else { Err(Errno::EFBIG.into()) }
}
