//! `opnix setup` beside a stub of systemd-creds. What becomes of key and cache is in `src/cli/setup/tests.rs`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use crate::root;

struct Place(PathBuf);

impl Place {
    fn new(name: &str, answer: &str) -> Self {
        let place =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("setup-{name}-{}", std::process::id()));
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
        command
            .arg("setup")
            .arg("--store")
            .arg(self.0.join("store"))
            .arg("--state")
            .arg(self.0.join("state"));
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

impl Place {
    #[track_caller]
    fn has_what_it_had(&self) {
        for (name, text) in [("store/opnix.cache-key", "old"), ("state/cache", "sealed with old")] {
            assert_eq!(self.read(name), text);
        }
        for directory in ["store", "state"] {
            assert_eq!(fs::read_dir(self.0.join(directory)).unwrap().count(), 1, "{directory}");
        }
        assert!(!self.read("calls").contains("encrypt"));
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn a_tpm_that_is_busy_costs_neither_key_nor_cache() {
    let said = "Failed to open session in TPM: tpm:warn(2.0): out of memory for session contexts";
    let place = Place::new("busy", &format!("[ $try -gt 2 ] || {{ echo '<27>{said}' >&2; exit 1; }}"));
    let output = place.run(&[]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("the key of the cache is in place"), "{}", text(&output));
    place.has_what_it_had();
}

#[test]
fn one_that_does_not_work_at_all_costs_some_seconds_and_says_what_to_do() {
    let said = "TPM2 device is in dictionary attack lockout mode.";
    let locked = Place::new("locked", &format!("echo '<27>{said}' >&2; exit 1"));
    let mute = Place::new("mute", "sleep 60");
    let began = Instant::now();
    let outputs = thread::scope(|scope| {
        [&locked, &mute].map(|place| scope.spawn(|| place.run(&[]))).map(|thread| thread.join().unwrap())
    });
    // Pauses and all, it is over before opnix-setup.service is.
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    for (place, output, why) in [(&locked, &outputs[0], said), (&mute, &outputs[1], "gave no answer within")]
    {
        let text = text(output);
        assert_eq!(output.status.code(), Some(71), "{text}");
        for part in [why, "does not open now", "left as they are", "in memory only", "opnix setup --new-key"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        place.has_what_it_had();
    }
}

#[test]
fn one_that_was_cleared_costs_no_time_and_what_it_had_sealed_is_kept() {
    let said = "Key invalid or does not belong to current TPM.";
    let place = Place::new("cleared", &format!("[ $key != old ] || {{ echo '<31>{said}' >&2; exit 1; }}"));
    let began = Instant::now();
    let output = place.run(&[]);
    assert!(output.status.success() && text(&output).contains(said), "{}", text(&output));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(place.read("store/opnix.cache-key"), "drawn-1");
    assert_eq!(place.read("store/opnix.cache-key.aside-1"), "old");
    assert_eq!(place.read("state/cache.aside-1"), "sealed with old");
    // Once more, on purpose.
    let output = place.run(&["--new-key"]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(place.read("store/opnix.cache-key"), "drawn-2");
    assert_eq!(place.read("store/opnix.cache-key.aside-2"), "drawn-1");
}
