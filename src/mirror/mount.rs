//! `/run/secrets`: memory that is never swapped, which root writes in a place of its own, and which owners only read: whoever
//! could write to a file of his there could fill the memory of all.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tracing::info;

use crate::config::MIRROR_ROOT;
use crate::systemd::manager::Manager;

/// The unit that mounts it: the mirror has no right to.
const UNIT: &str = "opnix-mount.service";
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much all files may take together, where the kernel can limit it.
const SIZE: &str = "64m";

/// Root's place, which nobody else may enter.
const PLACE: &str = "/run/opnix-files";
/// The memory in it, to be written to.
const WRITABLE: &str = "/run/opnix-files/memory";
/// Where it is made read-only before anybody sees it: what is attached elsewhere and made read-only then stays writable for services
/// that run already.
const READ_ONLY: &str = "/run/opnix-files/read-only";

const FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Mounts it, as far as that was not done already. Takes CAP_SYS_ADMIN.
pub fn prepare(root: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(PLACE) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let (shown, memory) = (Mount::at(root)?, Mount::at(Path::new(WRITABLE))?);
    let memory = match memory {
        Some(memory) => memory.in_memory(Path::new(WRITABLE))?,
        None => {
            make(WRITABLE)?;
            match shown.as_ref() {
                // As an older opnix mounted it, or what is left of this: its files stay.
                Some(shown) => {
                    shown.in_memory(root)?;
                    bind(root, WRITABLE)?;
                    remount(WRITABLE, FLAGS)?;
                }
                None => memory_at(WRITABLE)?,
            }
            Mount::at(Path::new(WRITABLE))?.ok_or(io::ErrorKind::NotFound)?
        }
    };
    match shown {
        Some(shown) if shown.is_read_only && shown.device == memory.device => return Ok(()),
        Some(shown) if shown.device != memory.device => {
            let what = format!("{} is another mount already: unmount it", root.display());
            return Err(io::Error::other(what));
        }
        _ => {}
    }
    make(READ_ONLY)?;
    bind(Path::new(WRITABLE), READ_ONLY)?;
    remount(READ_ONLY, FLAGS | MsFlags::MS_RDONLY)?;
    fs::create_dir_all(root)?;
    bind(Path::new(READ_ONLY), root)?;
    umount2(READ_ONLY, MntFlags::MNT_DETACH)?;
    info!("mounted {} ({}, read-only)", root.display(), memory.kind);
    Ok(())
}

fn make(path: &str) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn memory_at(path: &str) -> io::Result<()> {
    // `noswap` came with Linux 6.3. A ramfs is never swapped, but has no limit.
    let tmpfs = format!("mode=0751,size={SIZE},noswap");
    if mount(Some("opnix"), path, Some("tmpfs"), FLAGS, Some(tmpfs.as_str())).is_err() {
        mount(Some("opnix"), path, Some("ramfs"), FLAGS, Some("mode=0751"))?;
    }
    Ok(())
}

fn bind<P: nix::NixPath + ?Sized>(from: &Path, to: &P) -> io::Result<()> {
    Ok(mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

fn remount(path: &str, flags: MsFlags) -> io::Result<()> {
    let flags = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
    Ok(mount(None::<&str>, path, None::<&str>, flags, None::<&str>)?)
}

/// Where a path below the root is to be written to: where it is, unless the root only shows what is in root's place.
pub fn writable(path: &Path) -> PathBuf {
    let is_mounted = || {
        let device = |path: &str| fs::metadata(path).map(|metadata| metadata.dev());
        matches!((device(PLACE), device(WRITABLE)), (Ok(place), Ok(memory)) if place != memory)
    };
    match path.strip_prefix(MIRROR_ROOT) {
        Ok(below) if is_mounted() => Path::new(WRITABLE).join(below),
        _ => path.to_owned(),
    }
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

/// Whether the memory is in its place, and shown where it is to be read.
fn is_mounted(root: &Path) -> io::Result<bool> {
    let Some(shown) = Mount::at(root)? else { return Ok(false) };
    let shown = shown.in_memory(root)?;
    let Some(memory) = Mount::at(Path::new(WRITABLE))? else { return Ok(false) };
    Ok(shown.is_read_only && shown.device == memory.device)
}

/// What is mounted somewhere, as far as it matters.
struct Mount {
    /// Of the file system: two with the same one show the same files.
    device: String,
    kind: String,
    is_read_only: bool,
}

impl Mount {
    /// The last one there, which hides those before it.
    fn at(path: &Path) -> io::Result<Option<Self>> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mut found = None;
        for line in mounts.lines() {
            let (mount, rest) = line.split_once(" - ").unwrap_or((line, ""));
            let fields: Vec<&str> = mount.split(' ').collect();
            if let [_, _, device, _, point, options, ..] = fields[..]
                && Some(point) == path.to_str()
            {
                found = Some(Self {
                    device: device.to_owned(),
                    kind: rest.split(' ').next().unwrap_or_default().to_owned(),
                    is_read_only: options.split(',').any(|option| option == "ro"),
                });
            }
        }
        Ok(found)
    }

    fn in_memory(&self, path: &Path) -> io::Result<Self> {
        let Self { device, kind, is_read_only } = self;
        if !["tmpfs", "ramfs"].contains(&kind.as_str()) {
            return Err(io::Error::other(format!(
                "{} is a mount of another kind ({kind}): secrets would be on a disk",
                path.display()
            )));
        }
        Ok(Self { device: device.clone(), kind: kind.clone(), is_read_only: *is_read_only })
    }
}
