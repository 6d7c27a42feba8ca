//! What the kernel says about the process at the other end of a connection.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use pidfd_util::{PidFd, PidFdExt};

use super::unidentified::Unidentified;

/// The longest content of `/proc/PID/cgroup` that is looked at, in bytes: far above what its path limits allow.
pub const CGROUP_MAX: usize = 16 << 10;

/// An error that is about us, not about the peer.
pub fn is_shortage(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS | Errno::EINTR | Errno::EAGAIN
    )
}

/// Reads the file in one go; `fs::read_to_string` takes six system calls, which show in the latency of an answer.
pub fn read_cgroup(pid: i32, buffer: &mut [u8; CGROUP_MAX]) -> Result<&str, Unidentified> {
    let read = File::open(format!("/proc/{pid}/cgroup")).and_then(|mut file| {
        loop {
            match file.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    });
    let length = read.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        // ESRCH: the process ended between open and read.
        Some(Errno::ENOENT | Errno::ESRCH) => Unidentified::Gone,
        Some(errno) if is_shortage(errno) => Unidentified::Kernel(errno),
        _ => Unidentified::NoCgroup,
    })?;
    whole_text(buffer, length).ok_or(Unidentified::NoCgroup)
}

/// What fills the buffer may be cut off, and a path cut off is another path.
fn whole_text(buffer: &[u8; CGROUP_MAX], length: usize) -> Option<&str> {
    let whole = buffer[..length].strip_suffix(b"\n").filter(|_| length < CGROUP_MAX)?;
    std::str::from_utf8(whole).ok()
}

/// Holds on to the peer's process, so that its PID cannot come to mean another one unnoticed.
#[derive(Debug)]
pub enum Pin {
    Process(OwnedFd),
    /// Linux before 6.5: a peer that ends while we look, and whose PID goes to a process of the claimed unit at once,
    /// would pass. It cannot read the answer unless it shares its socket, and it is root in any case.
    Unavailable,
}

impl Pin {
    /// With the kernel's number of the cgroup that the process is in, where the kernel says that.
    pub fn of(stream: &UnixStream) -> Result<(Self, Option<u64>), Unidentified> {
        match getsockopt(stream, sockopt::PeerPidfd) {
            Ok(process) => {
                let process = PidFd::from(process);
                let cgroup = process.get_cgroupid().ok();
                Ok((Self::Process(process.into()), cgroup))
            }
            Err(Errno::ENOPROTOOPT) => Ok((Self::Unavailable, None)),
            // ESRCH from Linux 6.16 on, EINVAL before.
            Err(Errno::ESRCH | Errno::EINVAL | Errno::ENODATA) => Err(Unidentified::Gone),
            Err(errno) => Err(Unidentified::Kernel(errno)),
        }
    }

    pub fn still_holds(&self) -> Result<bool, Unidentified> {
        let Self::Process(process) = self else { return Ok(true) };
        let mut end = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut end, PollTimeout::ZERO) {
                Ok(0) => return Ok(true),
                // A pidfd becomes readable when its process ends.
                Ok(_) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Unidentified::Kernel(errno)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::cgroup::unified_path;

    #[test]
    fn a_cgroup_file_that_may_be_cut_off_says_nothing() {
        let unit = "0::/system.slice/victim.service";
        // Other hierarchies come first, and this line is filled up so that the whole has that many bytes.
        let up_to = |length: usize, last: &str| {
            let filling = length - "1:name=systemd:/\n".len() - last.len();
            format!("1:name=systemd:/{}\n{last}", "x".repeat(filling))
        };
        let read = |content: &str| {
            let mut buffer = [0; CGROUP_MAX];
            let length = content.len().min(CGROUP_MAX);
            buffer[..length].copy_from_slice(&content.as_bytes()[..length]);
            whole_text(&buffer, length).map(str::to_owned)
        };
        let whole = read(&up_to(CGROUP_MAX - 1, &format!("{unit}\n")));
        assert_eq!(whole.as_deref().and_then(unified_path), Some("/system.slice/victim.service"));
        for (cut_off, what) in [
            (up_to(CGROUP_MAX, unit) + "-of-another.service\n", "in the middle of the unit's name"),
            (up_to(CGROUP_MAX, &format!("{unit}\n")) + "0::/elsewhere\n", "after a line"),
            (up_to(CGROUP_MAX, &format!("{unit}\n")), "or perhaps not at all"),
            (up_to(CGROUP_MAX + 1, &format!("{unit}\n")), "before the last line end"),
        ] {
            assert_eq!(read(&cut_off), None, "cut off {what}");
        }
        assert_eq!(read(unit), None, "without a line end it is not whole either");
    }
}
