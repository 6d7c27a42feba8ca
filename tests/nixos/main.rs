//! The NixOS module over a table of configurations, evaluated without nixpkgs: `lib`, `nixos` and `pkgs` stand for as much
//! of it as the module meets.

// A test that panics has failed, which is what it should do then.
#![allow(clippy::unwrap_used)]

mod examples;
mod flake;
mod home;
mod migration;
mod mistakes;
#[path = "evaluation.rs"]
mod nix;
mod options;
mod persistence;
mod units;

use serde_json::{Value, json};

/// A configuration with the module at work, and these lines within `services.onepassword-secrets`.
fn with(options: &str, others: &str) -> String {
    format!("{{ services.onepassword-secrets = {{ enable = true; {options} }}; {others} }}")
}

fn mapping(module: &str) -> Value {
    assert_eq!(nix::evaluate(module, "faults"), Ok(json!([])), "{module}");
    nix::evaluate(module, "mapping").unwrap_or_else(|why| panic!("{module}: {why}"))
}
