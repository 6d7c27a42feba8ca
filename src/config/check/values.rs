//! Single values: durations, names, modes and paths.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::config::valid::MIRROR_ROOT;
use crate::names::{NameError, UnitName};
use crate::remedy::Problem;

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
    if name.is_empty() || name.chars().any(forbidden) {
        return Err(Problem::plain(format!("{name:?} is no user or group name")));
    }
    Ok(name.to_owned())
}

pub fn file_mode(text: &str) -> Result<u32, Problem> {
    let octal = (3..=4).contains(&text.len()).then(|| u32::from_str_radix(text, 8).ok()).flatten();
    octal.filter(|_| text.bytes().all(|b| b.is_ascii_digit())).ok_or_else(|| {
        Problem::new(format!("{text:?} is no file mode"), "it is 3 or 4 octal digits, such as 0400")
    })
}

/// The path of a file that the mirror writes: absolute, or relative to its directory.
pub fn mirror_path(text: &str) -> Result<PathBuf, Problem> {
    if text.is_empty() || text.ends_with('/') {
        return Err(Problem::plain(format!("{text:?} is no path of a file")));
    }
    tidy(text, Path::new(MIRROR_ROOT).join(text))
}

pub fn absolute_path(text: &str) -> Result<PathBuf, Problem> {
    if !text.starts_with('/') || text.ends_with('/') {
        return Err(Problem::plain(format!("{text:?} is no absolute path of a file")));
    }
    tidy(text, PathBuf::from(text))
}

/// The path without `.` and doubled slashes, so that equal paths are equal. It cannot have `..` in it.
fn tidy(text: &str, path: PathBuf) -> Result<PathBuf, Problem> {
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(Problem::new(format!("path {text:?} leads upwards"), "remove the `..`"));
    }
    Ok(path.components().collect())
}
