//! `opnix mirror`: files in `/run/secrets`, units that pick up a changed secret, and units that missed theirs.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use tracing::warn;

use super::{ConfigArguments, Exit, fail, faulty};
use crate::cli::output::complain;
use crate::cli::status::files::{Look, look_at};
use crate::config::{self, MirrorFile};
use crate::control::interface::MirroredFile;
use crate::counted::counted;
use crate::files::StateDirectory;
use crate::mirror::report::Report;
use crate::mirror::watch::{Jobs, watch};
use crate::mirror::{Memory, Mirror, Occasion, mount, unserved};
use crate::systemd::reload::{main_process, reload};
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
    let config = match config::load(&arguments.config.config) {
        Ok(config) => config,
        Err(faults) => return faulty(&faults),
    };
    let (Some(directory), Some(main)) = (StateDirectory::of_runtime(), main_process()) else {
        return fail(
            Exit::Usage,
            "--reload is for ExecReload= of opnix-mirror.service\nsystemctl reload opnix-mirror.service",
        );
    };
    if let Err(error) = reload(&directory, main) {
        return fail(Exit::Unavailable, format_args!("the mirror did not reload: {error}"));
    }
    let report = Report::read(&directory).unwrap_or_default();
    let required: Vec<&MirrorFile> = config.files.iter().filter(|file| !file.optional).collect();
    let shown: Vec<MirroredFile> = required.iter().map(|file| MirroredFile::from(*file)).collect();
    let mut missing = 0;
    for (file, look) in required.iter().zip(look_at(&shown)) {
        let how = match look {
            Look::Fine(_) => continue,
            Look::Missing => "is not there".to_owned(),
            Look::Other(what) | Look::Unknown(what) => what,
        };
        missing += 1;
        let why = report.troubles.get(&file.path).map_or("the mirror does not say why", |told| &told.why);
        complain!("{} {how}: {}", file.path.display(), why.replace('\n', "; "));
    }
    if missing == 0 {
        return Exit::Ok;
    }
    // Whoever had it reloaded, a switch of NixOS among them, goes on with units that read these files.
    let files = counted(missing, "file");
    let what = "missing, or not as they are to be";
    fail(Exit::Unavailable, format_args!("{what}: {files}; units that need one start when it is there"))
}
