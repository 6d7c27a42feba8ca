//! `opnix doctor`: what on this machine keeps units from their secrets, now or after the next boot.

mod cache;
mod configuration;
mod files;
pub mod finding;
mod machine;
mod network;
mod own_units;
mod provider;
mod report;
mod selinux;
mod sockets;
pub mod token;
mod units;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::unistd::Uid;
use serde::Serialize;

use self::finding::{Finding, Kind, Level};
use super::control::{ControlArguments, Unanswered};
use super::output::{complain, say};
use super::progress::Progress;
use super::{ConfigArguments, Exit, fail};
use crate::config::{self, Config, Faults};
use crate::control::interface::{Status, whole_status};
use crate::counted::counted;
use crate::scope;
use crate::systemd::{self, manager::Manager};

/// How long each step has, unless it asks 1Password.
const STEP: Duration = Duration::from_secs(30);
/// How long 1Password has to give everything.
const ASKING: Duration = Duration::from_secs(120);

/// Look for what keeps units from their secrets, now or after the next boot; to be run as root
///
/// Goes from systemd and the configuration over sockets, files, token, network and 1Password to the units, and says of each
/// finding what it is, where, why it matters and what to do. The running service is asked to try all secrets out, which
/// costs requests of its budget: how many is said before. Nothing is changed.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The token's file; by default the one that opnix.service loads
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Ask neither 1Password nor the network
    #[arg(long)]
    offline: bool,
    /// As JSON: every finding with a name for programs
    #[arg(long)]
    json: bool,
    /// Write a report that can be sent to who helps: versions, findings, states, and the shape of the configuration, with all names
    /// replaced, and no value and no token. To opnix-report.txt, or another file that is not there yet; read it before you send it
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = report::FILE)]
    report: Option<PathBuf>,
    #[command(flatten)]
    control: ControlArguments,
}

impl Arguments {
    /// As for a look that costs no request.
    pub(super) fn offline(config: ConfigArguments, control: ControlArguments) -> Self {
        Self { config, token_file: None, offline: true, json: false, report: None, control }
    }
}

/// What the steps look at.
struct Case {
    arguments: Arguments,
    config: Result<Config, Faults>,
    /// What the running service says.
    status: Result<Status, Unanswered>,
}

impl Case {
    fn manager(&self) -> Option<Manager> {
        self.arguments.control.manager()
    }

    /// What the service says, if it does.
    fn status(&self) -> Option<&Status> {
        self.status.as_ref().ok()
    }

    /// The service of the system is looked at as a whole: its units, sockets and files, and by root.
    fn is_of_the_system(&self) -> bool {
        self.arguments.control.is_systems() && Uid::effective().is_root()
    }

    /// So is that of a user, by that user with `--user`.
    fn is_of_the_user(&self) -> bool {
        scope::is_user() && self.arguments.control.is_default()
    }

    fn is_seen_whole(&self) -> bool {
        self.is_of_the_system() || self.is_of_the_user()
    }

    /// Of another service it is not known where its configuration is.
    fn is_of_another_configuration(&self) -> bool {
        self.arguments.config.config == scope::configuration() && !self.arguments.control.is_default()
    }

    fn config(&self) -> Option<&Config> {
        self.config.as_ref().ok().filter(|_| !self.is_of_another_configuration())
    }
}

type Look = fn(&Case) -> Vec<Finding>;

/// In the order in which one thing rests on the other.
const STEPS: [(&str, Look, Duration); 11] = [
    ("the machine", machine::look, STEP),
    ("the units of opnix", own_units::look, STEP),
    ("the configuration", configuration::look, STEP),
    ("the sockets", sockets::look, STEP),
    ("the files", files::look, STEP),
    ("the token", token::look, STEP),
    ("the way to 1Password", network::look, ASKING),
    ("1Password", provider::look, ASKING),
    ("the cache", cache::look, STEP),
    ("the unit files", units::files, STEP),
    ("the units", units::states, STEP),
];

