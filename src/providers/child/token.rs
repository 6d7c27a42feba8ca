//! Where the token is read from, anew each time, so that a replaced one is used at once; and where a new one is to be stored.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use crate::files;
use crate::providers::FetchError;
use crate::secret::Secret;
use crate::systemd::manager::Manager;

/// The name of the credential, and of the file in `$CREDENTIALS_DIRECTORY`.
pub const CREDENTIAL: &str = "token";
/// The file that opnix.service loads it from by default: `systemd/opnix.service`.
const DEFAULT: &str = "/etc/opnix/token";
/// For the command line.
const VARIABLE: &str = "OP_SERVICE_ACCOUNT_TOKEN";
/// A token longer than this, in bytes, is a mistake.
pub const SIZE_MAX: usize = 64 << 10;

/// Where the token is. Clones share what was handed over.
#[derive(Debug, Clone)]
pub struct TokenSource {
    place: Place,
    /// The one in force, where it is not read anew each time.
    in_force: Arc<Mutex<Option<Secret>>>,
}

#[derive(Debug, Clone)]
enum Place {
    File(PathBuf),
    /// Of the unit. systemd may write it anew at a reload, whatever is in the file then.
    Credential(PathBuf),
    Variable,
}

impl TokenSource {
    /// The named file, else the credential of the unit, else the variable.
    pub fn find(named: Option<&Path>) -> Self {
        let credential =
            || env::var_os("CREDENTIALS_DIRECTORY").map(|directory| Path::new(&directory).join(CREDENTIAL));
        let file = named.map(|path| Place::File(path.to_owned()));
        let place = file.or_else(|| credential().map(Place::Credential)).unwrap_or(Place::Variable);
        Self { place, in_force: Arc::default() }
    }

    /// From now on this is the token.
    pub fn hand_over(&self, token: Secret) {
        *self.in_force() = Some(token);
    }

    /// It is read from a file for each sign-in, and so a new one need not be brought.
    pub fn is_read_anew(&self) -> bool {
        matches!(self.place, Place::File(_))
    }

    fn in_force(&self) -> MutexGuard<'_, Option<Secret>> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token without the white space around it.
    pub fn read(&self) -> Result<Secret, FetchError> {
        let mut in_force = self.in_force();
        if let (None, Place::Credential(path)) = (&*in_force, &self.place) {
            *in_force = Some(read_file(path)?);
        }
        if let Some(token) = &*in_force {
            return trimmed(token.expose(), "the token is");
        }
        match &self.place {
            Place::File(path) | Place::Credential(path) => read_file(path),
            // The environment keeps a copy of its own anyway.
            Place::Variable => {
                let looked = format!("${VARIABLE} is");
                let missing = || FetchError::TokenMissing { looked: format!("{looked} not set") };
                trimmed(&Zeroizing::new(env::var(VARIABLE).map_err(|_| missing())?.into_bytes()), &looked)
            }
        }
    }
}

/// The token in a file, without the white space around it.
pub fn read_file(path: &Path) -> Result<Secret, FetchError> {
    let looked = format!("{} is", path.display());
    let missing =
        |error: io::Error| FetchError::TokenMissing { looked: format!("{looked} not readable: {error}") };
    trimmed(&files::read(path, SIZE_MAX).map_err(missing)?, &looked)
}

fn trimmed(text: &[u8], looked: &str) -> Result<Secret, FetchError> {
    Secret::copy_from(text.trim_ascii())
        .map_err(|_| FetchError::TokenMissing { looked: format!("{looked} empty") })
}

/// Where a unit file says that systemd takes the token from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    Plain(PathBuf),
    /// Sealed with systemd-creds.
    Sealed(PathBuf),
}

impl Loaded {
    pub fn path(&self) -> &Path {
        match self {
            Self::Plain(path) | Self::Sealed(path) => path,
        }
    }
}

/// Where opnix.service loads its token from, if from a file; if there is no such unit, where it would by default.
pub fn loaded() -> Option<Loaded> {
    let output = Command::new("systemctl").args(["cat", "opnix.service"]).stderr(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => last_loaded(&String::from_utf8_lossy(&output.stdout)),
        _ => Some(Loaded::Plain(DEFAULT.into())),
    }
}

/// The same, as the service manager says, for whoever acts on it: what is not known is an error.
pub fn loaded_for_sure() -> io::Result<Option<Loaded>> {
    let unit = Manager::connect()?.unit("opnix.service")?;
    let find = |property, stores: [&str; 3]| {
        let path = unit.credential(property, CREDENTIAL)?;
        // Without a directory it is looked for in those of systemd.
        let in_stores =
            || stores.into_iter().map(|store| Path::new(store).join(&path)).find(|path| path.exists());
        if path.is_absolute() { Some(path) } else { in_stores() }
    };
    let plain = find("LoadCredential", ["/etc/credstore", "/run/credstore", "/usr/lib/credstore"]);
    let sealed = ["/etc/credstore.encrypted", "/run/credstore.encrypted", "/usr/lib/credstore.encrypted"];
    let sealed = || find("LoadCredentialEncrypted", sealed);
    let loaded = plain.map(Loaded::Plain).or_else(|| sealed().map(Loaded::Sealed));
    Ok(loaded.filter(|loaded| loaded.path().exists() || !unit.has_another_credential(CREDENTIAL)))
}

/// The last assignment in a unit file and its drop-ins counts. (`systemctl show` does not show it.)
fn last_loaded(text: &str) -> Option<Loaded> {
    let mut loaded = None;
    for line in text.lines() {
        let Some((key, value)) = line.trim().split_once('=') else { continue };
        let value = value.trim();
        let named = value.split_once(':').filter(|(name, _)| *name == CREDENTIAL);
        let path = named.map(|(_, path)| PathBuf::from(path)).filter(|path| path.is_absolute());
        match key.trim() {
            "LoadCredential" | "LoadCredentialEncrypted" if value.is_empty() => loaded = None,
            "LoadCredential" => loaded = path.map(Loaded::Plain).or(loaded),
            "LoadCredentialEncrypted" => loaded = path.map(Loaded::Sealed).or(loaded),
            _ => {}
        }
    }
    loaded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_the_unit_says_where_the_token_is() {
        let of = |text: &str| last_loaded(text);
        let plain = |path: &str| Some(Loaded::Plain(path.into()));
        assert_eq!(of(include_str!("../../../systemd/opnix.service")), plain(DEFAULT));
        let unit = "[Service]\nLoadCredential=token:/a\nSetCredential=token:\\n\nLoadCredential=other:/b\n";
        assert_eq!(of(unit), plain("/a"));
        assert_eq!(of(&format!("{unit}# drop-in\n[Service]\nLoadCredential = token:/c\n")), plain("/c"));
        let sealed = of(&format!("{unit}LoadCredential=\nLoadCredentialEncrypted=token:/d\n"));
        assert_eq!(sealed, Some(Loaded::Sealed("/d".into())));
        assert_eq!(of(&format!("{unit}LoadCredential=\n")), None);
        assert_eq!(of("#LoadCredential=token:/a\n"), None);
    }
}
