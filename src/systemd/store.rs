//! What is stored with systemd: connections, each by a name of its own.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::stat::fstat;

use crate::moment::Moment;

/// The names of our connections in the store: this, the socket's inode number, which is unique while it lives, and since when
/// its peer waits.
pub const PREFIX: &str = "request-";
/// `FileDescriptorStoreMax=` of `systemd/opnix.service` (a test compares them). systemd 254 and later say it in `$FDSTORE`.
pub const STORE_MAX: usize = 4096;

/// What systemd is told with a connection that it is to store. `FDPOLL=0`: it must not drop one by itself when the peer
/// hangs up, so that our count of them stays right.
pub fn message(name: &str) -> String {
    format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0")
}

/// The name of a connection in the store, with the moment of its request, in milliseconds.
pub fn name_of(connection: &impl AsFd, since: Moment) -> String {
    let inode = fstat(connection).map_or(0, |file| file.st_ino);
    format!("{PREFIX}{inode}-{}", since.since(Moment::BOOT).as_millis())
}

/// The moment of the request of this name. An instance of an earlier version does not say it.
pub fn moment_of(name: &str) -> Option<Moment> {
    let (_, since) = name.strip_prefix(PREFIX)?.split_once('-')?;
    Some(Moment::BOOT + Duration::from_millis(since.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_stored_request_tells_since_when_it_waits() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let since = Moment::BOOT + Duration::from_millis(1_234_567);
        let name = name_of(&ours, since);
        assert!(name.starts_with(PREFIX) && name.ends_with("-1234567"), "{name}");
        assert_eq!(moment_of(&name), Some(since));
        for older_or_foreign in
            ["request-1", "request-", "request-1-", "request-1--5", "foreign", "foreign-1-2"]
        {
            assert_eq!(moment_of(older_or_foreign), None, "{older_or_foreign}");
        }
        assert!(moment_of(&format!("request-1-{}", u64::MAX)).is_some());
    }
}
