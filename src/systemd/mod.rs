//! What systemd hands to us and what we tell it: sockets, state, stored descriptors.

pub mod activation;
pub mod asker;
pub mod bus;
mod exit_status;
pub mod manager;
pub mod notify;
pub mod running;
pub mod store;
pub mod time_span;
pub mod unit_files;
pub mod unit_lines;

/// Where units ask: `ListenStream=` in `systemd/opnix.socket`.
pub const SOCKET: &str = "/run/opnix/creds.sock";
