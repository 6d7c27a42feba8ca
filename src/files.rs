//! A directory whose files are replaced as a whole or not at all: the service's own, which systemd makes
//! (`StateDirectory=`), first of all.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file larger than this, in bytes, is none of ours.
const SIZE_MAX: u64 = 512 << 20;

#[derive(Debug, Clone)]
pub struct StateDirectory(PathBuf);

impl StateDirectory {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// What systemd says. There is none without it, and then nothing is kept on disk.
    pub fn find() -> Option<Self> {
        Self::named("STATE_DIRECTORY")
    }

    /// The unit's runtime directory (`RuntimeDirectory=`): in memory, gone at reboot.
    pub fn of_runtime() -> Option<Self> {
        Self::named("RUNTIME_DIRECTORY")
    }

    fn named(variable: &str) -> Option<Self> {
        let listed = env::var_os(variable)?;
        // Several are separated by colons; our units have one.
        env::split_paths(&listed).next().filter(|path| path.is_absolute()).map(Self)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// `None` when there is no such file.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > SIZE_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(Some(bytes)) }
    }

    /// When this returns, the file has the new content on disk. Until then it has the old one, whatever happens.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = self.path(&format!("{name}.new"));
        // One that a crash left behind is overwritten.
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, self.path(name))?;
        sync(&self.0)
    }

    /// When this returns, there is no such file.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Ok(()) => sync(&self.0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
