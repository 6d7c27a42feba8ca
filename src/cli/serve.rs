//! `opnix serve`: the service.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::LocalSet;
use tracing::{error, info, warn};

use super::{ConfigArguments, Exit, fail};
use crate::config;
use crate::peer::Trust;
use crate::secret;
use crate::server::{self, Service, Sources};
use crate::systemd::{activation, journal};

/// The name of the listening socket: `FileDescriptorName=` in `systemd/opnix.socket`.
const LISTENER: &str = "creds";
/// That of the control socket: `FileDescriptorName=` in `systemd/opnix-control.socket`.
const CONTROL: &str = "control";

/// Serve credentials to units: what opnix.service runs
///
/// Started by systemd, it takes the socket of opnix.socket. Otherwise it listens on --socket itself.
/// SIGHUP reloads the configuration; SIGTERM finishes or hands over what is waiting, then ends.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// The file with the provider's token; by default the credential `token`, then $OP_SERVICE_ACCOUNT_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Listen on this path, when not started by systemd's socket unit
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Listen for `opnix status`, `explain` and `refresh` on this path, when not started by systemd's socket unit
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Serve the units of your own service manager (systemctl --user) instead of the system's
    #[arg(long)]
    user: bool,
    /// DEVELOPMENT ONLY: believe what a client says it is, without asking the kernel
    #[arg(long, requires = "socket")]
    trust_peer_names: bool,
}

pub fn run(arguments: Arguments) -> Exit {
    // Descriptors first, before anything else opens files; the log next, while /proc/self is still ours to read.
    let passed = match activation::take() {
        Ok(passed) => passed,
        Err(error) => {
            return fail(Exit::System, format_args!("systemd's descriptors cannot be taken: {error}"));
        }
    };
    journal::init();
    let (mut listeners, rest): (Vec<_>, Vec<_>) =
        passed.into_iter().partition(|passed| passed.name == LISTENER);
    let (mut controls, stored): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|passed| passed.name == CONTROL);
    let activated = listeners.pop().and_then(|passed| passed.socket).map(UnixListener::from);
    let control = controls.pop().and_then(|passed| passed.socket).map(UnixListener::from);
    let control = match (control, &arguments.control) {
        (None, Some(path)) => match listen(path) {
            Ok(listener) => Some(listener),
            Err(error) => {
                return fail(Exit::System, format_args!("cannot listen on {}: {error}", path.display()));
            }
        },
        (control, _) => control,
    };
    let trust = match (arguments.trust_peer_names, &activated) {
        (true, Some(_)) => {
            return fail(
                Exit::Usage,
                "--trust-peer-names is for development: it is refused under socket activation",
            );
        }
        (true, None) => {
            warn!(
                "--trust-peer-names: ANYBODY who can reach the socket gets any secret; for development only"
            );
            Trust::Names
        }
        (false, _) if arguments.user => Trust::user(),
        (false, _) => Trust::system(),
    };
    let sources = Sources { files: arguments.config.config, token: arguments.token_file };
    let result = match (activated, &arguments.socket) {
        (Some(_), Some(_)) => {
            return fail(
                Exit::Usage,
                "--socket cannot be used under socket activation: systemd passes the socket",
            );
        }
        (Some(listener), None) => serve(listener, control, trust, true, stored, &sources),
        (None, Some(path)) => {
            // Nobody restarts us here, and nobody waits yet: better to stop at once than to refuse everything.
            if let Err(faults) = config::load(&sources.files) {
                return super::faulty(&faults);
            }
            warn!(
                "no fd store outside systemd: a unit that waits while opnix dies starts with an empty credential"
            );
            let listener = match listen(path) {
                Ok(listener) => listener,
                Err(error) => {
                    return fail(Exit::System, format_args!("cannot listen on {}: {error}", path.display()));
                }
            };
            info!("listening on {}", path.display());
            let result = serve(listener, control, trust, false, stored, &sources);
            // A socket that nobody listens on would only puzzle the next one.
            for path in [Some(path), arguments.control.as_ref()].into_iter().flatten() {
                let _ = fs::remove_file(path);
            }
            result
        }
        (None, None) => {
            return fail(
                Exit::Usage,
                "no socket to serve\nstart opnix.socket (systemctl start opnix.socket), or listen with --socket PATH",
            );
        }
    };
    match result {
        Ok(()) => Exit::Ok,
        Err(error) => {
            error!("cannot go on serving: {error}");
            Exit::System
        }
    }
}

fn serve(
    listener: UnixListener,
    control: Option<UnixListener>,
    trust: Trust,
    backed: bool,
    stored: Vec<activation::Passed>,
    sources: &Sources,
) -> io::Result<()> {
    // Before the first secret is read.
    for missing in secret::protect_process() {
        warn!("{missing}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let service = Arc::new(Service::new(trust, backed, runtime.handle().clone(), sources));
    let run = server::run(listener, control, service, stored, sources);
    let result = LocalSet::new().block_on(&runtime, run);
    // A provider that still blocks must not hold up our end.
    runtime.shutdown_background();
    result
}

/// Binds `path`, for this user alone. A socket that nobody listens on any more is replaced.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        fs::remove_file(path)?;
    }
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    nix::sys::stat::umask(before);
    let listener = listener?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
