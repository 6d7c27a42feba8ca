//! `/run/secrets`, or what `mirror_root` says: memory that is never swapped, which root writes in a place of its own, and which
//! owners only read: whoever could write to a file of his there could fill the memory of all.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::Uid;
use tracing::info;

use super::{install, way};
use crate::config::MIRROR_ROOT;
use crate::scope;
use crate::systemd::manager::Manager;

/// The unit that mounts it: the mirror has no right to.
const UNIT: &str = "opnix-mount.service";
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much all files may take together, where the kernel can limit it.
const SIZE: &str = "64m";
/// What is mounted is ours if it says so.
const SOURCE: &str = "opnix";

/// Root's place, which nobody else may enter.
const PLACE: &str = "/run/opnix-files";
/// The memory in it, to be written to.
const WRITABLE: &str = "/run/opnix-files/memory";
/// Where it is made what it is to be before anybody sees it: what is attached elsewhere and then made read-only, or writable, stays
/// as it was for services that run already.
const STAGE: &str = "/run/opnix-files/stage";
/// A link to where it is shown.
const SHOWN: &str = "/run/opnix-files/shown";

const FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Mounts it, as far as that was not done already. Takes CAP_SYS_ADMIN.
pub fn prepare(root: &Path) -> io::Result<()> {
    if !scope::has_systems_manager() {
        return users(root, true);
    }
    match DirBuilder::new().mode(0o700).create(PLACE) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => fs::set_permissions(PLACE, Permissions::from_mode(0o700))?,
    }
    look(root)?;
    // An older opnix left no such link.
    let before = fs::read_link(SHOWN).unwrap_or_else(|_| MIRROR_ROOT.into());
    if before != root && Mount::ours(&before).is_ok_and(|mount| mount.is_some()) {
        unmount(&before)?;
    }
    let (shown, memory) = (Mount::ours(root)?, Mount::ours(Path::new(WRITABLE))?);
    let memory = match memory {
        Some(memory) => memory,
        None => {
            make(WRITABLE)?;
            if shown.is_some() {
                // As an older opnix mounted it, or what is left of this: its files stay.
                show(root, FLAGS, Path::new(WRITABLE))?;
            } else {
                memory_at(WRITABLE)?;
            }
            // What is mounted over the other one would be over this, too.
            mount(None::<&str>, WRITABLE, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
            Mount::ours(Path::new(WRITABLE))?.ok_or(io::ErrorKind::NotFound)?
        }
    };
    if self::shown().as_deref() != Some(root) {
        let _ = fs::remove_file(SHOWN);
        symlink(root, SHOWN)?;
    }
    if shown.is_some_and(|shown| shown.is_read_only && shown.device == memory.device) {
        return Ok(());
    }
    fs::create_dir_all(root)?;
    show(Path::new(WRITABLE), FLAGS | MsFlags::MS_RDONLY, root)?;
    info!("mounted {} ({}, read-only)", root.display(), memory.kind);
    Ok(())
}

/// A user mounts nothing: a directory in memory that is that user's alone, as it is in `$XDG_RUNTIME_DIR`. What is there may be
/// swapped to a disk, as all that the user's programs have.
fn users(root: &Path, makes: bool) -> io::Result<()> {
    let shown = root.display();
    let runtime = scope::runtime_directory();
    if !root.starts_with(&runtime) || root == runtime {
        return Err(io::Error::other(format!(
            "{shown} is not below {}, which is in memory and gone after the logout\nname a directory there as \"mirror_root\", or none",
            runtime.display()
        )));
    }
    let opened = way::parent(&root.join("file"), makes.then(Uid::effective)).map(|(directory, _)| directory);
    let directory = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::other(format!("{shown} is not there")),
        _ => error,
    })?;
    if !install::in_memory(&directory)? {
        return Err(io::Error::other(format!(
            "{shown} is on a disk, where secrets would stay in plain text\nsee why it is no tmpfs: findmnt -T {shown}"
        )));
    }
    Ok(())
}

/// Takes it away from where it was, with all that is in it.
fn unmount(root: &Path) -> io::Result<()> {
    for path in [root, Path::new(STAGE), Path::new(WRITABLE)] {
        while Mount::ours(path)?.is_some() {
            umount2(path, MntFlags::MNT_DETACH)?;
        }
    }
    info!("unmounted {}: the files are to be elsewhere", root.display());
    // Where somebody else put something, it stays.
    let _ = fs::remove_dir(root);
    Ok(())
}

