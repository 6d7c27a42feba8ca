//! Who may change the configuration. Whoever may, has files written as root: so that must be nobody but root and whoever runs
//! opnix.

use std::env;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use nix::unistd::Uid;

use crate::remedy::Remedy;

/// As many links as the kernel follows.
const LINKS_MAX: usize = 40;
/// Directories in which only the owner of a file may rename or remove it.
const STICKY: u32 = 0o1000;
/// Whose files are shown to a user namespace that does not have their owner.
const NOBODY: u32 = 65534;

/// A file or directory through which another user could change the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    #[error("{} belongs to user {owner}, who could change it", path.display())]
    Owner { path: PathBuf, owner: u32 },
    #[error("{} can be written by other users than its owner (mode {:04o})", path.display(), mode & 0o7777)]
    Mode { path: PathBuf, mode: u32 },
}

impl Remedy for Untrusted {
    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Owner { path, .. } => {
                format!("chown --no-dereference root {}, or keep the configuration elsewhere", path.display())
            }
            Self::Mode { path, .. } => format!("chmod go-w {}", path.display()),
        })
    }
}

/// Who besides root and ourselves could change this program: whoever can, could as well change what it reads. Nobody, where it is
/// installed; in a checkout, its owner.
#[derive(Debug, Default)]
pub struct Writers {
    owners: Vec<u32>,
    groups: Vec<u32>,
    everybody: bool,
}

impl Writers {
    /// As it was when this was first asked: an upgrade takes its place away.
    pub fn of_the_program() -> &'static Self {
        static WRITERS: OnceLock<Writers> = OnceLock::new();
        WRITERS.get_or_init(Self::look)
    }

    fn look() -> Self {
        let mut writers = Self::default();
        // If that is not known, nobody.
        let walked = env::current_exe().and_then(|program| {
            walk(&program, |_, metadata| {
                writers.owners.push(metadata.uid());
                if is_open(metadata, 0o020) {
                    writers.groups.push(metadata.gid());
                }
                writers.everybody |= is_open(metadata, 0o002);
                None::<()>
            })
        });
        if walked.is_ok() { writers } else { Self::default() }
    }

    fn judge(&self, path: &Path, metadata: &Metadata) -> Option<Untrusted> {
        let (owner, mode) = (metadata.uid(), metadata.mode());
        let is_ours = owner == 0 || owner == Uid::effective().as_raw() || is_from_outside(owner);
        if !is_ours && !self.owners.contains(&owner) {
            return Some(Untrusted::Owner { path: path.to_owned(), owner });
        }
        let is_writable = (is_open(metadata, 0o020) && !self.groups.contains(&metadata.gid()))
            || (is_open(metadata, 0o002) && !self.everybody);
        is_writable.then(|| Untrusted::Mode { path: path.to_owned(), mode })
    }
}

/// Whether these bits of the mode count: a link's say nothing, and in a sticky directory nobody replaces what is another's.
fn is_open(metadata: &Metadata, bits: u32) -> bool {
    let is_guarded = metadata.is_symlink() || (metadata.is_dir() && metadata.mode() & STICKY != 0);
    !is_guarded && metadata.mode() & bits != 0
}

/// Looks at a file, and at each directory and link on its way, past all links.
pub fn look(path: &Path, program: &Writers) -> io::Result<Option<Untrusted>> {
    walk(path, |at, metadata| program.judge(at, metadata))
}

/// Ends with the first thing that is found.
fn walk<T>(path: &Path, mut look: impl FnMut(&Path, &Metadata) -> Option<T>) -> io::Result<Option<T>> {
    let mut left: Vec<OsString> = components(&std::path::absolute(path)?);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    loop {
        let metadata = fs::symlink_metadata(&at)?;
        if let Some(found) = look(&at, &metadata) {
            return Ok(Some(found));
        }
        if metadata.is_symlink() {
            links += 1;
            if links > LINKS_MAX {
                return Err(io::Error::from_raw_os_error(nix::libc::ELOOP));
            }
            let target = fs::read_link(&at)?;
            at.pop();
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            left.extend(components(&target));
        }
        match left.pop() {
            None => return Ok(None),
            Some(name) if name == ".." => drop(at.pop()),
            Some(name) => at.push(name),
        }
    }
}

/// The last one first.
fn components(path: &Path) -> Vec<OsString> {
    let named = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    let mut names: Vec<OsString> = named.map(|part| part.as_os_str().to_owned()).collect();
    names.reverse();
    names
}

/// Whether this is whom the kernel shows for an owner that this user namespace does not have.
pub fn is_from_outside(owner: u32) -> bool {
    owner == NOBODY && !is_somebody(NOBODY)
}

