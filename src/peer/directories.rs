//! The cgroup directories of units, where the kernel's number of a cgroup can be looked up by the name of the unit.

use std::fs::{self, File};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};
use pidfd_util::{PidFd, PidFdExt};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, openat, statx};

use super::cgroup::{ManagerCgroup, unified_path};
use crate::names::UnitName;

/// Where the unified hierarchy is: alone, or beside those of version 1.
const PLACES: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The directory of a slice of the manager in which most units are.
#[derive(Debug)]
pub struct Directories {
    of_manager: File,
    slice: &'static str,
    /// The unit that was looked up last and found, with its number.
    last: Mutex<Option<(UnitName, u64)>>,
}

impl Directories {
    /// `None` where they cannot be seen, or where they are not what the kernel says of this process: before Linux 6.13 it does not
    /// say the number of a process's cgroup.
    pub fn find(manager: &ManagerCgroup, slice: &'static str) -> Option<Self> {
        let ours = PidFd::from_pid(std::process::id() as i32).and_then(|ours| ours.get_cgroupid()).ok()?;
        let text = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = unified_path(&text)?;
        let root = PLACES.into_iter().find_map(|place| {
            let root = File::open(place).ok()?;
            let is_unified = fstatfs(&root).is_ok_and(|kind| kind.filesystem_type() == CGROUP2_SUPER_MAGIC);
            (is_unified && number_of(&root, path) == Some(ours)).then_some(root)
        })?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let of_manager = openat(&root, below(manager.path()), flags, Mode::empty()).ok()?.into();
        Some(Self { of_manager, slice, last: Mutex::default() })
    }

    /// Whether this is the number of the unit's own cgroup. What was so once is so for ever: numbers are never used again, and
    /// cgroups never renamed.
    pub fn have(&self, unit: &UnitName, cgroup: u64) -> bool {
        // systemd puts `_` before some names, so that this could be the cgroup of another unit.
        if unit.as_str().starts_with('_') {
            return false;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_some_and(|(known, number)| known == unit && *number == cgroup) {
            return true;
        }
        let has = number_of(&self.of_manager, &format!("{}/{unit}", self.slice)) == Some(cgroup);
        if has {
            *last = Some((unit.clone(), cgroup));
        }
        has
    }
}

fn number_of(directory: &File, path: &str) -> Option<u64> {
    statx(directory, below(path), AtFlags::SYMLINK_NOFOLLOW, StatxFlags::INO).ok().map(|found| found.stx_ino)
}

fn below(path: &str) -> &Path {
    match path.trim_start_matches('/') {
        "" => Path::new("."),
        path => Path::new(path),
    }
}
