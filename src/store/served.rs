//! A value for a unit, and what is to be said about it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::counters::Origin;
use crate::reference::Reference;
use crate::secret::Secret;

/// The value of one reference.
pub struct Part {
    pub value: Arc<Secret>,
    pub caveat: Option<Caveat>,
    pub origin: Origin,
}

pub struct Served {
    pub value: Arc<Secret>,
    pub caveat: Option<Caveat>,
    /// What it is made of: the values of its references, in their order.
    pub parts: Vec<Arc<Secret>>,
    pub origin: Origin,
}

/// The value is an older one, because 1Password could not be asked.
#[derive(Debug)]
pub struct Caveat {
    pub reference: Reference,
    /// `None`: the clock was set back since.
    pub age: Option<Duration>,
    pub why: String,
}

impl fmt::Display for Caveat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the value of {} is ", self.reference)?;
        match self.age {
            Some(age) => {
                write!(f, "{} old", humantime::format_duration(Duration::from_secs(age.as_secs())))?;
            }
            None => f.write_str("of unknown age")?,
        }
        write!(f, ": {}", self.why)
    }
}
