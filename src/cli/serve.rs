//! `opnix serve`: the service.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::getsockname;
use tokio::task::LocalSet;
use tracing::{error, warn};

use super::{ConfigArguments, Exit, fail};
use crate::files::StateDirectory;
use crate::peer::Trust;
use crate::providers::child::token::TokenSource;
use crate::server::keeper::{self, Channel, Role};
use crate::server::lifetime::{self, Work};
use crate::server::{Service, Sources};
use crate::systemd::activation::Passed;
use crate::systemd::notify::Notifier;
use crate::systemd::reload::{self, main_process};
use crate::{config, control, kernel, process, records, scope};

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
    /// Have the running service of this unit take the configuration, and wait until it has: what ExecReload= runs
    #[arg(long)]
    reload: bool,
    /// DEVELOPMENT ONLY: believe what a client says it is, without asking the kernel
    #[arg(long, requires = "socket")]
    trust_peer_names: bool,
}

pub fn run(arguments: Arguments) -> Exit {
    if arguments.reload {
        return have_reloaded(&arguments);
    }
    // Before anything else opens files.
    let mut passed = match Passed::take() {
        Ok(passed) => passed,
        Err(error) => {
            return fail(Exit::System, format_args!("systemd's descriptors cannot be taken: {error}"));
        }
    };
    let activated = !passed.credentials.is_empty();
    if let Err(misuse) = check(&arguments, activated) {
        return fail(Exit::Usage, misuse);
    }
    let control = arguments.control.as_ref().filter(|_| passed.control.is_empty());
    for (path, listeners) in
        [(&arguments.socket, &mut passed.credentials), (&control.cloned(), &mut passed.control)]
    {
        let Some(path) = path else { continue };
        match listen(path) {
            Ok(listener) => listeners.push(listener),
            Err(error) => {
                return fail(Exit::System, format_args!("cannot listen on {}: {error}", path.display()));
            }
        }
    }
    // Here, because systemd addresses it to the main process.
    let heartbeat = sd_notify::watchdog_enabled();
    // Before there is a thread or a secret.
    match keeper::divide(&passed.credentials, &passed.control, activated) {
        Ok(Role::Keeper(keeper)) => keeper.keep(),
        Ok(Role::Worker(channel)) => {
            let exit = work(&arguments, passed, Arc::new(channel), heartbeat);
            records::flush();
            // Nothing is dropped: connections that have no answer yet must still be open when we end.
            std::process::exit(exit as i32);
        }
        Err(error) => fail(Exit::System, format_args!("the service cannot be divided in two: {error}")),
    }
}

fn have_reloaded(arguments: &Arguments) -> Exit {
    let (Some(directory), Some(main)) = (StateDirectory::of_runtime(), main_process()) else {
        return fail(
            Exit::Usage,
            "--reload is for ExecReload= of opnix.service\nsystemctl reload opnix.service",
        );
    };
    match reload::reload(&directory, main) {
        Ok(true) => Exit::Ok,
        Ok(false) => match config::load(&arguments.config.config) {
            Err(faults) => super::faulty(&faults),
            // They were mended meanwhile, or it has other files.
            Ok(_) => fail(
                Exit::Config,
                "the service kept the configuration from before, as it found faults\njournalctl -u opnix.service",
            ),
        },
        Err(error) => {
            fail(Exit::Unavailable, format_args!("the service did not say that it has reloaded: {error}"))
        }
    }
}

fn check(arguments: &Arguments, activated: bool) -> Result<(), &'static str> {
    match (activated, &arguments.socket) {
        (true, _) if arguments.trust_peer_names => {
            Err("--trust-peer-names is for development: it is refused under socket activation")
        }
        (true, Some(_)) => Err("--socket cannot be used under socket activation: systemd passes the socket"),
        (false, None) => Err(
            "no socket to serve\nstart opnix.socket (systemctl start opnix.socket), or listen with --socket PATH",
        ),
        _ => Ok(()),
    }
}

/// What the worker does.
fn work(arguments: &Arguments, passed: Passed, channel: Arc<Channel>, heartbeat: Option<Duration>) -> Exit {
    // In each build: unwinding would close connections that have no answer yet; after an abort the keeper looks after
    // them.
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        std::process::abort();
    }));
    kernel::use_one_heap();
    let Passed { credentials, control, requests, records, unknown, dropped } = passed;
    // While /proc/self is still ours to read.
    let notifier = match records::init(records).and_then(|()| Notifier::through(channel.clone())) {
        Ok(notifier) => notifier,
        Err(error) => return fail(Exit::System, format_args!("cannot begin: {error}")),
    };
    if let Some((message, queue)) = records::to_store() {
        // systemd may still hold an earlier one, or something of that name that is not ours.
        notifier.unstore(records::STORED_AS);
        notifier.store(message, queue);
    }
    for name in dropped {
        warn!("dropped a descriptor of unknown kind, {name:?}, from systemd's store");
        notifier.unstore(&name);
    }
    for (name, socket) in unknown {
        warn!(
            "left a socket of unknown name, {name:?}, open: neither opnix.socket nor opnix-control.socket has it"
        );
        std::mem::forget(socket);
    }
    let trust = match (arguments.trust_peer_names, scope::is_user()) {
        (true, _) => {
            warn!(
                "--trust-peer-names: ANYBODY who can reach the socket gets any secret; for development only"
            );
            Trust::Names
        }
        (false, true) => Trust::user(),
        (false, false) => Trust::system(),
    };
    let token = TokenSource::find(arguments.token_file.as_deref());
    let sources = Sources { files: arguments.config.config.clone(), token };
    let activated = arguments.socket.is_none();
    let first = sources.read();
    if !activated {
        // Nobody restarts us here, and nobody waits yet: better to stop at once than to refuse everything.
        if let Err(faults) = &first.config {
            return super::faulty(faults);
        }
        warn!("no systemd keeps requests when opnix ends: those that wait then are refused");
    }
    // Before the first secret is read.
    for missing in process::protect() {
        warn!("{missing}");
    }
    let runtime = match process::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(Exit::System, format_args!("cannot begin: {error}")),
    };
    let handle = runtime.handle().clone();
    let service = Arc::new(Service::new(trust, activated, notifier.clone(), handle, sources, first));
    let names: Vec<_> = control.iter().filter_map(|socket| getsockname(socket.as_raw_fd()).ok()).collect();
    let administrators = control::server::serve(control, service.clone());
    if service.is_of_a_user() {
        runtime.spawn(control::teller::tell_own(service.clone()));
    }
    let path = arguments.socket.clone();
    let work = Work { listeners: credentials, stored: requests, channel, path, heartbeat };
    let run = lifetime::run(work, service, administrators, &names);
    let served = LocalSet::new().block_on(&runtime, run);
    // It has requests that have no answer yet: to drop it would close their connections.
    std::mem::forget(runtime);
    if !activated {
        // A socket that nobody listens on would only puzzle whoever comes next.
        for path in [&arguments.socket, &arguments.control].into_iter().flatten() {
            let _ = fs::remove_file(path);
        }
    }
    notifier.flush();
    match served {
        Ok(()) => Exit::Ok,
        Err(error) => {
            error!("cannot go on serving: {error}");
            Exit::System
        }
    }
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
