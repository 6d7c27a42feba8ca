//! The mirror: files for software that only reads files, and what happens to units whose secret changed.
//!
//! It runs as root without network and asks the service for values exactly as systemd does, over the same socket, under the
//! same checks: its unit is [`crate::policy::MIRROR`], and the names it asks by are derived from the content that it
//! wants ([`crate::template::Template::mirror_name`]). So a value always goes the way of a credential, and two
//! configurations that differ for a moment never mix up two secrets. Over the control socket it learns when to look
//! again.

pub mod install;
pub mod mount;
pub mod plan;
mod state;
pub mod units;
pub mod watch;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};
use zeroize::Zeroizing;

use self::install::Accounts;
use self::plan::{Contents, Plan, plan};
pub use self::state::Memory;
use self::state::State;
use crate::config::{self, Config};
use crate::names::CREDENTIALS_MAX;
use crate::policy::MIRROR;
use crate::secret::Secret;
use crate::systemd::asker;

/// How many values are asked for at a time.
const AT_ONCE: usize = 256;
/// How many times to ask again after a connection ended without a byte: that is not an answer, the service was
/// restarted.
const TRIES: usize = 3;

/// What the mirror works on.
pub struct Mirror {
    pub files: Vec<PathBuf>,
    /// The service's socket.
    pub socket: PathBuf,
    /// Where it remembers what it has seen; it is lost at reboot, and then nothing counts as changed.
    pub memory: Memory,
    state: State,
}

/// The result of a round.
pub struct Round {
    pub plan: Plan,
    /// What could not be delivered though it is required: the path, and why.
    pub missing: Vec<(PathBuf, String)>,
}

impl Mirror {
    pub fn new(files: Vec<PathBuf>, socket: PathBuf, memory: Memory) -> io::Result<Self> {
        let state = memory.load()?;
        Ok(Self { files, socket, memory, state })
    }

    /// Looks at everything once: asks, compares and writes files. The plan says what is to be done to units.
    pub fn round(&mut self) -> Result<Round, config::Faults> {
        let config = config::load(&self.files)?;
        let (values, unanswered) = self.ask(&config);
        let contents: Contents =
            values.iter().map(|(name, value)| (name.clone(), self.state.fingerprint(value))).collect();
        if self.state.forgotten {
            // Recorded as different from everything that is known now.
            self.state.seen = contents.keys().map(|name| (name.clone(), String::new())).collect();
        }
        let accounts = Accounts::look_up(&config.files);
        let plan = plan(&config, &contents, &self.state.seen, &self.state.files, |path| {
            path.symlink_metadata().is_ok()
        });
        let mut missing = Vec::new();
        for file in &config.files {
            let Some(why) = unanswered.get(file.entry.content.mirror_name().as_str()) else { continue };
            if file.optional {
                warn!("{} is not there: {why}", file.path.display());
            } else {
                missing.push((file.path.clone(), why.clone()));
            }
        }
        for change in &config.changes {
            if let Some(why) = unanswered.get(change.entry.content.mirror_name().as_str()) {
                warn!("whether {} has changed is not known: {why}", change.entry.name);
            }
        }
        for file in &config.files {
            let Some(write) = plan.write.get(&file.path) else { continue };
            let Some(value) = values.get(&write.content) else { continue };
            let installed = accounts
                .of(file)
                .and_then(|owner| install::install(file, owner, value).map_err(|error| error.to_string()));
            match installed {
                Ok(()) => {
                    self.state.files.insert(file.path.clone(), write.clone());
                    self.state.links.extend(file.symlinks.iter().cloned());
                }
                Err(why) => missing.push((file.path.clone(), why)),
            }
        }
        let wanted: Vec<&Path> =
            config.files.iter().flat_map(|file| file.symlinks.iter().map(PathBuf::as_path)).collect();
        let links: Vec<PathBuf> =
            self.state.links.iter().filter(|link| !wanted.contains(&link.as_path())).cloned().collect();
        for path in plan.remove.iter().chain(&links) {
            match install::remove(path) {
                Ok(()) => {
                    self.state.files.remove(path);
                    self.state.links.remove(path);
                    info!("removed {}: it left the configuration", path.display());
                }
                Err(error) => warn!("cannot remove {}: {error}", path.display()),
            }
        }
        self.state.forgotten = false;
        self.state.seen.extend(contents);
        self.state.seen.retain(|name, _| plan.known.contains(name));
        if let Err(error) = self.memory.save(&self.state) {
            warn!("what was seen cannot be remembered through a restart of the mirror: {error}");
        }
        Ok(Round { plan, missing })
    }

    /// All values that the configuration wants here, and why the missing ones cannot be had.
    fn ask(&self, config: &Config) -> (BTreeMap<String, Arc<Secret>>, BTreeMap<String, String>) {
        let entries =
            config.files.iter().map(|file| &file.entry).chain(config.changes.iter().map(|c| &c.entry));
        let mut names: Vec<String> = entries.map(|entry| entry.content.mirror_name().to_string()).collect();
        names.sort_unstable();
        names.dedup();
        let (mut values, mut unanswered) = (BTreeMap::new(), BTreeMap::new());
        let mut buffer = Zeroizing::new(vec![0; CREDENTIALS_MAX + 1]);
        for names in names.chunks(AT_ONCE) {
            // All connections are made before the first answer is read, so that the service can fetch them together.
            let asked: Vec<_> =
                names.iter().map(|name| asker::connect_as(&self.socket, MIRROR, name)).collect();
            for (name, stream) in names.iter().zip(asked) {
                let why = match stream.and_then(|stream| self.answer(name, stream, &mut buffer)) {
                    Ok(Some(value)) => {
                        values.insert(name.clone(), Arc::new(value));
                        continue;
                    }
                    Ok(None) => "the service refused it: see `opnix status` and its journal".to_owned(),
                    Err(error) => {
                        format!("the service does not answer on {}: {error}", self.socket.display())
                    }
                };
                unanswered.insert(name.clone(), why);
            }
        }
        (values, unanswered)
    }

    /// `None`: it was refused.
    fn answer(&self, name: &str, mut stream: impl Read, buffer: &mut [u8]) -> io::Result<Option<Secret>> {
        let mut length = read_all(&mut stream, buffer)?;
        for _ in 0..TRIES {
            if length > 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
            length = read_all(&mut asker::connect_as(&self.socket, MIRROR, name)?, buffer)?;
        }
        match length {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length if length > CREDENTIALS_MAX => Ok(None),
            length => Secret::copy_from(&buffer[..length]).map(Some).map_err(io::Error::other),
        }
    }
}

fn read_all(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match stream.read(&mut buffer[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}
