//! What is wrong with a configuration: all faults at once, each with its place and its remedy.

use std::fmt;

use crate::place::Place;
use crate::remedy::Remedy;

/// One fault, shown with what is wrong on the first line and what would be right on the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    place: Place,
    pub what: String,
    remedy: Option<String>,
}

impl Fault {
    pub fn new(place: &Place, error: &impl Remedy) -> Self {
        Self { place: place.clone(), what: error.to_string(), remedy: error.remedy() }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    pub fn line(&self) -> String {
        let remedy = self.remedy.as_ref().map(|remedy| format!("; {}", remedy.replace('\n', "; ")));
        format!("{}: {}{}", self.place, self.what, remedy.unwrap_or_default())
    }
}

/// All that is wrong with a configuration. Never empty as an error.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Notes a fault.
    pub fn add(&mut self, place: &Place, error: &impl Remedy) {
        self.0.push(Fault::new(place, error));
    }

    /// `value` if there is no fault, else all faults, in the order of the files.
    pub fn or<T>(mut self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => {
                self.0.sort_by(|a, b| a.place.cmp(&b.place));
                Err(self)
            }
        }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Fault> {
        self.0.iter()
    }

    /// Whether all that is wrong is that nobody has written a configuration yet.
    pub fn is_nothing_written(&self) -> bool {
        self.0.iter().all(|fault| fault.what == super::NOTHING)
    }

    /// All of them on one line, as for the journal.
    pub fn line(&self) -> String {
        self.0.iter().map(Fault::line).collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n    {}", remedy.replace('\n', "\n    ")),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            write!(f, "{}{fault}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
