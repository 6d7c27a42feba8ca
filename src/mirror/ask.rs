//! Asking the service for values, exactly as systemd does.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zeroize::Zeroizing;

use crate::names::CREDENTIALS_MAX;
use crate::policy::MIRROR;
use crate::secret::Secret;
use crate::systemd::asker;

/// How many values are asked for at a time.
const AT_ONCE: usize = 256;
/// How many times to ask again after a connection ended without a byte: that is not an answer, the service was
/// restarted.
const TRIES: usize = 3;
/// How long an answer that has begun may take.
const ANSWER: Duration = Duration::from_secs(10);

/// How long all of them may take.
const LONGEST: Duration = Duration::from_secs(60);

/// How long nothing else is done while values are waited for.
const MOMENT: Duration = Duration::from_millis(200);

/// How long to wait for values.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until the first one comes.
    pub first: Duration,
    /// For the others, after the last one that came: one that is missing holds up nobody else.
    pub others: Duration,
}

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoValue {
    /// The service said so. It goes on looking for it, and tells when it is there.
    Refused,
    /// It did not come in time; the same holds.
    Late,
    /// The service does not answer.
    NoService(String),
}

/// Asks for all of these. `take` gets each value when it comes, and `None` from time to time; what is returned are those that did not
/// come.
pub fn ask(
    socket: &Path,
    names: &[String],
    patience: Patience,
    mut take: impl FnMut(Option<(&str, Arc<Secret>)>),
) -> BTreeMap<String, NoValue> {
    let mut missing = BTreeMap::new();
    let mut buffer = Zeroizing::new(vec![0; CREDENTIALS_MAX + 1]);
    // However many there are.
    let limit = Instant::now() + LONGEST;
    let mut end = Instant::now() + patience.first;
    for names in names.chunks(AT_ONCE) {
        // All connections are made before the first answer is read, so that the service can fetch them together.
        let mut open = Vec::new();
        for name in names {
            match asker::connect_as(socket, MIRROR, name) {
                Ok(stream) => open.push((name, stream)),
                Err(error) => drop(missing.insert(name.clone(), no_service(socket, &error))),
            }
        }
        end = end.max(Instant::now() + patience.others.min(patience.first));
        while !open.is_empty() {
            let left = end.min(limit).saturating_duration_since(Instant::now());
            let ready = readable(&open, left.min(MOMENT));
            take(None);
            if ready.is_empty() && left.is_zero() {
                break;
            }
            for index in ready.into_iter().rev() {
                let (name, stream) = open.swap_remove(index);
                match answer(socket, name, stream, &mut buffer) {
                    Ok(value) => {
                        take(Some((name, value)));
                        end = Instant::now() + patience.others;
                    }
                    Err(why) => drop(missing.insert(name.clone(), why)),
                }
            }
        }
        missing.extend(open.into_iter().map(|(name, _)| (name.clone(), NoValue::Late)));
    }
    missing
}

/// Which of them can be read from, in ascending order; none if that takes longer.
fn readable(open: &[(&String, UnixStream)], patience: Duration) -> Vec<usize> {
    let mut watched: Vec<_> =
        open.iter().map(|(_, stream)| PollFd::new(stream.as_fd(), PollFlags::POLLIN)).collect();
    // A millisecond more, so that it does not end before its time.
    let limit = PollTimeout::try_from(patience + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    match poll(&mut watched, limit) {
        Ok(_) | Err(Errno::EINTR) => {}
        // To read is all that is left to find out more.
        Err(_) => return (0..open.len()).collect(),
    }
    let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
    watched.iter().enumerate().filter(|(_, fd)| is_ready(fd)).map(|(index, _)| index).collect()
}

fn answer(socket: &Path, name: &str, stream: UnixStream, buffer: &mut [u8]) -> Result<Arc<Secret>, NoValue> {
    let read = || {
        let mut length = read_all(stream, buffer)?;
        for _ in 0..TRIES {
            if length > 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
            length = read_all(asker::connect_as(socket, MIRROR, name)?, buffer)?;
        }
        match length {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length if length > CREDENTIALS_MAX => Ok(None),
            length => Secret::copy_from(&buffer[..length]).map(Some).map_err(io::Error::other),
        }
    };
    match read() {
        Ok(Some(value)) => Ok(Arc::new(value)),
        Ok(None) => Err(NoValue::Refused),
        Err(error) => Err(no_service(socket, &error)),
    }
}

fn no_service(socket: &Path, error: &io::Error) -> NoValue {
    NoValue::NoService(format!("the service does not answer on {}: {error}", socket.display()))
}

fn read_all(mut stream: UnixStream, buffer: &mut [u8]) -> io::Result<usize> {
    stream.set_read_timeout(Some(ANSWER))?;
    let mut length = 0;
    while length < buffer.len() {
        match stream.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
