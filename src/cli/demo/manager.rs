//! Who starts the units of the demo: a real service manager, or a client that behaves like one.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::systemd::asker;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    System,
    User,
    /// No manager is at hand: the demo's own client connects as systemd would.
    Client,
}

/// How a start ended.
#[derive(PartialEq, Eq)]
pub enum Outcome {
    /// With this credential.
    Started(Vec<u8>),
    Refused,
}

/// The exit code of `systemd-run --wait` for a unit that did not get its credentials.
const EXIT_CREDENTIALS: i32 = 243;

impl Manager {
    pub fn at_hand() -> Self {
        let answers = |arguments: &[&str]| {
            let state = Command::new("systemctl")
                .args(arguments)
                .arg("is-system-running")
                .stderr(Stdio::null())
                .output();
            state.is_ok_and(|state| {
                ["running", "degraded", "starting"].contains(&String::from_utf8_lossy(&state.stdout).trim())
            })
        };
        // A user's manager can be there without the message bus that systemd-run reaches it by.
        let runs = || {
            let run = Command::new("systemd-run")
                .args(["--user", "--quiet", "--wait", "true"])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .status();
            run.is_ok_and(|status| status.success())
        };
        if nix::unistd::geteuid().is_root() && answers(&["--system"]) {
            Self::System
        } else if answers(&["--user"]) && runs() {
            Self::User
        } else {
            Self::Client
        }
    }

    /// Starts a unit that loads the credential, and says what it found.
    pub fn start(self, socket: &Path, unit: &str, credential: &str) -> io::Result<Outcome> {
        let manager = match self {
            Self::System => "--system",
            Self::User => "--user",
            Self::Client => {
                let answer = asker::ask(socket, unit, credential)?;
                return Ok(answer.map_or(Outcome::Refused, Outcome::Started));
            }
        };
        let output = Command::new("systemd-run")
            .args([manager, "--quiet", "--wait", "--pipe", "--collect", "--service-type=exec"])
            .arg(format!("--unit={unit}"))
            .arg(format!("--property=LoadCredential={credential}:{}", socket.display()))
            .args(["sh", "-c", &format!("cat \"$CREDENTIALS_DIRECTORY/{credential}\"")])
            .stdin(Stdio::null())
            .output()?;
        match output.status.code() {
            Some(0) => Ok(Outcome::Started(output.stdout)),
            _ if refused(&output) => Ok(Outcome::Refused),
            _ => Err(io::Error::other(format!(
                "systemd-run: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ))),
        }
    }
}

fn refused(output: &std::process::Output) -> bool {
    // A unit of Type=exec fails before it counts as started, and systemd-run says so in words only.
    let words = String::from_utf8_lossy(&output.stderr);
    output.status.code() == Some(EXIT_CREDENTIALS) || words.contains("failed")
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "real units of the system's service manager (systemd-run)",
            Self::User => "real units of your own service manager (systemd-run --user)",
            Self::Client => {
                "a client that connects exactly as systemd does, as no service manager is at hand here"
            }
        })
    }
}
