//! What a command that takes long shows meanwhile: on standard error, if that is a terminal that can take it back, and only until
//! the command has something to say. indicatif looks at `TERM`; without colours there is nothing for `NO_COLOR` to leave out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often the terminal is drawn on at most.
const HERTZ: u8 = 10;
/// How often the time that it takes is shown anew.
const TICK: Duration = Duration::from_millis(250);

/// What is shown now.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Shown until it is dropped; one at a time.
pub struct Progress(ProgressBar);

/// Writes something, which may go to the same terminal.
pub fn aside<T>(write: impl FnOnce() -> T) -> T {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match shown {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

fn show(bar: Option<ProgressBar>) {
    *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

impl Progress {
    /// `what` is what is being done: "looking at the files".
    pub fn begin(what: impl Into<String>) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(HERTZ));
        bar.set_style(style("{spinner} {msg} ({elapsed})"));
        bar.set_message(what.into());
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
            show(Some(bar.clone()));
        }
        Self(bar)
    }

    /// Whether anybody sees it.
    pub fn is_shown(&self) -> bool {
        !self.0.is_hidden()
    }

    /// So much of it is done.
    pub fn set(&self, done: u64, all: u64) {
        if self.0.length() != Some(all) {
            self.0.set_style(style("{spinner} {msg} {bar:24} {pos} of {len} ({elapsed})"));
            self.0.set_length(all);
        }
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
        show(None);
    }
}

fn style(template: &str) -> ProgressStyle {
    // All of them are above, and shown by the tests.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    style.progress_chars("## ").tick_chars("-\\|/ ")
}
