//! `opnix mirror`: files in `/run/secrets`, and units that pick up a changed secret.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};
use zlink::tokio::unix::connect;

use super::{ConfigArguments, Exit, fail, faulty};
use crate::config::MIRROR_ROOT;
use crate::control::interface::{Changes, Control};
use crate::files::StateDirectory;
use crate::mirror::{Memory, Mirror, Round, mount, units};
use crate::records;
use crate::systemd::notify::Notifier;

/// What changes together within this is taken together: a pair of keys is to be one restart.
const DEBOUNCE: Duration = Duration::from_secs(2);
/// Without the control socket nobody tells us of changes.
const UNTOLD: Duration = Duration::from_secs(60);

/// Write the files of the configuration, keep them current, and act on units whose secret changed: what
/// opnix-mirror.service runs
///
/// READY when every required file is in place. Otherwise it fails with a list of what is missing, after it has written the others.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The socket of the service
    #[arg(long, value_name = "PATH", default_value = super::SOCKET)]
    socket: PathBuf,
    /// The control socket of the service, which tells of changes
    #[arg(long, value_name = "PATH", default_value = crate::control::SOCKET)]
    control: PathBuf,
    /// Mount /run/secrets and do nothing else; takes the right to mount
    #[arg(long)]
    prepare: bool,
}

pub fn run(arguments: Arguments) -> Exit {
    if let Err(error) = records::init(None) {
        return fail(Exit::System, format_args!("cannot begin: {error}"));
    }
    if arguments.prepare {
        return match mount::prepare(Path::new(MIRROR_ROOT)) {
            Ok(()) => Exit::Ok,
            Err(error) => fail(Exit::System, format_args!("cannot mount {MIRROR_ROOT}: {error}")),
        };
    }
    for missing in crate::secret::protect_process() {
        warn!("{missing}");
    }
    let memory = Memory(StateDirectory::of_runtime());
    let mut mirror = match Mirror::new(arguments.config.config, arguments.socket, memory) {
        Ok(mirror) => mirror,
        Err(error) => return fail(Exit::System, format_args!("cannot begin: {error}")),
    };
    let first = match mirror.round() {
        Ok(round) => round,
        Err(faults) => return faulty(&faults),
    };
    told(&first);
    units::act(&first.plan.units);
    if !first.missing.is_empty() {
        for (path, why) in &first.missing {
            error!("{} is missing: {why}", path.display());
        }
        return fail(Exit::Unavailable, format_args!("{} required files are missing", first.missing.len()));
    }
    Notifier::direct().ready("All files are in place.");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let watched = runtime.and_then(|runtime| runtime.block_on(watch(mirror, arguments.control)));
    match watched {
        Ok(()) => Exit::Ok,
        Err(error) => fail(Exit::System, error),
    }
}

/// Looks again whenever the service says that something changed, and at SIGHUP.
async fn watch(mut mirror: Mirror, control: PathBuf) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut seen = None;
    loop {
        select! {
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => {}
            () = changed(&control, &mut seen) => {}
        }
        mirror = spawn_blocking(move || {
            match mirror.round() {
                Ok(round) => {
                    told(&round);
                    for (path, why) in &round.missing {
                        warn!("{} stays as it was: {why}", path.display());
                    }
                    units::act(&round.plan.units);
                }
                Err(faults) => error!("the files stay as they are: the configuration is faulty: {faults}"),
            }
            mirror
        })
        .await?;
    }
}

fn told(round: &Round) {
    let written = round.plan.write.len();
    if written > 0 {
        info!("wrote {written} files");
    }
}

/// Returns when something changed since `seen`: the service says so, or it went away and may have changed meanwhile.
async fn changed(control: &Path, seen: &mut Option<u64>) {
    let Ok(mut service) = connect(control).await else { return sleep(UNTOLD).await };
    let Ok(changes) = service.watch().await else { return sleep(UNTOLD).await };
    let mut changes = pin!(changes);
    loop {
        let Some(Ok(Ok(Changes { count }))) = changes.next().await else {
            // It will be back in a moment.
            return sleep(DEBOUNCE).await;
        };
        if seen.replace(count) != Some(count) {
            break;
        }
    }
    while let Ok(Some(Ok(Ok(Changes { count })))) = timeout(DEBOUNCE, changes.next()).await {
        *seen = Some(count);
    }
}
