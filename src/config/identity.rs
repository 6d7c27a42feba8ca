//! Whether the files of the configuration are still those that were read.

use std::path::PathBuf;

use super::owners::{self, Untrusted, Writers};
use super::sources::expand;
use crate::files;

/// What the files were at one time. Two that are equal mean that nothing was changed, replaced, added or taken away between.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity(Vec<(PathBuf, Option<files::Identity>, Option<Untrusted>)>);

impl Identity {
    /// Of these files, and those in these directories.
    pub fn of(paths: &[PathBuf]) -> Self {
        let all = paths.iter().flat_map(|path| {
            let within = expand(path).unwrap_or_default();
            [path.clone()].into_iter().chain(within)
        });
        let program = Writers::of_the_program();
        let look = |path: PathBuf| {
            let untrusted = owners::look(&path, program).ok().flatten();
            let identity = files::Identity::of(&path);
            (path, identity, untrusted)
        };
        Self(all.map(look).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    #[test]
    fn whatever_is_done_to_the_files_shows() {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp/identity");
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(place.join("more")).unwrap();
        let (file, more) = (place.join("secrets.json"), place.join("more"));
        let paths = [file.clone(), more.clone()];
        let mut known = vec![Identity::of(&paths)];
        let mut differs = |what: &str| {
            let now = Identity::of(&paths);
            assert!(!known.contains(&now), "{what}");
            assert_eq!(now, Identity::of(&paths), "{what}");
            known.push(now);
        };
        fs::write(&file, "one").unwrap();
        differs("made");
        fs::write(&file, "three").unwrap();
        differs("written");
        fs::write(place.join("new"), "three").unwrap();
        fs::rename(place.join("new"), &file).unwrap();
        differs("replaced");
        fs::write(more.join("a.json"), "{}").unwrap();
        differs("a file in a directory");
        fs::rename(more.join("a.json"), more.join("a")).unwrap();
        differs("a file that is taken away");
        fs::rename(&file, place.join("static")).unwrap();
        symlink("static", &file).unwrap();
        differs("a link");
        fs::copy(place.join("static"), place.join("other")).unwrap();
        symlink("other", place.join("link")).unwrap();
        fs::rename(place.join("link"), &file).unwrap();
        differs("another target");
        fs::remove_dir_all(place).unwrap();
    }
}
