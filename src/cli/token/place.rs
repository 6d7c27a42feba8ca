//! Where the token is, or goes: the file that opnix.service loads, or a named one.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Uid};

use super::bring;
use crate::cli::control::SERVICE;
use crate::cli::setup::STORE;
use crate::files::{self, Attributes};
use crate::providers::child::token::{self, Loaded};
use crate::systemd::manager::{Manager, Unit};

/// The name of the sealed token's file, where no unit file names one.
const SEALED: &str = "opnix-token";

/// Where opnix.service loads its token from, if from a file: as its unit files say now, which systemd may not have read yet.
pub fn loaded() -> Option<Loaded> {
    // A file that is named without a directory only systemd finds.
    token::loaded().or_else(|| token::loaded_for_sure().ok().flatten())
}

/// The file to look at.
pub fn to_read(named: Option<PathBuf>, loaded: Option<&Loaded>) -> Option<Loaded> {
    let is_loaded = |path: &Path| {
        // Whichever way leads there. The file itself need not exist, and a link that stands for it is replaced.
        let resolved = |path: &Path| {
            let path = std::path::absolute(path).ok()?;
            Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?))
        };
        loaded.is_some_and(|loaded| {
            loaded.path() == path || resolved(loaded.path()).is_some_and(|own| resolved(path) == Some(own))
        })
    };
    match named {
        Some(path) if is_loaded(&path) => loaded.cloned(),
        Some(path) => Some(Loaded::Plain(path)),
        None => loaded.cloned(),
    }
}

/// The file to write: a sealed one if that is wished, or if the service opens it as such.
pub fn to_write(named: Option<PathBuf>, seal: bool, loaded: Option<&Loaded>) -> Result<Loaded, String> {
    let is_named = named.is_some();
    match to_read(named, loaded) {
        Some(Loaded::Plain(path)) if !seal => Ok(Loaded::Plain(path)),
        Some(Loaded::Sealed(path)) => Ok(Loaded::Sealed(path)),
        Some(Loaded::Plain(path)) if loaded.is_none_or(|loaded| loaded.path() != path) => {
            Ok(Loaded::Sealed(path))
        }
        Some(Loaded::Plain(path)) if is_named => Err(format!(
            "{SERVICE} loads {} as it is, and would take what is sealed for a token\nname another file for it, or none",
            path.display()
        )),
        // That one stays until nobody loads it.
        Some(Loaded::Plain(_)) => Ok(Loaded::Sealed(Path::new(STORE).join(SEALED))),
        None if seal => Ok(Loaded::Sealed(Path::new(STORE).join(SEALED))),
        None => Err(format!(
            "{SERVICE} loads no token from a file\nname the file with --path, and in the unit: LoadCredential=token:FILE"
        )),
    }
}

/// Stores the bytes, whole or not at all, for their owner to read, and for the group that could read what was there before.
/// Returns what is worth telling.
pub fn store(path: &Path, bytes: &[u8]) -> io::Result<Option<String>> {
    let name = path.file_name().filter(|_| !path.as_os_str().as_bytes().ends_with(b"/"));
    let name = name.ok_or_else(|| io::Error::other("it is not the path of a file"))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Others may have to get at what else is beside a token, but not beside what is sealed.
    let mode = if directory == Path::new(STORE) { 0o700 } else { 0o777 };
    DirBuilder::new().recursive(true).mode(mode).create(directory)?;
    let (attributes, told) = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Attributes::PRIVATE, None),
        Err(error) => return Err(error),
        Ok(before) => in_its_place(&before)?,
    };
    write(directory, name, bytes, attributes)?;
    Ok(told)
}

/// What takes the place of this.
fn in_its_place(before: &Metadata) -> io::Result<(Attributes, Option<String>)> {
    let us = Uid::effective();
    if before.is_symlink() {
        let told = "it was a link, and is a file now; where the link led, what was there still is";
        return Ok((Attributes::PRIVATE, Some(told.to_owned())));
    }
    if before.is_dir() {
        return Err(io::Error::other("it is a directory: name a file"));
    }
    if !before.is_file() {
        return Err(io::Error::other("it is there, and not a file: remove it, or name another path"));
    }
    // Somebody who put a file there before us does not get the token by that.
    if before.uid() != us.as_raw() {
        let told = format!("it belonged to user {}, and now belongs to user {us} alone", before.uid());
        return Ok((Attributes::PRIVATE, Some(told)));
    }
    let mode = before.mode() & 0o7777;
    let kept = 0o600 | (mode & 0o040);
    let owner = (kept != 0o600).then_some((us, Gid::from_raw(before.gid())));
    let told = (mode & !kept != 0).then(|| format!("its mode was {mode:04o}, and is {kept:04o} now"));
    Ok((Attributes { mode: kept, owner }, told))
}

