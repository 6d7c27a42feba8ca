//! What is wrong with a configuration: all faults at once, each with its place and its remedy.

use std::fmt;

use crate::place::Place;

/// One fault: what is wrong on the first line, what would be right on the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub place: Place,
    pub what: String,
    pub remedy: Option<String>,
}

/// All that is wrong with a configuration. Never empty as an error.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Notes a fault; `message` is its Display, the lines after the first being the remedy.
    pub fn add(&mut self, place: &Place, message: impl fmt::Display) {
        let text = message.to_string();
        let (what, remedy) = match text.split_once('\n') {
            Some((what, remedy)) => (what.to_owned(), Some(remedy.to_owned())),
            None => (text, None),
        };
        self.0.push(Fault { place: place.clone(), what, remedy });
    }

    /// `value`, or all faults found on the way to it, in the order of the files.
    pub fn or<T>(mut self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => {
                self.0.sort_by(|a, b| {
                    a.place.file.cmp(&b.place.file).then(a.place.position.cmp(&b.place.position))
                });
                Err(self)
            }
        }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Fault> {
        self.0.iter()
    }
}

/// The known word that `written` was probably meant to be.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&written, &word.to_lowercase()), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min()
        .map(|(_, word)| word)
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
