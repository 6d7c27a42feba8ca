//! Which boot of the machine this is, for files that outlive it: what two files of one boot say can be compared by the
//! clock that nobody sets ([`crate::moment`]).

use serde::{Deserialize, Serialize};

use crate::moment::{Now, Setting};

/// Where `Environment=` of `systemd/opnix.service` names it. The kernel's own name of it is in /proc/sys, which the sandbox hides
/// (`ProcSubset=pid`).
const VARIABLE: &str = "OPNIX_BOOT";

/// The name of a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boot(String);

impl Boot {
    /// `None`: no two files can be said to be of one boot.
    pub fn find() -> Option<Self> {
        std::env::var(VARIABLE).ok().filter(|name| !name.is_empty()).map(Self)
    }
}

/// When a file was written: in which boot, and how the wall clock was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    boot: Boot,
    clock: Setting,
}

impl Written {
    pub fn new(boot: &Boot, now: Now) -> Self {
        Self { boot: boot.clone(), clock: now.setting() }
    }

    /// How the clock was set then, if that was in this boot.
    pub fn clock_in(&self, boot: Option<&Boot>) -> Option<Setting> {
        (Some(&self.boot) == boot).then_some(self.clock)
    }
}

#[cfg(test)]
impl Boot {
    pub fn named(name: &str) -> Self {
        Self(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_the_clock_was_set_counts_in_the_same_boot_only() {
        let (first, second) = (Boot::named("1"), Boot::named("2"));
        let now = Now::read();
        assert_eq!(Written::new(&first, now).clock_in(Some(&first)), Some(now.setting()));
        assert_eq!(Written::new(&first, now).clock_in(Some(&second)), None);
        assert_eq!(Written::new(&first, now).clock_in(None), None);
    }
}
