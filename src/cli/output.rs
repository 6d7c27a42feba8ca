//! What commands print. Whoever reads may stop at any line: that is no fault of ours, and the rest is not printed.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::Exit;
use super::progress::aside;
use crate::scope;

/// Why standard output takes nothing more.
static CLOSED: Mutex<Option<ErrorKind>> = Mutex::new(None);

/// To standard output, with a line end; styles are left out where nobody sees them.
macro_rules! say {
    () => { $crate::cli::output::to_stdout(format_args!("\n")) };
    ($($words:tt)*) => { $crate::cli::output::to_stdout(format_args!("{}\n", format_args!($($words)*))) };
}
/// To standard error, likewise.
macro_rules! complain {
    ($($words:tt)*) => { $crate::cli::output::to_stderr(format_args!("{}\n", format_args!($($words)*))) };
}
pub(super) use {complain, say};

pub fn to_stdout(text: fmt::Arguments<'_>) {
    print(scope::commands(&text.to_string()));
}

fn print(text: Cow<'_, str>) {
    let mut closed = CLOSED.lock().unwrap_or_else(PoisonError::into_inner);
    if closed.is_none()
        && let Err(error) = aside(|| write(&mut anstream::stdout().lock(), text))
    {
        *closed = Some(error.kind());
    }
}

/// For programs; then the command ends in this way.
pub fn as_json(value: &impl Serialize, exit: Exit) -> Exit {
    match serde_json::to_string_pretty(value) {
        Ok(text) => {
            print(format!("{text}\n").into());
            exit
        }
        Err(error) => super::fail(Exit::Software, error),
    }
}

/// Whether standard output takes nothing more.
pub fn is_closed() -> bool {
    CLOSED.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Makes a terminal empty. That is no style: it is done whatever `NO_COLOR` says.
pub fn clear() {
    // What stands in the way of it shows with what is printed next.
    let _ = write(&mut io::stdout().lock(), "\x1b[H\x1b[2J\x1b[3J".into());
}

/// Where nobody reads what went wrong, the exit code still tells it.
pub fn to_stderr(text: fmt::Arguments<'_>) {
    let _ = aside(|| write(&mut anstream::stderr().lock(), scope::commands(&text.to_string())));
}

fn write(to: &mut impl Write, text: Cow<'_, str>) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}

/// The same of what was printed by other means.
pub fn finish_after(printed: io::Result<()>, exit: Exit) -> Exit {
    if let Err(error) = printed {
        *CLOSED.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.kind());
    }
    finish(exit)
}

/// A command that printed only a part of what it had to say has failed, unless nobody wanted the rest.
pub fn finish(exit: Exit) -> Exit {
    let closed = CLOSED.lock().unwrap_or_else(PoisonError::into_inner).take();
    match closed {
        Some(kind) if kind != ErrorKind::BrokenPipe && exit == Exit::Ok => {
            super::fail(Exit::System, format_args!("not all of the output could be written: {kind}"))
        }
        _ => exit,
    }
}
