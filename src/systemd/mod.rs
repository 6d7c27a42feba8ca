//! What systemd hands to us and what we tell it: sockets, state, stored descriptors.

pub mod activation;
pub mod asker;
pub mod bus;
mod exit_status;
pub mod manager;
pub mod notify;
pub mod reload;
pub mod running;
pub mod store;
pub mod time_span;
pub mod unit_files;
pub mod unit_lines;

/// Where units ask: `ListenStream=` in `systemd/opnix.socket`.
pub const SOCKET: &str = "/run/opnix/creds.sock";

/// While this file is there, systemd starts none of opnix's units: `AssertPathExists=` in each of them. `opnix purge` makes it.
pub const PURGED: &str = "/etc/opnix/purged";
/// What is wrong then, and what to do about it.
pub const PURGED_SAYS: &str =
    "`opnix purge` took opnix's secrets from this machine, and systemd starts no unit of opnix since";
pub const UNPURGE: &str =
    "rm /etc/opnix/purged; systemctl start opnix.socket opnix-control.socket opnix-mirror.service";

pub fn is_purged() -> bool {
    std::path::Path::new(PURGED).exists()
}
