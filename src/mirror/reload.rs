//! `systemctl reload opnix-mirror`: returns when every file that can be had now is written.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::files::StateDirectory;

/// Counts the reloads that are done.
const FILE: &str = "reloads";
/// How long one may take: the short deadline, and whatever the machine needs besides.
const PATIENCE: Duration = Duration::from_secs(80);

/// How many reloads were done.
pub fn count(directory: &StateDirectory) -> u64 {
    let text = directory.read(FILE).ok().flatten();
    text.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok()).unwrap_or(0)
}

pub fn done(directory: &StateDirectory) -> io::Result<()> {
    directory.replace(FILE, (count(directory) + 1).to_string().as_bytes())
}

/// Has the running mirror, whose main process this is, look at everything, and waits until it has.
pub fn reload(directory: &StateDirectory, main: Pid) -> io::Result<()> {
    let before = count(directory);
    kill(main, Signal::SIGHUP)?;
    let end = Instant::now() + PATIENCE;
    while count(directory) == before {
        kill(main, None).map_err(|_| io::Error::other("the mirror ended meanwhile"))?;
        if Instant::now() >= end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}
