//! A reload that returns when it is done, whatever the version of systemd: what `ExecReload=` runs, and what it waits for.

use std::env;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tracing::warn;

use crate::files::StateDirectory;

/// The number of the last reload that is done, and of the last that was asked for.
const DONE: &str = "reloads";
const WANTED: &str = "reloads-wanted";
/// Behind the number of one that took nothing, because the files are faulty.
const REJECTED: &str = " rejected";
/// How long one may take: the short deadline of the mirror's files, and whatever the machine needs besides.
const PATIENCE: Duration = Duration::from_secs(80);

fn number(directory: &StateDirectory, name: &str) -> u64 {
    read(directory, name).0
}

/// The number, and whether what it stands for was taken.
fn read(directory: &StateDirectory, name: &str) -> (u64, bool) {
    let text = directory.read(name).ok().flatten();
    let text = text.as_deref().and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
    let number = text.strip_suffix(REJECTED);
    (number.unwrap_or(text).parse().unwrap_or(0), number.is_none())
}

/// The reload that was asked for last: to be read before it is begun.
pub fn wanted(directory: &StateDirectory) -> u64 {
    number(directory, WANTED)
}

/// To be called when that is done, and what was asked for before it. `is_taken`: the files are what is in force now.
pub fn tell_done(directory: &StateDirectory, wanted: u64, is_taken: bool) {
    let verdict = if is_taken { "" } else { REJECTED };
    if let Err(error) = directory.replace(DONE, format!("{wanted}{verdict}").as_bytes()) {
        warn!("that a reload is done cannot be told: {error}");
    }
}

/// The main process of the unit whose `ExecReload=` this is.
pub fn main_process() -> Option<Pid> {
    env::var("MAINPID").ok()?.parse().ok().map(Pid::from_raw)
}

/// Has the running service, whose main process this is, look at everything, and waits until it has. Returns whether it took what
/// is in the files.
pub fn reload(directory: &StateDirectory, main: Pid) -> io::Result<bool> {
    let own = wanted(directory).max(number(directory, DONE)) + 1;
    let noted = directory.replace(WANTED, own.to_string().as_bytes());
    // Where there is no room for that, it is to look all the same.
    kill(main, Signal::SIGHUP)?;
    noted?;
    let end = Instant::now() + PATIENCE;
    loop {
        let (done, is_taken) = read(directory, DONE);
        if done >= own {
            return Ok(is_taken);
        }
        kill(main, None).map_err(|_| io::Error::other("it ended meanwhile"))?;
        if Instant::now() >= end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        sleep(Duration::from_millis(20));
    }
}
