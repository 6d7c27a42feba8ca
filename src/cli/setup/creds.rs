//! systemd-creds, which opens and seals keys: run with a limit, because a TPM may not answer.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::words::{complaint, judge};
use crate::store::disk::KEY_CREDENTIAL;

/// In bytes. A sealed key has a few hundred, and with `debug` systemd says some thousand.
const OUTPUT_MAX: usize = 64 << 10;
/// How long a process that was killed may take to end. One that waits for a driver does not end before that answers.
const DEATH: Duration = Duration::from_secs(1);

pub struct Creds {
    pub program: PathBuf,
    /// Nothing goes on after that.
    pub until: Instant,
}

/// What came of opening a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    Yes,
    /// It will never open.
    Never(String),
    /// It may open yet.
    NotNow(String),
}

struct Run {
    status: ExitStatus,
    output: Vec<u8>,
    said: String,
}

enum Failure {
    /// It cannot be run.
    Start(io::Error),
    /// It was killed after this time, or there is none left.
    Late(Duration),
    Io(io::Error),
}

impl Creds {
    /// Whether the sealed key opens. The key itself is none of our business here.
    pub fn open(&self, path: &Path, limit: Duration) -> Opened {
        let name = format!("--name={KEY_CREDENTIAL}");
        let mut command = self.command(&["decrypt", &name]);
        command.arg(path).arg("-").stdout(Stdio::null());
        match self.run(command, &[], limit) {
            Ok(run) if run.status.success() => Opened::Yes,
            // What it had said before it was killed need not be all.
            Ok(run) => match judge(&run.said).filter(|_| run.status.code().is_some()) {
                Some((meaning, line)) => Opened::Never(format!("{meaning} (systemd-creds: {line})")),
                None => Opened::NotNow(run.complaint()),
            },
            Err(failure) => Opened::NotNow(failure.describe()),
        }
    }

    /// `content`, sealed as the credential of this name. It goes through a pipe, and nowhere else.
    pub fn seal(
        &self,
        name: &str,
        content: &[u8],
        with_key: &str,
        limit: Duration,
    ) -> Result<Vec<u8>, String> {
        let name = format!("--name={name}");
        let mut command = self.command(&["encrypt", &name, &format!("--with-key={with_key}"), "-", "-"]);
        command.stdout(Stdio::piped());
        let run = self.run(command, content, limit).map_err(Failure::describe)?;
        match run.status.success() {
            true if run.output.is_empty() => Err("systemd-creds gave nothing".to_owned()),
            true => Ok(run.output),
            false => Err(run.complaint()),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // In words that are the same everywhere, all of them, and each line with its level.
        command
            .args(arguments)
            .envs([
                ("LC_ALL", "C.UTF-8"),
                ("SYSTEMD_LOG_LEVEL", "debug"),
                ("SYSTEMD_LOG_TARGET", "console-prefixed"),
            ])
            .envs(["COLOR", "LOCATION", "TIME", "TID"].map(|what| (format!("SYSTEMD_LOG_{what}"), "0")))
            // The TPM's libraries have a say of their own.
            .env("TSS2_LOG", "all+none");
        command
    }

    fn run(&self, mut command: Command, input: &[u8], limit: Duration) -> Result<Run, Failure> {
        let limit = limit.min(self.until.saturating_duration_since(Instant::now()));
        if limit.is_zero() {
            return Err(Failure::Late(limit));
        }
        let end = Instant::now() + limit;
        // A group of its own: what it starts is killed with it.
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(Failure::Start)?;
        if let Some(mut stdin) = child.stdin.take() {
            // Less than a pipe holds. If it ends before it has read everything, its own message counts.
            let _ = stdin.write_all(input);
        }
        let pipes = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
        let ended = read(pipes, end).and_then(|read| Ok((read, wait(&mut child, end)?)));
        match ended {
            Ok(([output, said], Some(status))) => {
                Ok(Run { status, output, said: String::from_utf8_lossy(&said).into_owned() })
            }
            Ok((_, None)) => {
                kill(&mut child);
                Err(Failure::Late(limit))
            }
            Err(error) => {
                kill(&mut child);
                Err(Failure::Io(error))
            }
        }
    }
}

impl Run {
    fn complaint(&self) -> String {
        let told = complaint(&self.said).unwrap_or_else(|| "it says nothing".to_owned());
        match self.status.signal() {
            Some(signal) => format!("systemd-creds: ended by signal {signal}: {told}"),
            None => format!("systemd-creds: {told}"),
        }
    }
}

impl Failure {
    fn describe(self) -> String {
        match self {
            Self::Start(error) => format!("systemd-creds cannot be run (it comes with systemd 250): {error}"),
            Self::Late(limit) => {
                format!(
                    "systemd-creds gave no answer within {:.0} s, and was stopped",
                    limit.as_secs_f32().ceil()
                )
            }
            Self::Io(error) => format!("systemd-creds cannot be talked to: {error}"),
        }
    }
}

/// What comes out of pipes until their ends, or until it is late.
fn read(pipes: [Option<OwnedFd>; 2], end: Instant) -> io::Result<[Vec<u8>; 2]> {
    let mut pipes = pipes.map(|pipe| pipe.map(File::from));
    let mut read = [Vec::new(), Vec::new()];
    while pipes.iter().any(Option::is_some) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        // A millisecond more, because it counts whole ones.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut fds: Vec<_> =
            pipes.iter().flatten().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<_> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let open = pipes.iter_mut().zip(&mut read).filter(|(pipe, _)| pipe.is_some());
        for ((pipe, read), _) in open.zip(ready).filter(|(_, ready)| *ready) {
            read_some(pipe, read)?;
        }
    }
    Ok(read)
}

/// What is there, up to a limit; at the end, the pipe is dropped.
fn read_some(pipe: &mut Option<File>, into: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let Some(open) = pipe else { return Ok(()) };
    match open.read(&mut buffer) {
        Ok(0) => *pipe = None,
        // The rest is read as well, or it would wait for a reader.
        Ok(read) => into.extend_from_slice(&buffer[..read.min(OUTPUT_MAX - into.len())]),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// `None` if it is late.
fn wait(child: &mut Child, end: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn kill(child: &mut Child) {
    // It leads a group of its own, and was not reaped: the number is still its.
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    // Reaped, unless a driver holds it: then by systemd, when opnix has ended.
    let _ = wait(child, Instant::now() + DEATH);
}
