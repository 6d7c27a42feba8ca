//! `/run/secrets`: memory that is never swapped, for root to write and for owners to read.

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use tracing::info;

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