/// A path whose links lead where nobody else could have led them; those after the first that somebody else could have put there
/// stay as they are.
pub fn past_own_links(path: &Path) -> PathBuf {
    let nobody_else = Writers::default();
    let is_safe = |way: &&Path| look(way, &nobody_else).is_ok_and(|found| found.is_none());
    let Some(way) = path.ancestors().find(is_safe) else { return path.to_owned() };
    match (way.canonicalize(), path.strip_prefix(way)) {
        (Ok(real), Ok(rest)) => real.components().chain(rest.components()).collect(),
        _ => path.to_owned(),
    }
}

/// Whether this user namespace has such a user. Otherwise it is what the kernel shows for whom it does not have, as in the sandbox of
/// a build, which has its builder alone: what they own came from outside, and nobody inside is one of them.
fn is_somebody(user: u32) -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.is_empty() || has(&map, user)
}

fn has(map: &str, user: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap_or(0_u64));
        let (first, _, count) = (numbers.next(), numbers.next(), numbers.next());
        first.zip(count).is_some_and(|(first, count)| (first..first + count).contains(&u64::from(user)))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn look(path: &Path) -> io::Result<Option<Untrusted>> {
        super::look(path, &Writers::default())
    }

    fn place(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("opnix-owners-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("below")).unwrap();
        for path in [path.clone(), path.join("below")] {
            mode(&path, 0o755);
        }
        fs::write(path.join("below/file"), "{}").unwrap();
        mode(&path.join("below/file"), 0o644);
        path
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn nobody_else_may_write_the_file_or_anything_on_its_way() {
        let place = place("modes");
        let file = place.join("below/file");
        assert_eq!(look(&file).unwrap(), None);
        for (path, wrong, right) in [
            (file.clone(), 0o666, 0o644),
            (file.clone(), 0o664, 0o600),
            (place.join("below"), 0o777, 0o1777),
            (place.join("below"), 0o775, 0o1775),
            (place.clone(), 0o722, 0o700),
        ] {
            mode(&path, wrong);
            let found = look(&file).unwrap();
            assert!(matches!(&found, Some(Untrusted::Mode { path: at, .. }) if *at == path), "{found:?}");
            mode(&path, right);
            assert_eq!(look(&file).unwrap(), None, "{path:?} {right:o}");
        }
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn the_way_leads_through_links() {
        let place = place("links");
        fs::create_dir(place.join("etc")).unwrap();
        mode(&place.join("etc"), 0o755);
        let link = place.join("etc/link");
        symlink("../below/file", &link).unwrap();
        assert_eq!(look(&link).unwrap(), None);
        mode(&place.join("below"), 0o777);
        assert!(look(&link).unwrap().is_some(), "the directory of its target");
        mode(&place.join("below"), 0o755);
        fs::remove_file(&link).unwrap();
        symlink("link", &link).unwrap();
        assert_eq!(look(&link).unwrap_err().raw_os_error(), Some(nix::libc::ELOOP));
        assert_eq!(look(&place.join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn what_belongs_to_another_user_is_not_ours() {
        if !Uid::effective().is_root() {
            return;
        }
        let place = place("owners");
        let file = place.join("below/file");
        for path in [&file, &place.join("below")] {
            chown(path, Some(12345), None).unwrap();
            assert_eq!(look(&file).unwrap(), Some(Untrusted::Owner { path: path.clone(), owner: 12345 }));
            chown(path, Some(0), None).unwrap();
        }
        // A sticky directory is for everybody, and so is whose link lies in it.
        let link = place.join("link");
        symlink(&file, &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(12345), None).unwrap();
        mode(&place, 0o1777);
        assert_eq!(look(&link).unwrap(), Some(Untrusted::Owner { path: link.clone(), owner: 12345 }));
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn who_could_write_the_program_may_write_what_it_reads_and_nobody_else() {
        let place = place("program");
        let file = place.join("below/file");
        mode(&file, 0o664);
        let gid = fs::metadata(&file).unwrap().gid();
        let of =
            |groups: &[u32], everybody| Writers { groups: groups.to_vec(), everybody, ..Writers::default() };
        assert_eq!(super::look(&file, &of(&[gid], false)).unwrap(), None);
        assert!(super::look(&file, &of(&[gid + 1], false)).unwrap().is_some());
        mode(&file, 0o666);
        assert!(super::look(&file, &of(&[gid], false)).unwrap().is_some());
        assert_eq!(super::look(&file, &of(&[gid], true)).unwrap(), None);
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_user_namespace_says_whom_it_has() {
        let whole = "         0          0 4294967295\n";
        assert!(has(whole, 0) && has(whole, NOBODY));
        let builder = "      1000        30001          1\n";
        assert!(has(builder, 1000) && !has(builder, 0) && !has(builder, NOBODY));
        let container = "0 100000 65536\n";
        assert!(has(container, NOBODY) && !has("0 100000 65534\n", NOBODY));
    }
}
