//! The control socket: what administrators ask of the running service, over varlink (<https://varlink.org>).

pub mod answers;
mod connection;
pub mod counts;
mod error;
pub mod interface;
mod pages;
pub mod report;
pub mod server;
pub mod teller;
pub mod unserved;

/// Where it listens: `ListenStream=` in `systemd/opnix-control.socket`.
pub const SOCKET: &str = "/run/opnix/control.sock";
