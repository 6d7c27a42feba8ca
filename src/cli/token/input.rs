//! Takes a token from whoever gives it: typed or pasted at a terminal, which does not show it, or from standard input.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use zeroize::Zeroizing;

use crate::cli::output::to_stderr;
use crate::providers::child::token::SIZE_MAX;

/// What a terminal gives of one line, in bytes: the rest it drops without a word.
const TERMINAL_MAX: usize = 4095;
/// How long something may still come after the line, in milliseconds: whoever holds the other end open may never say more.
const REST: u16 = 200;
/// What some editors write before text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// What ends the program while it waits for the token.
const ENDS: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

type Text = Zeroizing<Vec<u8>>;

/// The token as it was given, without the white space around it; or why it cannot be one.
pub fn take() -> Result<Text, String> {
    let input = io::stdin();
    // Not through the standard library's buffer, which nobody wipes.
    let text = if input.is_terminal() { ask(input.as_fd()) } else { read(input.as_fd()) };
    only_line(&text.map_err(|error| format!("the token cannot be read: {error}"))?)
}

/// The one line that there is. What is wrong is said without a word of it.
fn only_line(text: &[u8]) -> Result<Text, String> {
    let line = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text).trim_ascii();
    let again = |what: &str| Err(format!("that is not a token, {what}\ncopy it again from 1Password, whole"));
    if line.is_empty() {
        return Err("no token was given: copy it from 1Password, whole".to_owned());
    }
    if line.iter().any(|byte| b"\r\n".contains(byte)) {
        return again("which has exactly one line");
    }
    if !line.iter().all(u8::is_ascii_graphic) {
        return again("which has neither spaces nor anything but plain ASCII in it");
    }
    Ok(Zeroizing::new(line.to_vec()))
}

/// Standard input up to the end of its first line, and what comes right after that.
fn read(input: BorrowedFd<'_>) -> io::Result<Text> {
    let mut file = File::from(input.try_clone_to_owned()?);
    let mut text = Buffer::new();
    // A line that nothing follows for a moment is all there is.
    while !text.has_more_than_a_line() && (!text.has_a_line() || is_readable(input, REST)?) {
        if text.fill(&mut file)? == 0 {
            break;
        }
    }
    Ok(text.finish())
}

/// A line from a terminal that does not show what is typed.
fn ask(terminal: BorrowedFd<'_>) -> io::Result<Text> {
    let ends: SigSet = ENDS.into_iter().collect();
    ends.thread_block()?;
    let asked = ask_undisturbed(terminal, &ends);
    // By now the terminal is as it was.
    let unblocked = ends.thread_unblock();
    match asked? {
        Ok(text) => unblocked.map(|()| text).map_err(io::Error::from),
        Err(signal) => {
            raise(signal)?;
            Err(Errno::EINTR.into())
        }
    }
}

/// The line, or the signal that came instead.
fn ask_undisturbed(terminal: BorrowedFd<'_>, ends: &SigSet) -> io::Result<Result<Text, Signal>> {
    let signals = SignalFd::with_flags(ends, SfdFlags::SFD_CLOEXEC)?;
    let _quiet = Quiet::new(terminal)?;
    to_stderr(format_args!("Paste the token, which is not shown, then Enter: "));
    let mut file = File::from(terminal.try_clone_to_owned()?);
    let mut text = Buffer::new();
    loop {
        let mut fds =
            [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(terminal, PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if fds[0].any() == Some(true)
            && let Some(signal) = signals.read_signal()?
        {
            to_stderr(format_args!("\n"));
            let signal = i32::try_from(signal.ssi_signo).unwrap_or_default();
            return Ok(Err(Signal::try_from(signal)?));
        }
        if fds[1].any() != Some(true) {
            continue;
        }
        let read = text.fill(&mut file)?;
        // An Enter by itself is an answer, too.
        if text.read().contains(&b'\n') || read == 0 {
            break;
        }
    }
    if text.length >= TERMINAL_MAX {
        return Err(io::Error::other(
            "a terminal gives no line as long as that: give it from a file or a pipe, as standard input",
        ));
    }
    // Lines that were pasted after it.
    while !text.has_more_than_a_line() && is_readable(terminal, 0)? && text.fill(&mut file)? > 0 {}
    Ok(Ok(text.finish()))
}

/// Whether there is something to read, or the end, within so many milliseconds.
pub fn is_readable(input: BorrowedFd<'_>, within: u16) -> io::Result<bool> {
    loop {
        match poll(&mut [PollFd::new(input, PollFlags::POLLIN)], within) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What was read so far. It has its final size from the start, so that no copy is left behind.
struct Buffer {
    bytes: Text,
    length: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: Zeroizing::new(vec![0; SIZE_MAX + 1]), length: 0 }
    }

    /// How much came, 0 at the end.
    fn fill(&mut self, from: &mut File) -> io::Result<usize> {
        let read = loop {
            match from.read(&mut self.bytes[self.length..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.length += read;
        if self.length > SIZE_MAX {
            return Err(io::Error::other("it is longer than any token"));
        }
        Ok(read)
    }

    fn read(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn has_a_line(&self) -> bool {
        self.read().trim_ascii_start().contains(&b'\n')
    }

    /// It is not a token, whatever follows.
    fn has_more_than_a_line(&self) -> bool {
        self.read().trim_ascii().contains(&b'\n')
    }

    fn finish(mut self) -> Text {
        self.bytes.truncate(self.length);
        self.bytes
    }
}

/// A terminal that does not show what is typed, until this is dropped.
struct Quiet<'t> {
    terminal: BorrowedFd<'t>,
    before: Termios,
}

impl<'t> Quiet<'t> {
    fn new(terminal: BorrowedFd<'t>) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        // The line end is shown, and lines, signals and Enter work, however the terminal was left by whoever had it before.
        quiet.local_modes.insert(LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        quiet.input_modes.insert(InputModes::ICRNL);
        // A program that is stopped leaves the terminal as it is.
        quiet.special_codes[SpecialCodeIndex::VSUSP] = 0;
        // What was typed before, which was shown, does not count.
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // What is left of what was pasted would go to the shell, which shows it.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_line_of_plain_characters_can_be_a_token() {
        for given in ["ops_abc", "ops_abc\n", "  ops_abc \r\n\n", "\u{feff}ops_abc\r\n"] {
            assert_eq!(**only_line(given.as_bytes()).unwrap(), *b"ops_abc", "{given:?}");
        }
        let two = "hunter2\nhunter2";
        assert!(only_line(b" \n").is_err());
        for wrong in [two, "hunter2\rhunter2", "hunter2 hunter2", "hunter2\0", "„hunter2“"] {
            let why = only_line(wrong.as_bytes()).unwrap_err();
            assert!(why.starts_with("that is not a token, ") && !why.contains("hunter2"), "{why}");
        }
    }
}
