//! Loopback servers that behave like 1Password's, with made-up accounts and with faults on command. 1Password's own
//! programs judge them (`tests/simulated/official`).

// Each user takes a part of it.
#![allow(dead_code, clippy::unwrap_used)]

pub mod account;
pub mod connect;
pub mod hook;
pub mod http;
pub mod service_account;
