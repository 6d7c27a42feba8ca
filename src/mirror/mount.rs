//! `/run/secrets`: memory that is never swapped, for root to write and for owners to read.

use std::fs;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use tracing::info;

use crate::config::MIRROR_ROOT;
use crate::systemd::manager::Manager;

/// The unit that mounts it: the mirror has no right to.
const UNIT: &str = "opnix-mount.service";
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much all files may take together, where the kernel can limit it.
const SIZE: &str = "64m";

/// Mounts it, unless that was done already. Takes CAP_SYS_ADMIN.
pub fn prepare(root: &Path) -> io::Result<()> {
    if is_mounted(root)? {
        return Ok(());
    }
    fs::create_dir_all(root)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // `noswap` came with Linux 6.3. A ramfs is never swapped, but has no limit.
    let tmpfs = format!("mode=0751,size={SIZE},noswap");
    let kind = match mount(Some("opnix"), root, Some("tmpfs"), flags, Some(tmpfs.as_str())) {
        Ok(()) => "tmpfs",
        Err(_) => {
            mount(Some("opnix"), root, Some("ramfs"), flags, Some("mode=0751"))?;
            "ramfs"
        }
    };
    info!("mounted {} ({kind})", root.display());
    Ok(())
}

/// Why no file can be put there, if one is to be: it is mounted now if it can be.
pub fn trouble(is_needed: bool) -> Option<String> {
    if !is_needed {
        return None;
    }
    match is_mounted(Path::new(MIRROR_ROOT)) {
        Ok(true) => None,
        Ok(false) => have_mounted()
            .err()
            .map(|error| format!("{MIRROR_ROOT} is not mounted: {error}; see systemctl status {UNIT}")),
        Err(error) => Some(error.to_string()),
    }
}

fn have_mounted() -> io::Result<()> {
    Manager::connect()?.queue("RestartUnit", UNIT, "replace")?;
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if is_mounted(Path::new(MIRROR_ROOT))? {
            return Ok(());
        }
        sleep(Duration::from_millis(50));
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn is_mounted(root: &Path) -> io::Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mut found = None;
    for line in mounts.lines() {
        let (mount, kind) = line.split_once(" - ").unwrap_or((line, ""));
        if mount.split(' ').nth(4) == root.to_str() {
            found = kind.split(' ').next();
        }
    }
    match found {
        None => Ok(false),
        Some("tmpfs" | "ramfs") => Ok(true),
        Some(other) => Err(io::Error::other(format!(
            "{} is a mount of another kind ({other}): secrets would be on a disk",
            root.display()
        ))),
    }
}
