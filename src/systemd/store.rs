//! What is stored with systemd: connections, each by a name of its own.

use std::os::fd::AsFd;

use nix::sys::stat::fstat;

/// The names of our connections in the store: this and the socket's inode number, which is unique while it lives.
pub const PREFIX: &str = "request-";
/// `FileDescriptorStoreMax=` of `systemd/opnix.service` (a test compares them). systemd 254 and later say it in `$FDSTORE`.
pub const STORE_MAX: usize = 4096;

/// What systemd is told with a connection that it is to store. `FDPOLL=0`: it must not drop one by itself when the peer
/// hangs up, so that our count of them stays right.
pub fn message(name: &str) -> String {
    format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0")
}

/// The name of a connection in the store.
pub fn name_of(connection: &impl AsFd) -> String {
    let inode = fstat(connection).map_or(0, |file| file.st_ino);
    format!("{PREFIX}{inode}")
}