fn write(directory: &Path, name: &OsStr, bytes: &[u8], attributes: Attributes) -> io::Result<()> {
    // Two at once would write the same unfinished file.
    let directory = match Flock::lock(File::open(directory)?, FlockArg::LockExclusiveNonblock) {
        Ok(directory) => directory,
        Err((_, Errno::EWOULDBLOCK)) => {
            return Err(io::Error::other("another process writes there just now: try again"));
        }
        Err((_, error)) => return Err(error.into()),
    };
    files::replace(&*directory, name, bytes, attributes).map(drop)
}

/// What becomes of the token that was just stored, if there is such a unit; or why the service does not take it.
pub fn what_next(stored: &Loaded, loaded: Option<&Loaded>) -> Result<Option<String>, String> {
    let Ok(mut manager) = Manager::connect() else { return Ok(None) };
    let Some(service) = manager.unit(SERVICE).ok().filter(Unit::is_known) else { return Ok(None) };
    if loaded != Some(stored) {
        return Ok(Some(match stored {
            Loaded::Plain(_) => format!("{SERVICE} does not load it from there"),
            Loaded::Sealed(sealed) => how_to_load(sealed, loaded),
        }));
    }
    if token::loaded_for_sure().is_ok_and(|known| known.as_ref() != Some(stored)) {
        let path = stored.path().display();
        return Ok(Some(format!(
            "systemd does not know yet that {SERVICE} loads {path}\nsystemctl daemon-reload; systemctl try-reload-or-restart {SERVICE}"
        )));
    }
    if !service.is_running() {
        return Ok(Some(format!("{SERVICE} has it once it starts")));
    }
    match bring::hand_over(stored) {
        Some(Ok(_)) => Ok(Some(format!("{SERVICE} has taken it"))),
        Some(Err(why)) => Err(format!("it is stored, but {SERVICE} does not take it: {why}")),
        // It may be busy, or be for somebody else to ask.
        None if manager.unit("opnix-token.service").is_ok_and(|unit| unit.is_running()) => {
            Ok(Some(format!("{SERVICE} takes it by itself, within seconds")))
        }
        None => Ok(Some(format!("have {SERVICE} take it: systemctl reload {SERVICE}"))),
    }
}

/// How the unit comes to load a sealed token.
fn how_to_load(sealed: &Path, loaded: Option<&Loaded>) -> String {
    let mut told = format!(
        "{SERVICE} does not load it yet: write into /etc/systemd/system/{SERVICE}.d/token.conf (on NixOS, set `sealedTokenFile` instead)\n\
         \x20   [Service]\n    LoadCredentialEncrypted=token:{}\n\
         then: systemctl daemon-reload; systemctl try-reload-or-restart {SERVICE}",
        sealed.display()
    );
    if let Some(Loaded::Plain(plain)) = loaded.filter(|loaded| loaded.path().exists()) {
        let plain = plain.display();
        told.push_str(&format!(
            "\nthe token in {plain} is still there, in plain: once the sealed one is in use (opnix token show), rm {plain}"
        ));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_service_opens_is_sealed_and_what_it_takes_as_it_is_is_not() {
        let (plain, sealed) = (Loaded::Plain("/a".into()), Loaded::Sealed("/b".into()));
        let to = |named: Option<&str>, seal, loaded: &Loaded| {
            to_write(named.map(PathBuf::from), seal, Some(loaded))
        };
        let by_default = Loaded::Sealed(Path::new(STORE).join(SEALED));
        assert_eq!(to(None, false, &plain), Ok(plain.clone()));
        assert_eq!(to(None, true, &plain), Ok(by_default.clone()));
        assert_eq!(to(Some("/c"), false, &plain), Ok(Loaded::Plain("/c".into())));
        assert_eq!(to(Some("/c"), true, &plain), Ok(Loaded::Sealed("/c".into())));
        assert!(to(Some("/a"), true, &plain).is_err_and(|why| why.contains("as it is")));
        for (named, seal) in [(None, false), (None, true), (Some("/b"), false), (Some("/b"), true)] {
            assert_eq!(to(named, seal, &sealed), Ok(sealed.clone()), "{named:?}");
        }
        assert!(to_write(None, false, None).is_err());
        assert_eq!(to_write(None, true, None), Ok(by_default));
    }
}
