//! Single values: durations, names, modes and paths.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::files::UNFINISHED;
use crate::names::{NameError, UnitName};
use crate::remedy::Problem;
use crate::scope;

pub fn duration(text: &str) -> Result<Duration, Problem> {
    humantime::parse_duration(text).map_err(|_| {
        Problem::new(format!("{text:?} is no duration"), "write one such as 500ms, 30s, 15m, 6h or 7d")
    })
}

/// OpNix gives service names without their suffix, although they can have dots in them.
pub fn service(name: &str) -> Result<UnitName, NameError> {
    match name.parse() {
        Err(NameError::NoSuffix(_)) => format!("{name}.service").parse(),
        parsed => parsed,
    }
}

/// The name of a user or group.
pub fn account(name: &str) -> Result<String, Problem> {
    let forbidden = |c: char| c.is_control() || c.is_whitespace() || ":/,".contains(c);
    // The last number means that an owner is to stay as it is.
    if name.is_empty() || name.chars().any(forbidden) || name.parse() == Ok(u32::MAX) {
        return Err(Problem::plain(format!("{name:?} is no user or group name")));
    }
    Ok(name.to_owned())
}

pub fn file_mode(text: &str) -> Result<u32, Problem> {
    let octal = (3..=4).contains(&text.len()).then(|| u32::from_str_radix(text, 8).ok()).flatten();
    let mode = octal.filter(|_| text.bytes().all(|b| b.is_ascii_digit())).ok_or_else(|| {
        Problem::new(format!("{text:?} is no file mode"), "it is 3 or 4 octal digits, such as 0400")
    })?;
    if mode & !0o775 != 0 {
        return Err(Problem::new(
            format!("mode {text:?} lets everybody write the secret, or lends its owner's rights"),
            "give it to one owner and one group: 0400, 0440 or 0660",
        ));
    }
    Ok(mode)
}

/// The directory in memory that the mirror's files are shown in. What is there already shows when it is mounted.
pub fn mirror_root(text: &str) -> Result<PathBuf, Problem> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let root = harmless(text, tidy(text, PathBuf::from(text))?)?;
    if !root.starts_with("/run")
        || ["/run", "/run/user", "/run/lock"].map(Path::new).contains(&&*root)
        || !text.chars().all(is_plain)
    {
        return Err(Problem::new(
            format!("{text:?} cannot be the directory of secrets in memory"),
            "name one below /run, of letters, digits, `.`, `_` and `-`: /run/opnix-secrets",
        ));
    }
    Ok(root)
}

/// The path of a file that the mirror writes: absolute, or relative to its directory.
pub fn mirror_path(text: &str, root: &Path) -> Result<PathBuf, Problem> {
    if text.is_empty() || text.ends_with('/') {
        return Err(Problem::plain(format!("{text:?} is no path of a file")));
    }
    harmless(text, tidy(text, root.join(text))?)
}

pub fn absolute_path(text: &str) -> Result<PathBuf, Problem> {
    if !text.starts_with('/') || text.ends_with('/') {
        return Err(Problem::plain(format!("{text:?} is no absolute path of a file")));
    }
    tidy(text, PathBuf::from(text))
}

/// The directory of links.
pub fn link_root(text: &str) -> Result<PathBuf, Problem> {
    let root = link_path(text.strip_suffix('/').unwrap_or(text))?;
    // Where the way to a user's home leads through a link, that user may go it.
    Ok(if scope::is_user() { root.canonicalize().unwrap_or(root) } else { root })
}

/// The path of a link that the mirror makes.
pub fn link_path(text: &str) -> Result<PathBuf, Problem> {
    harmless(text, absolute_path(text)?)
}

/// Where no secret belongs, because the system keeps something else there.
const OF_THE_SYSTEM: [&str; 39] = [
    "/bin",
    "/boot",
    "/dev",
    "/efi",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/proc",
    "/sbin",
    "/sys",
    "/usr",
    "/etc/fstab",
    "/etc/group",
    "/etc/gshadow",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/ld.so.conf",
    "/etc/ld.so.preload",
    "/etc/machine-id",
    "/etc/nsswitch.conf",
    "/etc/opnix",
    "/etc/pam.d",
    "/etc/passwd",
    "/etc/profile",
    "/etc/resolv.conf",
    "/etc/shadow",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/run/credentials",
    "/run/opnix",
    "/run/opnix-files",
    "/run/opnix-mirror",
    "/run/opnix-setup",
    "/run/private",
    "/run/systemd",
    "/var/lib/opnix",
    "/var/lib/opnix-mirror",
    "/var/lib/private/opnix",
];
/// Programs that run as services have such a directory of their own.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

fn harmless(text: &str, path: PathBuf) -> Result<PathBuf, Problem> {
    let is_below = |places: &[&str]| places.iter().any(|place| path.starts_with(place));
    if is_below(&TEMPORARY) {
        return Err(Problem::new(
            format!(
                "path {text:?} is in a directory that the mirror has for itself: nobody else would see the file"
            ),
            "name one elsewhere, or a relative one: those are in memory",
        ));
    }
    if is_below(&OF_THE_SYSTEM) && !path.starts_with("/dev/shm") {
        return Err(Problem::new(
            format!("path {text:?} belongs to the system"),
            "name one that nothing else is kept at, or a relative one: those are in memory",
        ));
    }
    if path.as_os_str().as_encoded_bytes().ends_with(UNFINISHED.as_bytes()) {
        return Err(Problem::new(
            format!("path {text:?} is as unfinished files are called"),
            "name another: such files are removed",
        ));
    }
    Ok(path)
}

/// The path without `.` and doubled slashes, so that equal paths are equal. It cannot have `..` in it.
fn tidy(text: &str, path: PathBuf) -> Result<PathBuf, Problem> {
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(Problem::new(format!("path {text:?} leads upwards"), "remove the `..`"));
    }
    Ok(path.components().collect())
}