/// Where our memory is mounted, all copies of it.
pub fn mounted() -> io::Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mounts.lines().filter_map(place_of_ours).collect())
}

/// Of a line of mountinfo, the place, if our memory is mounted there.
fn place_of_ours(line: &str) -> Option<PathBuf> {
    let (mount, described) = line.split_once(" - ")?;
    let mut described = described.split(' ');
    let (kind, source) = (described.next()?, described.next()?);
    let is_ours = source == SOURCE && ["tmpfs", "ramfs"].contains(&kind);
    // The kernel writes what would end a word as three octal digits.
    let unescaped = ["\\040", "\\011", "\\012", "\\134"].iter().zip([" ", "\t", "\n", "\\"]);
    let place =
        unescaped.fold(mount.split(' ').nth(4)?.to_owned(), |path, (code, is)| path.replace(code, is));
    is_ours.then(|| place.into())
}

/// Takes the memory away from everywhere, with all that is in it: removed first, because who has a view of the mounts of its own, or
/// a file open, may keep the memory itself. Returns what could not be done.
pub fn take_away() -> Vec<String> {
    let mut troubles = Vec::new();
    let mut note = |path: &Path, error: io::Error| troubles.push(format!("{}: {error}", path.display()));
    if Mount::ours(Path::new(WRITABLE)).is_ok_and(|mount| mount.is_some()) {
        for entry in fs::read_dir(WRITABLE).into_iter().flatten().flatten() {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let path = entry.path();
            let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.unwrap_or_else(|error| note(&path, error));
        }
    }
    // What is mounted over another is unmounted first, and then it shows.
    let mut places = mounted().unwrap_or_default();
    places.reverse();
    for place in places {
        umount2(&place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .unwrap_or_else(|error| note(&place, error.into()));
        // Where somebody else put something, it stays.
        let _ = fs::remove_dir(&place);
    }
    troubles
}

/// Whether files that are written in root's place go into our memory, and not beside it: it may have been taken away a moment ago.
pub fn is_there() -> bool {
    let device = |path: &str| fs::symlink_metadata(path).map(|there| there.dev());
    matches!((device(WRITABLE), device(PLACE)), (Ok(memory), Ok(place)) if memory != place)
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
    if mount(Some(SOURCE), path, Some("tmpfs"), FLAGS, Some(tmpfs.as_str())).is_err() {
        mount(Some(SOURCE), path, Some("ramfs"), FLAGS, Some("mode=0751"))?;
    }
    Ok(())
}

/// Shows what is mounted at one place at another one as well, with these flags.
fn show(from: &Path, flags: MsFlags, at: &Path) -> io::Result<()> {
    let none = None::<&str>;
    make(STAGE)?;
    // What one that was killed left.
    while Mount::ours(Path::new(STAGE))?.is_some() {
        umount2(STAGE, MntFlags::MNT_DETACH)?;
    }
    mount(Some(from), STAGE, none, MsFlags::MS_BIND, none)?;
    mount(none, STAGE, none, MsFlags::MS_PRIVATE, none)?;
    let shown = mount(none, STAGE, none, flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT, none)
        .and_then(|()| mount(Some(STAGE), at, none, MsFlags::MS_BIND, none));
    umount2(STAGE, MntFlags::MNT_DETACH)?;
    Ok(shown?)
}

/// Where it is shown; `None` if it never was, or is a user's, or only root may know.
pub fn shown() -> Option<PathBuf> {
    scope::has_systems_manager().then(|| fs::read_link(SHOWN))?.ok()
}

/// Where a path below the root is to be written to: in root's place, which the root only shows, if it is not a user's.
pub fn writable(path: &Path, root: &Path) -> PathBuf {
    if !scope::has_systems_manager() {
        return path.to_owned();
    }
    path.strip_prefix(root).map_or_else(|_| path.to_owned(), |below| Path::new(WRITABLE).join(below))
}

/// Why no file can be put there. `mounts`: it is mounted now if it can be.
pub fn trouble(root: &Path, mounts: bool) -> Option<String> {
    if !scope::has_systems_manager() {
        return users(root, mounts).err().map(|error| error.to_string());
    }
    let is_mounted = match is_mounted(root) {
        Ok(false) if mounts => have_mounted(root),
        known => known,
    };
    let shown = root.display();
    match is_mounted {
        Ok(true) => None,
        Ok(false) => Some(format!("{shown} is not mounted; see systemctl status {UNIT}")),
        Err(error) => Some(error.to_string()),
    }
}

fn have_mounted(root: &Path) -> io::Result<bool> {
    Manager::connect()?.queue("RestartUnit", UNIT, "replace")?;
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if is_mounted(root)? {
            return Ok(true);
        }
        sleep(Duration::from_millis(50));
    }
    Ok(false)
}

