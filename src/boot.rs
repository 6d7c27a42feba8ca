//! Which boot of the machine this is, for files that outlive it: what two files of one boot say can be compared by the
//! clock that nobody sets ([`crate::moment`]).

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::files::StateDirectory;
use crate::moment::{Now, Setting};
use crate::process::random;

/// The file in the runtime directory that names the boot.
const FILE: &str = "boot";

/// The name of a boot. The kernel's own is in /proc/sys, which the sandbox hides (`ProcSubset=pid`), so this is drawn by the
/// first instance of the service in a boot, and left to the others where nothing outlives the boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boot(String);

impl Boot {
    /// `runtime` is gone at reboot. `None`: no two files can be said to be of one boot.
    pub fn find(runtime: &StateDirectory) -> Option<Self> {
        let found = runtime.read(FILE).and_then(|text| match text {
            Some(name) if is_name(&name) => Ok(String::from_utf8_lossy(&name).into_owned()),
            _ => {
                let name = format!("{:016x}", random().to_bits());
                runtime.replace(FILE, name.as_bytes()).map(|()| name)
            }
        });
        let warn = |error: &std::io::Error| {
            warn!(
                "after a restart of the service ages go by the wall clock: {}: {error}",
                runtime.path(FILE).display()
            );
        };
        found.inspect_err(warn).ok().map(Self)
    }
}

fn is_name(text: &[u8]) -> bool {
    text.len() == 16 && text.iter().all(u8::is_ascii_hexdigit)
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
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn a_boot_has_one_name_until_its_memory_is_gone() {
        let scratch = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp");
        let place = scratch.join(format!("boot-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        let runtime = StateDirectory::new(&place);
        let first = Boot::find(&runtime).unwrap();
        assert_eq!(Boot::find(&runtime).unwrap(), first);
        fs::write(place.join(FILE), "").unwrap();
        let second = Boot::find(&runtime).unwrap();
        assert!(second != first && is_name(second.0.as_bytes()));
        fs::remove_dir_all(&place).unwrap();
        assert_eq!(Boot::find(&runtime), None);
        let now = Now::read();
        assert_eq!(Written::new(&first, now).clock_in(Some(&first)), Some(now.setting()));
        assert_eq!(Written::new(&first, now).clock_in(Some(&second)), None);
        assert_eq!(Written::new(&first, now).clock_in(None), None);
    }
}