/// Those that do not rest on a service that may run.
const UNTIL_CONFIGURATION: usize = 3;

#[derive(Serialize)]
struct Report<'f> {
    findings: &'f [Finding],
    faults: usize,
    warnings: usize,
    unseen: usize,
}

pub fn run(arguments: Arguments) -> Exit {
    let json = arguments.json;
    if let Some(path) = arguments.report.as_ref().filter(|path| path.symlink_metadata().is_ok()) {
        return fail(
            Exit::Usage,
            format_args!("{} is there already\nname another file, or remove it", path.display()),
        );
    }
    let progress = Progress::begin("looking at the service");
    let config = config::load(&arguments.config.config);
    let status = arguments.control.ask(async |mut service| whole_status(&mut service).await);
    drop(progress);
    let case = Arc::new(Case { arguments, config, status });
    let mut findings = Vec::new();
    for step in steps(&case) {
        let progress = Progress::begin(format!("looking at {}", step.0));
        let found = take(step, &case);
        drop(progress);
        if !json {
            found.iter().for_each(|finding| say!("{}", finding.text()));
        }
        findings.extend(found);
    }
    let count = |level| findings.iter().filter(|finding: &&Finding| finding.level == level).count();
    let (faults, warnings, unseen) = (count(Level::Fault), count(Level::Warning), count(Level::Unseen));
    if json {
        match serde_json::to_string_pretty(&Report { findings: &findings, faults, warnings, unseen }) {
            Ok(text) => say!("{text}"),
            Err(error) => return fail(Exit::Software, error),
        }
    } else {
        let unseen = match unseen {
            0 => String::new(),
            1 => "; 1 thing could not be looked at".to_owned(),
            many => format!("; {many} things could not be looked at"),
        };
        say!("\n{}, {}{unseen}", counted(faults, "fault"), counted(warnings, "warning"));
    }
    if let Some(path) = &case.arguments.report {
        if let Err(error) = report::write(path, &case, &findings) {
            return fail(Exit::System, format_args!("no report was written: {}: {error}", path.display()));
        }
        complain!("opnix: wrote {}, with all names replaced: read it before you send it", path.display());
    }
    if faults == 0 { Exit::Ok } else { Exit::Unavailable }
}

/// All findings, of a service that said this of itself.
pub fn findings(arguments: Arguments, status: Result<Status, Unanswered>) -> Vec<Finding> {
    let config = config::load(&arguments.config.config);
    let case = Arc::new(Case { arguments, config, status });
    steps(&case).into_iter().flat_map(|step| take(step, &case)).collect()
}

/// Where opnix is closed on purpose, what rests on it is missing, and none of it is to be mended.
fn steps(case: &Case) -> Vec<(&'static str, Look, Duration)> {
    let is_closed = case.arguments.control.is_systems() && systemd::is_purged();
    STEPS.into_iter().take(if is_closed { UNTIL_CONFIGURATION } else { STEPS.len() }).collect()
}

fn take((what, look, limit): (&str, Look, Duration), case: &Arc<Case>) -> Vec<Finding> {
    within(limit, case, look).unwrap_or_else(|error| {
        let took = humantime::format_duration(limit);
        let (what, mend) = match error {
            RecvTimeoutError::Timeout => (
                format!("looking at {what} did not end within {took}"),
                "look for a disk, mount or service that does not answer",
            ),
            RecvTimeoutError::Disconnected => (
                format!("looking at {what} failed"),
                "please report this to the makers of opnix, with what stands above it",
            ),
        };
        vec![Finding::fault(Kind::StepHangs, "doctor", what).mend(mend)]
    })
}

/// One that hangs is left behind: the process ends without it.
fn within(limit: Duration, case: &Arc<Case>, look: Look) -> Result<Vec<Finding>, RecvTimeoutError> {
    let (say, hear) = channel();
    let case = case.clone();
    thread::spawn(move || {
        let _ = say.send(look(&case));
    });
    hear.recv_timeout(limit)
}
