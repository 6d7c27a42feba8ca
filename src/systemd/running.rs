//! Units as the service manager of this machine has them in memory: it knows best, whatever its files say by now.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use super::manager::Manager;
use super::unit_files::Effective;
use super::unit_lines::lines;

/// The kinds of units that have credentials, or are taken for such.
const KINDS: [&str; 4] = ["*.service", "*.socket", "*.mount", "*.swap"];

pub struct Running {
    manager: Manager,
    /// The units in memory, by their own names.
    pub loaded: BTreeSet<String>,
}

/// A credential that the unit loads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    pub id: String,
    /// As in the unit file, with its specifiers replaced.
    pub source: String,
    pub is_encrypted: bool,
}

impl Running {
    pub fn new(mut manager: Manager) -> io::Result<Self> {
        let loaded = manager.list(&[], &KINDS)?.into_iter().collect();
        Ok(Self { manager, loaded })
    }

    /// A unit, with what the service manager knows better than its files.
    pub fn corrected(&mut self, by_files: &Effective) -> io::Result<Effective> {
        let by_files = by_files.clone();
        if !self.loaded.contains(&by_files.name) {
            return Ok(by_files);
        }
        let unit = self.manager.unit(&by_files.name)?;
        if unit.is_masked() {
            return Ok(Effective { is_masked: true, lines: Vec::new(), ..by_files });
        }
        if !unit.is_known() {
            // Something refers to it.
            return Ok(by_files);
        }
        let mut found = Effective { is_masked: false, lines: Vec::new(), ..by_files };
        found.names.extend(unit.texts("Names").map(str::to_owned));
        found.file = unit.file().map(PathBuf::from);
        found.is_stale = unit.is_stale();
        for path in found.file.clone().into_iter().chain(unit.texts("DropInPaths").map(PathBuf::from)) {
            match lines(&path) {
                Ok(lines) => found.lines.extend(lines),
                // It is gone since, which is what makes it stale.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        found.loads = Some(unit.loads());
        Ok(found)
    }
}
