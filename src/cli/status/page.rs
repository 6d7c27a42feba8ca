//! A page of lines, each with a heading: sober, and as wide as the terminal, where there is one.

use std::fmt::{self, Write as _};
use std::io::IsTerminal;

use anstyle::{AnsiColor, Style};

/// Where what stands behind the headings begins.
const INDENT: usize = 11;
/// Narrower than this, nothing is broken into lines.
const NARROW: usize = 40;

/// Words in a style, which is left out where the output is not a terminal.
pub struct Styled<T>(Style, T);

impl<T: fmt::Display> fmt::Display for Styled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(style, what) = self;
        write!(f, "{style}")?;
        // With the width that was asked for.
        what.fmt(f)?;
        write!(f, "{style:#}")
    }
}

/// As it should be.
pub fn good<T>(what: T) -> Styled<T> {
    Styled(AnsiColor::Green.on_default(), what)
}

pub fn plain<T>(what: T) -> Styled<T> {
    Styled(Style::new(), what)
}

/// To be looked at.
pub fn doubtful<T>(what: T) -> Styled<T> {
    Styled(AnsiColor::Yellow.on_default(), what)
}

/// What keeps a unit from its secret.
pub fn bad<T>(what: T) -> Styled<T> {
    Styled(AnsiColor::Red.on_default().bold(), what)
}

pub fn heading<T>(what: T) -> Styled<T> {
    Styled(Style::new().bold(), what)
}

pub struct Page {
    text: String,
    /// `None`: as wide as may be.
    width: Option<usize>,
    heading: String,
}

impl Page {
    pub fn new() -> Self {
        Self { text: String::new(), width: None, heading: String::new() }
    }

    /// As wide as the terminal that it is shown on.
    pub fn for_the_terminal() -> Self {
        let stdout = std::io::stdout();
        let size = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok()).flatten();
        let width = size.map(|size| usize::from(size.ws_col)).filter(|width| *width >= NARROW);
        Self { width, ..Self::new() }
    }

    /// The heading is said once for all lines that follow with the same one. What has several lines stays below it.
    pub fn line(&mut self, name: &str, what: impl fmt::Display) {
        let shown = if self.heading == name { "" } else { name };
        self.heading = name.to_owned();
        let what = what.to_string();
        let mut lines = what.split('\n').flat_map(|line| self.wrapped(line)).collect::<Vec<_>>().into_iter();
        let style = if shown.is_empty() { plain(shown) } else { heading(shown) };
        let _ = writeln!(self.text, "{style:<0$} {1}", INDENT - 1, lines.next().unwrap_or_default());
        for line in lines {
            let _ = writeln!(self.text, "{:INDENT$}{line}", "");
        }
    }

    /// Broken between words only. What does not fit all the same is left to the terminal.
    fn wrapped(&self, line: &str) -> Vec<String> {
        let Some(width) = self.width.map(|width| width - INDENT) else { return vec![line.to_owned()] };
        let indent = line.len() - line.trim_start().len();
        let (mut lines, mut now, mut length) = (Vec::new(), String::new(), 0);
        for (number, word) in line.split(' ').enumerate() {
            let own = visible(word);
            if number > 0 && own > 0 && length > indent && length + 1 + own > width {
                lines.push(std::mem::replace(&mut now, " ".repeat(indent + 2)));
                length = indent + 2;
            } else if number > 0 {
                now.push(' ');
                length += 1;
            }
            now.push_str(word);
            length += own;
        }
        lines.push(now);
        lines.iter().map(|line| line.trim_end().to_owned()).collect()
    }

    /// With its styles.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Without them.
    pub fn into_plain(self) -> String {
        anstream::adapter::strip_str(&self.text).to_string()
    }
}

/// How wide it is on a terminal.
fn visible(text: &str) -> usize {
    anstream::adapter::strip_str(text).map(|part| part.chars().count()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_broken_between_words_only_and_stays_below_its_heading() {
        let mut page = Page { width: Some(40), ..Page::new() };
        page.line("secrets", format_args!("a-name  {}    5m old", good("fresh")));
        page.line("secrets", "    a sentence of some length that has to be broken somewhere");
        page.line("cache", "a-single-word-that-is-far-longer-than-the-terminal-is-wide");
        page.line("cache", "one\ntwo");
        assert_eq!(
            page.into_plain(),
            "secrets    a-name  fresh    5m old\n           \x20   a sentence of some length\n           \
             \x20     that has to be broken\n           \x20     somewhere\n\
             cache      a-single-word-that-is-far-longer-than-the-terminal-is-wide\n           one\n           two\n"
        );
    }

    #[test]
    fn a_style_takes_no_room_and_is_left_out_where_nobody_sees_it() {
        let mut page = Page { width: Some(40), ..Page::new() };
        page.line("status", format_args!("{} {}", bad("29 columns and so it fits yes"), ""));
        assert!(page.text.contains("\x1b["));
        assert_eq!(page.into_plain(), "status     29 columns and so it fits yes\n");
        assert_eq!(
            anstream::adapter::strip_str(&format!("{:<7}|", doubtful("stale"))).to_string(),
            "stale  |"
        );
    }
}
