//! What is wrong, and what to do about it: errors that people read have both.

use std::fmt;

/// An error whose `Display` says what is wrong.
pub trait Remedy: fmt::Display {
    /// What to do about it, if anything can be done.
    fn remedy(&self) -> Option<String>;

    /// Both, each on a line of its own.
    fn lines(&self) -> String {
        match self.remedy() {
            Some(remedy) => format!("{self}\n{remedy}"),
            None => self.to_string(),
        }
    }

    /// Both on one line, as for the journal, even if one of them has a line break in it.
    fn line(&self) -> String {
        self.lines().replace('\n', "; ")
    }
}

/// An error that no code tells from others: only its words count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub what: String,
    pub remedy: Option<String>,
}

impl Problem {
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: Some(remedy.into()) }
    }

    /// The words already say what to do.
    pub fn plain(what: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: None }
    }

    /// `error`, and what it is about.
    pub fn about(subject: impl fmt::Display, error: &impl Remedy) -> Self {
        Self { what: format!("{subject}: {error}"), remedy: error.remedy() }
    }
}

impl<E: Remedy> From<&E> for Problem {
    fn from(error: &E) -> Self {
        Self { what: error.to_string(), remedy: error.remedy() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Remedy for Problem {
    fn remedy(&self) -> Option<String> {
        self.remedy.clone()
    }
}