/// Whether the memory is in its place, and shown where it is to be read.
fn is_mounted(root: &Path) -> io::Result<bool> {
    look(root)?;
    let Some(shown) = Mount::ours(root)? else { return Ok(false) };
    let Some(memory) = Mount::ours(Path::new(WRITABLE))? else { return Ok(false) };
    Ok(shown.is_read_only && !memory.is_read_only && shown.device == memory.device)
}

/// Fails if somebody else holds that place, or could take it.
fn look(root: &Path) -> io::Result<()> {
    let trouble = |what: String| {
        io::Error::other(format!(
            "{what}\nif another tool keeps its secrets there, give opnix a directory of its own: \"mirror_root\" in secrets.json"
        ))
    };
    let mut way: Vec<&Path> = root.ancestors().collect();
    way.reverse();
    for step in way {
        let there = match step.symlink_metadata() {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let shown = step.display();
        if there.is_symlink() {
            let target = fs::read_link(step).unwrap_or_default();
            let target = target.display();
            return Err(trouble(format!("{shown} is a symlink to {target}, which opnix did not make")));
        }
        if !is_roots(&there) {
            return Err(trouble(format!("{shown} is no directory that only root can write to")));
        }
    }
    if Mount::ours(root)?.is_some() {
        return Ok(());
    }
    // It may lead to where our memory was shown before.
    let before = shown();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if before.as_ref().is_none_or(|before| !before.starts_with(entry.path())) {
            return Err(trouble(format!(
                "{} holds what opnix did not put there ({:?} first): it is not mounted over",
                root.display(),
                entry.file_name()
            )));
        }
    }
    Ok(())
}

fn is_roots(there: &Metadata) -> bool {
    there.is_dir() && there.uid() == 0 && there.mode() & 0o022 == 0
}

/// What is mounted somewhere, as far as it matters.
struct Mount {
    /// Of the file system: two with the same one show the same files.
    device: String,
    kind: String,
    is_read_only: bool,
}

impl Mount {
    /// The last one there, which hides those before it. Fails if it is not ours.
    fn ours(path: &Path) -> io::Result<Option<Self>> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mut found = None;
        for line in mounts.lines() {
            let (mount, rest) = line.split_once(" - ").unwrap_or((line, ""));
            let fields: Vec<&str> = mount.split(' ').collect();
            if let [_, _, device, _, point, options, ..] = fields[..]
                && Some(point) == path.to_str()
            {
                let is_read_only = options.split(',').any(|option| option == "ro");
                found = Some((rest, Self { device: device.to_owned(), kind: String::new(), is_read_only }));
            }
        }
        let Some((rest, mount)) = found else { return Ok(None) };
        let described: Vec<&str> = rest.split(' ').collect();
        let [kind, source, options] = described[..] else { return Err(io::ErrorKind::InvalidData.into()) };
        let is_in_memory =
            kind == "ramfs" || kind == "tmpfs" && options.split(',').any(|option| option == "noswap");
        let trouble = match (source == SOURCE, is_in_memory) {
            (true, true) => return Ok(Some(Self { kind: kind.to_owned(), ..mount })),
            (true, false) => "may be swapped to a disk",
            (false, _) => "is not opnix's",
        };
        Err(io::Error::other(format!(
            "what is mounted at {path} {trouble} (a {kind} of {source:?})\n\
             umount {path}; or, if another tool keeps its secrets there, give opnix a directory of its own: \
             \"mirror_root\" in secrets.json",
            path = path.display(),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_memory_is_found_wherever_it_is_mounted_and_nobody_elses() {
        let line = |place: &str, kind: &str, source: &str| {
            format!("36 35 0:44 / {place} ro,nosuid master:1 - {kind} {source} rw,mode=751,noswap")
        };
        let found = |place, kind, source| place_of_ours(&line(place, kind, source));
        assert_eq!(found("/run/secrets", "tmpfs", "opnix"), Some("/run/secrets".into()));
        assert_eq!(found("/a\\040b\\134c", "ramfs", "opnix"), Some("/a b\\c".into()));
        assert_eq!(found("/run/secrets", "tmpfs", "sops"), None);
        assert_eq!(found("/run/secrets", "ext4", "opnix"), None);
    }
}
