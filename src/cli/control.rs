//! What the commands that ask the running service have in common.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use zlink::tokio::unix::{Connection, connect};

use super::{Exit, fail};
use crate::config;
use crate::control::interface::Error;
use crate::process;
use crate::remedy::Remedy;
use crate::scope;
use crate::systemd::{self, manager::Manager};

/// How long the service has for an answer that it need not ask anybody for.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the service has to come up, if it is about to.
const COMING_UP: Duration = Duration::from_millis(1500);
/// How often to look.
const LOOK: Duration = Duration::from_millis(100);

/// The service's unit.
pub const SERVICE: &str = "opnix.service";

#[derive(Debug, Clone, clap::Args)]
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
    /// It was stopped: a connection would start it.
    Stopped,
    /// It cannot start, and this is how it ends: a connection would wait for it without end.
    DoesNotStart(String),
    /// Somebody listens, and says nothing within this time; `None`: there is not even room to ask.
    Late(Option<Duration>),
    Broken(String),
    Refused(Error),
}

/// Whether there is a socket at this path, and one that listens: systemd's, unless somebody replaced it.
pub fn is_heard_at(path: &str) -> bool {
    let is_socket = fs::symlink_metadata(path).map_or_else(
        |error| error.kind() != io::ErrorKind::NotFound,
        |metadata| metadata.file_type().is_socket(),
    );
    is_socket && fs::read_to_string("/proc/net/unix").map_or(true, |table| listeners(&table, path) == 1)
}

/// How many sockets listen at this path, by the kernel's table: `… flags type state inode path`.
fn listeners(table: &str, path: &str) -> usize {
    const LISTENS: u32 = 0x1_0000;
    let is_one = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let flags = fields.get(3).and_then(|flags| u32::from_str_radix(flags, 16).ok());
        fields.get(7) == Some(&path) && flags.is_some_and(|flags| flags & LISTENS != 0)
    };
    table.lines().filter(is_one).count()
}

impl ControlArguments {
    /// Asks the service one thing.
    pub fn ask<T, F>(&self, call: impl FnOnce(Connection) -> F) -> Result<T, Unanswered>
    where
        F: Future<Output = zlink::Result<Result<T, Error>>>,
    {
        // What was never started is not started by a look.
        match self.obstacle(false) {
            Some(obstacle) => Err(obstacle),
            None => self.ask_within(PATIENCE, call),
        }
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
        if let Some(obstacle) = self.obstacle(true) {
            return Err(obstacle);
        }
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

    /// Whether it is the one of the service of the system, or with `--user` of the user.
    pub fn is_default(&self) -> bool {
        self.control == scope::control()
    }

    /// Whether it is the one that opnix.service listens on.
    pub fn is_systems(&self) -> bool {
        self.control == Path::new(crate::control::SOCKET)
    }

    /// Whether it can be asked without starting it.
    pub fn is_up(&self) -> bool {
        self.obstacle(false).is_none()
    }

    /// Why the service is better not asked. systemd takes connections in its place: to ask would start one that was stopped, and wait
    /// for one that cannot start. `may_start`: one that nobody stopped, because it was never started.
    fn obstacle(&self, may_start: bool) -> Option<Unanswered> {
        let may_ask = scope::is_user() || scope::has_systems_manager();
        let mut manager = (may_ask && self.is_default()).then(Manager::connect)?.ok()?;
        let end = Instant::now() + COMING_UP;
        let mut failed = None;
        loop {
            let unit = manager.unit(SERVICE).ok()?;
            match unit.state() {
                "active" | "reloading" | "refreshing" => return None,
                "failed" => return Some(Unanswered::DoesNotStart(unit.end())),
                // Nobody stopped it: it starts when it is asked for the first time.
                "inactive" if may_start && unit.started_at() == 0 => return None,
                // In a restart it is inactive for a moment.
                "inactive" if !unit.has_job() => return Some(Unanswered::Stopped),
                _ if unit.waits_for_restart() => failed = Some(unit.end()),
                _ => {}
            }
            if Instant::now() >= end {
                return failed.map(Unanswered::DoesNotStart);
            }
            sleep(LOOK);
        }
    }

    /// Why no unit finds the service where it asks, if that is so and can be seen from here.
    pub fn unheard(&self) -> Option<String> {
        let mut manager = self.manager().filter(|_| self.is_default())?;
        let socket = manager.unit("opnix.socket").ok()?;
        if socket.state() != "active" {
            return Some(format!(
                "opnix.socket does not listen ({}): no unit is given anything",
                socket.state()
            ));
        }
        let path = scope::socket().display().to_string();
        (!is_heard_at(&path)).then(|| {
            format!("{path}, where units ask, is gone or somebody else's: `opnix doctor` says what to do")
        })
    }

    /// The service manager that starts the units of this service: the system's, or that of the user whose service it is.
    pub fn manager(&self) -> Option<Manager> {
        (scope::has_systems_manager() || !self.is_systems()).then(Manager::connect)?.ok()
    }

    /// systemd does not start a socket whose service runs already.
    fn how_to_listen(&self) -> &'static str {
        if !self.is_default() {
            return "start the service that is to listen there";
        }
        let mut manager = self.manager();
        let service = manager.as_mut().and_then(|manager| manager.unit(SERVICE).ok());
        match service.is_some_and(|service| service.main_pid() != 0) {
            true => "systemctl restart opnix.service",
            false => "systemctl start opnix-control.socket",
        }
    }

