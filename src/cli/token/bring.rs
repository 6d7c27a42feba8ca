//! Brings the token to the running service, which may not read its file, and has its credentials from systemd only once.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::unistd::pipe2;
use tokio::time::timeout;
use tracing::{error, info, warn};
use zlink::tokio::unix::Connection;

use crate::cli::control::{ControlArguments, Unanswered};
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
/// How often systemd is asked which file it is.
const WHICH: Duration = Duration::from_secs(60);
/// How long the service has to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why the token in the file is not in force.
enum Trouble {
    /// The file cannot be read, or what is in it is no token.
    Token(String),
    Service(Exit, String),
}

pub fn take(named: Option<PathBuf>, control: &ControlArguments) -> Exit {
    see_what_systemd_sees();
    let Some(loaded) = named.map(Loaded::Plain).or_else(token::loaded) else {
        // Where no token comes from a file, none can be a new one.
        return Exit::Ok;
    };
    match bring(&loaded, control) {
        Ok(taken) => {
            println!(
                "{}",
                if taken.changed { "took the new token" } else { "the token is in force already" }
            );
            Exit::Ok
        }
        Err(Trouble::Token(why)) => fail(Exit::Unavailable, why),
        Err(Trouble::Service(exit, why)) => fail(exit, why),
    }
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
    let which = || named.clone().map(Loaded::Plain).or_else(token::loaded);
    let (mut loaded, mut asked) = (which(), Instant::now());
    let (mut settled, mut done) = (None, None);
    let mut told = String::new();
    loop {
        if asked.elapsed() >= WHICH {
            let now = which();
            if now != loaded {
                (loaded, settled, done) = (now, None, None);
            }
            asked = Instant::now();
        }
        let found = loaded.as_ref().and_then(|loaded| Some((loaded, Identity::of(loaded.path())?)));
        if let Some((loaded, now)) = found
            // It may still be written.
            && settled.replace(now.clone()).as_ref() == Some(&now)
            && done.as_ref() != Some(&now)
        {
            let trouble = match bring(loaded, control) {
                Ok(taken) => {
                    done = Some(now);
                    if taken.changed {
                        info!("the service took the token that is in {}", loaded.path().display());
                    }
                    String::new()
                }
                Err(Trouble::Token(why)) => {
                    done = Some(now);
                    why
                }
                Err(Trouble::Service(_, why)) => why,
            };
            notifier.status(trouble.lines().next().unwrap_or_default());
            if trouble != told && !trouble.is_empty() {
                error!("{}", trouble.replace('\n', "; "));
            }
            told = trouble;
        }
        sleep(LOOK);
    }
}

/// The service's own view of the file system, in which `ExecReload=` runs, lacks users' directories.
fn see_what_systemd_sees() {
    if let Ok(theirs) = File::open("/proc/1/ns/mnt") {
        // Not allowed to others than root, and nothing is lost by that.
        let _ = setns(theirs, CloneFlags::CLONE_NEWNS);
    }
}

/// Has the service take what is in the file.
fn bring(loaded: &Loaded, control: &ControlArguments) -> Result<TokenTaken, Trouble> {
    let path = loaded.path().display();
    let named = |why: String| Trouble::Token(format!("{path}: {why}"));
    let token = match read(loaded) {
        Ok(token) => Some(token),
        // The service says whether it can do without.
        Err(FetchError::TokenMissing { .. }) => None,
        Err(error) => return Err(named(error.lines())),
    };
    let pipe = token.map(|token| in_a_pipe(&token)).transpose().map_err(|error| named(error.to_string()))?;
    let ask = async |mut service: Connection| {
        let pipe = pipe.into_iter().collect();
        match timeout(PATIENCE, service.take_token(pipe)).await {
            Ok(taken) => taken,
            Err(_) => Err(zlink::Error::Io(io::ErrorKind::TimedOut.into())),
        }
    };
    control.ask(ask).map_err(|why| match why {
        Unanswered::Refused(error) => named(error.lines()),
        why => {
            let (exit, message) = control.describe(why);
            Trouble::Service(exit, message)
        }
    })
}

fn read(loaded: &Loaded) -> Result<Secret, FetchError> {
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
            let text = child.stdout.take().map(|stdout| files::read_from(stdout, 0, token::SIZE_MAX));
            let opened = child.wait().is_ok_and(|status| status.success());
            match text {
                Some(Ok(text)) if opened => {
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
