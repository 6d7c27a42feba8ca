//! `opnix mirror`: files in `/run/secrets`, units that pick up a changed secret, and units that missed theirs.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use tracing::warn;

use super::{ConfigArguments, Exit, fail, faulty};
use crate::cli::output::complain;
use crate::config;
use crate::counted::counted;
use crate::files::StateDirectory;
use crate::mirror::report::Report;
use crate::mirror::watch::{Jobs, watch};
use crate::mirror::{Memory, Mirror, Occasion, mount, unserved};
use crate::systemd::reload::{self, main_process};
use crate::{process, records, scope};

/// How long a faulty configuration is left alone.
const FAULTY: Duration = Duration::from_secs(8);

/// Write the files of the configuration, keep them current, act on units whose secret changed, and start those that
/// missed theirs: what opnix-mirror.service runs
///
/// READY when every file is in place that can be had now. What is missing is named in the journal and in its status,
/// holds back only the units that need it, and is written as soon as it can be. SIGHUP has it look at everything.
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
    /// Mount the memory for files (`mirror_root`) if the configuration has files there, and do nothing else; needs the right to mount
    #[arg(long)]
    prepare: bool,
    /// Have the running mirror of this unit look at everything, and wait until it has: what ExecReload= runs. Fails if a file that
    /// has to be there is not
    #[arg(long, conflicts_with = "prepare")]
    reload: bool,
}

pub fn run(arguments: Arguments) -> Exit {
    if let Err(error) = records::init(None) {
        return fail(Exit::System, format_args!("cannot begin: {error}"));
    }
    if arguments.prepare {
        return prepare(&arguments);
    }
    if arguments.reload {
        return have_reloaded(&arguments);
    }
    for missing in process::protect() {
        warn!("{missing}");
    }
    let memory = Memory { runtime: StateDirectory::of_runtime(), state: StateDirectory::find() };
    let begun = unserved::begin(arguments.control.clone(), arguments.socket.clone(), memory.runtime.clone())
        .and_then(|()| Mirror::new(arguments.config.config, arguments.socket, memory))
        .and_then(|mirror| Ok((mirror, Jobs::listen()?, process::runtime()?)));
    let (mut mirror, jobs, runtime) = match begun {
        Ok(begun) => begun,
        Err(error) => return fail(Exit::System, format_args!("cannot begin: {error}")),
    };
    mirror.catch_up();
    if let Err(faults) = mirror.round(Occasion::Start) {
        let exit = faulty(&faults);
        // systemd starts us again at once, and nobody mends it in a moment.
        sleep(FAULTY);
        return exit;
    }
    match runtime.block_on(watch(mirror, arguments.control, jobs)) {
        Ok(()) => Exit::Ok,
        Err(error) => fail(Exit::System, error),
    }
}

fn prepare(arguments: &Arguments) -> Exit {
    let root = match config::load(&arguments.config.config) {
        Ok(config) if !config.needs_memory() => return Exit::Ok,
        Ok(config) => config.mirror_root,
        // It says nothing about what is needed: what was there before is.
        Err(_) => mount::shown().unwrap_or_else(scope::mirror_root),
    };
    match mount::prepare(&root) {
        Ok(()) => Exit::Ok,
        Err(error) => fail(Exit::System, format_args!("cannot mount {}: {error}", root.display())),
    }
}

fn have_reloaded(arguments: &Arguments) -> Exit {
    let (Some(directory), Some(main)) = (StateDirectory::of_runtime(), main_process()) else {
        return fail(
            Exit::Usage,
            "--reload is for ExecReload= of opnix-mirror.service\nsystemctl reload opnix-mirror.service",
        );
    };
    let is_taken = match reload::reload(&directory, main) {
        Ok(is_taken) => is_taken,
        Err(error) => {
            return fail(
                Exit::Unavailable,
                format_args!("the mirror did not say that it has reloaded: {error}"),
            );
        }
    };
    let config = match config::load(&arguments.config.config) {
        Ok(config) if is_taken => config,
        Ok(_) => {
            return fail(
                Exit::Config,
                "the mirror goes on with the configuration from before, as it found faults\njournalctl -u opnix-mirror.service",
            );
        }
        Err(faults) => return faulty(&faults),
    };
    let Some(report) = Report::read(&directory) else {
        return fail(
            Exit::Unavailable,
            "the mirror does not say how the files are\nsystemctl status opnix-mirror.service",
        );
    };
    let required = config.files.iter().filter(|file| !file.optional);
    let troubles: Vec<_> =
        required.filter_map(|file| Some((&file.path, &report.troubles.get(&file.path)?.why))).collect();
    for (path, why) in &troubles {
        let is_there = path.symlink_metadata().is_ok();
        let how = if is_there { "is not as it is to be" } else { "is not there" };
        complain!("{} {how}: {}", path.display(), why.replace('\n', "; "));
    }
    if troubles.is_empty() {
        return Exit::Ok;
    }
    // Whoever had it reloaded, a switch of NixOS among them, goes on with units that read these files.
    let files = counted(troubles.len(), "file");
    let what = "missing, or not as they are to be";
    fail(Exit::Unavailable, format_args!("{what}: {files}; units that need one start when it is there"))
}
