//! The flake.

use std::fs;
use std::process::Command;

use crate::nix;

#[test]
fn the_flake_evaluates() {
    check_flake().unwrap_or_else(|why| panic!("{why}"));
}

/// `nix flake check --no-build`, with the stand-in for nixpkgs.
fn check_flake() -> Result<String, String> {
    let copy = nix::project().join("target/nix/flake");
    let _ = fs::remove_dir_all(&copy);
    fs::create_dir_all(&copy).expect("a directory");
    let files = ["flake.nix", "Cargo.toml", "Cargo.lock", "nixos-module", "docs/examples", "tests/nixos"];
    let copied = Command::new("cp")
        .args(["-R", "--parents"])
        .args(files)
        .arg(&copy)
        .current_dir(nix::project())
        .status();
    assert!(copied.expect("cp").success());
    let mut nix = nix::command("nix");
    nix.args([
        "--extra-experimental-features",
        "nix-command flakes",
        "flake",
        "check",
        "--no-build",
        "--no-write-lock-file",
    ]);
    nix.args(["--override-input", "nixpkgs"]).arg(format!("path:{}", copy.join("tests/nixos").display()));
    nix.arg(format!("path:{}", copy.display()));
    nix::of(nix::run(nix))
}
