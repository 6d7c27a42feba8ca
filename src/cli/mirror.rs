//! `opnix mirror`: files in `/run/secrets`, and units that pick up a changed secret.

use std::path::{Path, PathBuf};

use tracing::{error, warn};

use super::{ConfigArguments, Exit, fail, faulty};
use crate::config::MIRROR_ROOT;
use crate::files::StateDirectory;
use crate::mirror::watch::{told, watch};
use crate::mirror::{Memory, Mirror, mount, units};
use crate::systemd::notify::Notifier;
use crate::{process, records};

/// Write the files of the configuration, keep them current, and act on units whose secret changed: what
/// opnix-mirror.service runs
///
/// READY when every required file is in place. Otherwise it fails with a list of what is missing, after it has written the others.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The socket of the service
    #[arg(long, value_name = "PATH", default_value = crate::systemd::SOCKET)]
    socket: PathBuf,
    /// The control socket of the service, which tells of changes
    #[arg(long, value_name = "PATH", default_value = crate::control::SOCKET)]
    control: PathBuf,
    /// Mount /run/secrets and do nothing else; needs the right to mount
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
    for missing in process::protect() {
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
    let runtime = process::runtime();
    let watched = runtime.and_then(|runtime| runtime.block_on(watch(mirror, arguments.control)));
    match watched {
        Ok(()) => Exit::Ok,
        Err(error) => fail(Exit::System, error),
    }
}
