//! What the commands that ask the running service have in common.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Uid;
use tokio::time::timeout;
use zlink::tokio::unix::{Connection, connect};

use super::{Exit, fail};
use crate::control::interface::Error;
use crate::process;
use crate::remedy::Remedy;
use crate::systemd::manager::Manager;

/// How long the service has for an answer that it need not ask anybody for.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub struct ControlArguments {
    /// The control socket of the service
    #[arg(long, value_name = "PATH", default_value = crate::control::SOCKET)]
    pub control: PathBuf,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// Nobody listens.
    NoService(io::Error),
    /// Somebody listens, and says nothing within this time; `None`: there is not even room to ask.
    Late(Option<Duration>),
    Broken(String),
    Refused(Error),
}

impl ControlArguments {
    /// Asks the service one thing.
    pub fn ask<T, F>(&self, call: impl FnOnce(Connection) -> F) -> Result<T, Unanswered>
    where
        F: Future<Output = zlink::Result<Result<T, Error>>>,
    {
        self.ask_within(PATIENCE, call)
    }

    /// Asks the service one thing that may take so long.
    pub fn ask_within<T, F>(
        &self,
        limit: Duration,
        call: impl FnOnce(Connection) -> F,
    ) -> Result<T, Unanswered>
    where
        F: Future<Output = zlink::Result<Result<T, Error>>>,
    {
        let broken = |error: &dyn std::fmt::Display| Unanswered::Broken(error.to_string());
        let asked = async {
            let connection = connect(&self.control).await.map_err(|error| match error {
                // Those that it has not accepted yet are as many as can be.
                zlink::Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    Unanswered::Late(None)
                }
                zlink::Error::Io(error) => Unanswered::NoService(error),
                error => broken(&error),
            })?;
            call(connection).await.map_err(|error| broken(&error))?.map_err(Unanswered::Refused)
        };
        let runtime = process::runtime().map_err(|error| broken(&error))?;
        runtime.block_on(async { timeout(limit, asked).await.unwrap_or(Err(Unanswered::Late(Some(limit)))) })
    }

    /// The service manager that starts the units of this service: the system's, or that of the user whose service it is.
    pub fn manager(&self) -> Option<Manager> {
        let is_systems = self.control == Path::new(crate::control::SOCKET);
        (Uid::effective().is_root() || !is_systems).then(Manager::connect)?.ok()
    }

    pub fn fail(&self, why: Unanswered) -> Exit {
        let (exit, message) = self.describe(why);
        fail(exit, message)
    }

    /// Why there is no answer, and what to do.
    pub fn describe(&self, why: Unanswered) -> (Exit, String) {
        let path = self.control.display();
        match why {
            Unanswered::NoService(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                (Exit::Denied, format!("{path} is for administrators: run this as root"))
            }
            Unanswered::NoService(error) => (
                Exit::Unavailable,
                format!(
                    "the service does not listen on {path}: {error}\nsystemctl start opnix-control.socket"
                ),
            ),
            Unanswered::Late(after) => {
                let within = match after {
                    None => "too many others wait for it".to_owned(),
                    Some(after) => format!("nothing came within {}", humantime::format_duration(after)),
                };
                let what = "the service does not answer on";
                let remedy = "it hangs, or has more to do than it can: systemctl status opnix.service";
                (Exit::Unavailable, format!("{what} {path}: {within}\n{remedy}"))
            }
            Unanswered::Broken(why) => (Exit::Software, format!("the service answered wrongly: {why}")),
            Unanswered::Refused(error @ Error::Unconfigured { .. }) => (Exit::Config, error.lines()),
            Unanswered::Refused(error) => (Exit::Usage, error.lines()),
        }
    }
}
