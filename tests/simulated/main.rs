//! The real program, with stand-ins at both ends: `simulators` for 1Password, and `daemon` for systemd, which starts the
//! service and has it believe units by their names.
//!
//! Each test has a service, a simulator and directories of its own: they run at the same time.

// A test that panics has failed, which is what it should do then.
#![allow(clippy::unwrap_used)]

mod clock;
mod commands;
mod control;
#[path = "../daemon/mod.rs"]
mod daemon;
mod helpers;
mod host;
mod memory;
mod official;
#[path = "../daemon/promtool.rs"]
mod promtool;
mod providers;
mod requests;
#[path = "../simulators/mod.rs"]
mod simulators;
mod sockets;
mod values;
