//! `opnix setup` beside a stub of systemd-creds. What becomes of key and cache is in `src/cli/setup/tests.rs`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::root;

struct Place(PathBuf);

impl Place {
    fn new(name: &str, answer: &str) -> Self {
        let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("setup-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        for directory in ["store", "state"] {
            fs::create_dir_all(place.join(directory)).unwrap();
        }
        symlink(root().join("tests/cli/systemd-creds"), place.join("systemd-creds")).unwrap();
        fs::write(place.join("answer"), answer).unwrap();
        fs::write(place.join("store/opnix.cache-key"), "old").unwrap();
        fs::write(place.join("state/cache"), "sealed with old").unwrap();
        Self(place)
    }

    fn run(&self, more: &[&str]) -> Output {
        let path = format!("{}:{}", self.0.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_opnix"));
        command.arg("setup").arg("--store").arg(self.0.join("store"));
        command.args(more).env("PATH", path).output().unwrap()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_tpm_that_is_busy_costs_neither_key_nor_cache() {
    let place = Place::new("busy", "[ $try -gt 2 ] || { echo '<27>Failed to open session in TPM: tpm:warn(2.0): out of memory for session contexts' >&2; exit 1; }");
    let output = place.run(&[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!((place.read("store/opnix.cache-key"), place.read("state/cache")), ("old".into(), "sealed with old".into()));
    assert!(!place.read("calls").contains("encrypt"));
}
