//! Where opnix keeps what it has, besides files for others: all that `opnix purge` removes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::files;
use crate::providers::child::token;
use crate::store::disk::KEY_CREDENTIAL;

/// Directories and links of opnix's units. A `DynamicUser=` has the directory itself in `private`, and a link to it.
const DIRECTORIES: [&str; 9] = [
    "/var/lib/opnix",
    "/var/lib/private/opnix",
    "/run/opnix-missed",
    "/run/private/opnix-missed",
    "/run/opnix-setup",
    "/run/opnix-files",
    "/run/opnix",
    "/run/opnix-metrics",
    "/run/credentials/opnix-key.service",
];
/// Where the key of the cache is, with those that were set aside.
const STORE: &str = "/etc/credstore.encrypted";
/// Where the token is by default, in plain text and sealed.
const TOKEN: &str = "/etc/opnix/token";
const SEALED: &str = "/etc/credstore.encrypted/opnix-token";

/// Those of them that are there, the key first: without it the cache is worth nothing.
pub fn all() -> Vec<PathBuf> {
    let mut places = keys(Path::new(STORE));
    places.extend(DIRECTORIES.map(PathBuf::from).into_iter().filter(|path| is_there(path)));
    places
}

/// The key of the cache, those that were set aside, and what is unfinished of one.
fn keys(store: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(store).into_iter().flatten().flatten();
    let is_key = |name: &str| {
        let name = name.strip_prefix('.').unwrap_or(name);
        name.strip_prefix(KEY_CREDENTIAL).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let mut keys: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_key))
        .map(|entry| entry.path())
        .collect();
    keys.sort();
    keys
}

/// Where the service has its token from, and where it would have it from by default.
pub fn tokens() -> Vec<PathBuf> {
    let loaded = token::loaded_for_sure().ok().flatten().or_else(token::loaded);
    let mut tokens: Vec<PathBuf> = loaded.into_iter().map(|loaded| loaded.path().to_owned()).collect();
    tokens.extend([TOKEN, SEALED].map(PathBuf::from));
    // What a `token set` that was killed had not finished.
    let unfinished = |token: &PathBuf| {
        Some(token.with_file_name(format!(".{}{}", token.file_name()?.to_str()?, files::UNFINISHED)))
    };
    let unfinished: Vec<PathBuf> = tokens.iter().filter_map(unfinished).collect();
    tokens.extend(unfinished);
    tokens.sort();
    tokens.dedup();
    // What is a directory or a socket there is somebody else's.
    tokens.retain(|path| is_there(path) && (path.is_symlink() || path.is_file()));
    tokens
}

/// Whether there is something. A directory that is a mount of its own cannot be removed: an empty one counts as gone.
pub fn is_there(path: &Path) -> bool {
    match path.symlink_metadata() {
        Ok(there) if there.is_dir() && is_mount(path) => {
            fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
        }
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::NotFound && error.kind() != io::ErrorKind::NotADirectory,
    }
}

fn is_mount(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4).map(Path::new) == Some(path))
}

/// Removes it, with all that is in it, and what a link of a file leads to: who keeps the token elsewhere links to it.
pub fn remove(path: &Path) -> io::Result<()> {
    let there = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there?,
    };
    if there.is_symlink() {
        let target = path.canonicalize().ok().filter(|target| target.is_file());
        fs::remove_file(path)?;
        return match target {
            Some(target) => Err(io::Error::other(format!(
                "it was a link, which is gone; what it led to is somebody's, and stays: {}",
                target.display()
            ))),
            None => Ok(()),
        };
    }
    if !there.is_dir() {
        return fs::remove_file(path);
    }
    if !is_mount(path) {
        return fs::remove_dir_all(path);
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_all_that_setup_makes_and_nothing_of_others() {
        let store = std::env::temp_dir().join(format!("opnix-purge-{}", std::process::id()));
        fs::create_dir_all(&store).unwrap();
        let ours = [
            ".opnix.cache-key.opnix-new",
            "opnix.cache-key",
            "opnix.cache-key.aside-1",
            "opnix.cache-key.aside-1.on-purpose",
        ];
        for name in ours.iter().chain(&["opnix.cache-keys", "other", "opnix.token"]) {
            fs::write(store.join(name), "").unwrap();
        }
        assert_eq!(keys(&store), ours.map(|name| store.join(name)));
        fs::remove_dir_all(store).unwrap();
    }

    #[test]
    fn a_link_goes_and_what_it_led_to_is_named() {
        let place = std::env::temp_dir().join(format!("opnix-purge-link-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        let (link, target) = (place.join("token"), place.join("elsewhere"));
        fs::write(&target, "made-up").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(remove(&link).unwrap_err().to_string().contains("elsewhere"));
        assert!(!is_there(&link) && is_there(&target));
        assert!(remove(&link).is_ok(), "it is gone already");
        fs::remove_dir_all(place).unwrap();
    }
}
