//! The thread that writes records: to the journal, in its native form, or to standard error as text.

use std::io::{self, IoSlice, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, UnixAddr, sendmmsg};

use super::entry;
use super::queue::{Dropped, Queue};

/// Where journald takes records. The socket is systemd's: it stays while journald is restarted.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// How many records go to the journal with one call.
const AT_ONCE: usize = 64;
/// How long records are gathered, while there are few: to be woken for each of them would cost more than to write it. They are safe
/// in the queue meanwhile.
const GATHER: Duration = Duration::from_millis(20);
/// How long to wait after an error of the journal's socket.
const PAUSE: Duration = Duration::from_millis(200);

pub enum Target {
    Journal(UnixDatagram),
    Stderr,
}

impl Target {
    pub fn journal() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(JOURNAL)?;
        Ok(Self::Journal(socket))
    }

    /// Writes the first of these, as many as it can, however long that takes, and says how many.
    fn write(&self, records: &[Vec<u8>]) -> usize {
        match self {
            Self::Journal(socket) => loop {
                match send(socket, records) {
                    Ok(sent) => return sent,
                    Err(Errno::EINTR) => {}
                    // A record that does not fit is lost; records are cut so that none is.
                    Err(Errno::EMSGSIZE) => return 1,
                    Err(_) => {
                        thread::sleep(PAUSE);
                        let _ = socket.connect(JOURNAL);
                    }
                }
            },
            Self::Stderr => {
                // It does not matter if nobody reads it any more.
                let _ = io::stderr().lock().write_all(&records.concat());
                records.len()
            }
        }
    }

    fn tell(&self, dropped: Dropped) {
        let record = match self {
            Self::Journal(_) => entry::dropped(dropped),
            Self::Stderr => format!("{}\n", entry::describe_dropped(dropped)).into_bytes(),
        };
        self.write(&[record]);
    }
}

/// Waits while the journal's queue is full because journald does not read.
fn send(socket: &UnixDatagram, records: &[Vec<u8>]) -> nix::Result<usize> {
    let slices: Vec<[IoSlice<'_>; 1]> = records.iter().map(|record| [IoSlice::new(record)]).collect();
    let addresses: Vec<Option<UnixAddr>> = vec![None; records.len()];
    let mut headers = MultiHeaders::preallocate(records.len(), None);
    let flags = MsgFlags::MSG_NOSIGNAL;
    Ok(sendmmsg(socket.as_raw_fd(), &mut headers, &slices, addresses, [], flags)?.count())
}

/// Writes for as long as the process lives.
pub fn run(queue: &Queue, target: &Target) -> ! {
    loop {
        let batch = queue.front(AT_ONCE);
        if batch.records.is_empty() && batch.untold == Dropped::default() {
            // The file cannot be read for now.
            thread::sleep(PAUSE);
        }
        let mut left = &batch.records[..];
        while !left.is_empty() {
            let (written, rest) = left.split_at(target.write(left).min(left.len()));
            queue.written(written);
            left = rest;
        }
        if batch.untold != Dropped::default() {
            target.tell(batch.untold);
            queue.told(batch.untold);
        }
        if batch.are_all {
            thread::sleep(GATHER);
        }
    }
}