    pub fn fail(&self, why: Unanswered) -> Exit {
        let (exit, message) = self.describe(&why);
        fail(exit, message)
    }

    /// Why there is no answer, and what to do.
    pub fn describe(&self, why: &Unanswered) -> (Exit, String) {
        let (exit, what) = self.describe_alone(why);
        // It would do nothing if it did run.
        let is_of_no_use = self.is_default()
            && matches!(why, Unanswered::NoService(_) | Unanswered::Stopped)
            && exit != Exit::Denied
            && config::is_nothing_written();
        if !is_of_no_use {
            return (exit, what);
        }
        let file = scope::configuration_file();
        (exit, format!("{what}\n{}: {}\n{}", file.display(), config::NOTHING, config::how_to_begin()))
    }

    /// The same, without what else would keep it from its work.
    pub fn describe_alone(&self, why: &Unanswered) -> (Exit, String) {
        let path = self.control.display();
        if self.is_systems() && !matches!(why, Unanswered::Refused(_)) && systemd::is_purged() {
            return (Exit::Unavailable, format!("{}\n{}", systemd::PURGED_SAYS, systemd::UNPURGE));
        }
        match why {
            Unanswered::NoService(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                (Exit::Denied, format!("{path} is for administrators: run this as root"))
            }
            Unanswered::NoService(error) => (
                Exit::Unavailable,
                format!("the service does not listen on {path}: {error}\n{}", self.how_to_listen()),
            ),
            Unanswered::Stopped => {
                (Exit::Unavailable, format!("{SERVICE} does not run\nsystemctl start {SERVICE}"))
            }
            Unanswered::DoesNotStart(end) => (
                Exit::Unavailable,
                format!(
                    "{SERVICE} does not start ({end}), and what asks it waits\nsystemctl status {SERVICE}; journalctl -u {SERVICE}"
                ),
            ),
            Unanswered::Late(after) => {
                let within = match after {
                    None => "too many others wait for it".to_owned(),
                    Some(after) => format!("nothing came within {}", humantime::format_duration(*after)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_tells_who_listens() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0: 00000002 00000000 00010000 0001 01 41 /run/opnix/creds.sock\n\
            0: 00000003 00000000 00000000 0001 03 42 /run/opnix/creds.sock\n\
            0: 00000002 00000000 00010000 0001 01 43 /run/opnix/creds.sock2\n\
            0: 00000002 00000000 00010000 0001 01 44\n";
        assert_eq!(listeners(table, "/run/opnix/creds.sock"), 1);
        assert_eq!(listeners(table, "/run/other"), 0);
    }
}
