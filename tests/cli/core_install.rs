//! `opnix core install`: 1Password's core from the wheel that `tests/run` has got.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const LIBRARY: &str = "libop_uniffi_core.so";

/// An empty directory of this test's own.
fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("core-{name}"));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).unwrap();
    path
}

fn got() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/core");
    assert!(path.join(LIBRARY).exists(), "{} is empty: tests/run fills it", path.display());
    path
}

fn wheel() -> PathBuf {
    let mut paths = fs::read_dir(got()).unwrap().map(|entry| entry.unwrap().path());
    paths.find(|path| path.extension().is_some_and(|extension| extension == "whl")).unwrap()
}

fn install(source: &Path, to: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_opnix"));
    command.args(["core", "install"]).arg(source).arg("--to").arg(to).output().unwrap()
}

fn refused(output: &Output, says: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(text.contains(says), "{text}");
}

#[test]
fn the_library_of_a_wheel_is_put_in_place_and_replaces_what_was_there() {
    let to = directory("wheel");
    fs::write(to.join(LIBRARY), "an old one").unwrap();
    let output = install(&wheel(), &to);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.starts_with("installed 1Password's core 0.4.2"), "{said}");
    assert_eq!(fs::read(to.join(LIBRARY)).unwrap(), fs::read(got().join(LIBRARY)).unwrap());
    assert_eq!(fs::read_dir(&to).unwrap().count(), 1, "nothing else is left there");
}

#[test]
fn a_library_with_another_sum_is_not_installed() {
    let (from, to) = (directory("changed"), directory("unchanged"));
    let mut library = fs::read(got().join(LIBRARY)).unwrap();
    *library.last_mut().unwrap() ^= 1;
    fs::write(from.join(LIBRARY), library).unwrap();
    refused(&install(&from, &to), "not a version of the library that opnix knows");
    refused(&install(&from.join(LIBRARY), &to), "SHA-256");
    assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
}

#[test]
fn what_holds_no_library_is_said_to_hold_none() {
    let (from, to) = (directory("nothing"), directory("nowhere"));
    refused(&install(&from, &to), "give a wheel of onepassword-sdk");
    fs::write(from.join("cut-off.whl"), &fs::read(wheel()).unwrap()[..100_000]).unwrap();
    refused(&install(&from, &to), "cut-off.whl cannot be read");
    refused(&install(&from.join("missing"), &to), "missing cannot be read: No such file");
    assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
}

/// Small as a file, and a hundred times as large in memory if all of it is unpacked at once.
#[test]
fn a_wheel_that_unpacks_to_too_much_is_refused_before_it_is_unpacked() {
    let (from, to) = (directory("bomb"), directory("unbombed"));
    let bomb = "import sys, zipfile\n\
                with zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED) as wheel:\n  \
                for number in range(12): wheel.writestr(f'{number}/libop_uniffi_core.so', bytes(32 << 20))";
    let wheel = from.join("bomb.whl");
    let made = Command::new("python3").args(["-c", bomb]).arg(&wheel).status().unwrap();
    assert!(made.success());
    let command =
        format!("ulimit -v 400000; exec \"$0\" core install {} --to {}", wheel.display(), to.display());
    let output = Command::new("sh").args(["-c", &command, env!("CARGO_BIN_EXE_opnix")]).output().unwrap();
    refused(&output, "it has 12 libraries of that name");
    assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
}
