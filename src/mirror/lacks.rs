//! Which unit lacks which file of the mirror, and why that is not there: told in the unit's own journal.

use std::collections::BTreeMap;
use std::path::Path;

use super::Mirror;
use super::ask::NoValue;
use super::recover::Provided;
use crate::records;
use crate::systemd::manager::{Ended, Manager};

/// What the service says that units were refused.
#[derive(Debug, Default)]
pub struct Missed {
    /// With whether they would get everything now.
    pub units: BTreeMap<String, bool>,
    /// Of what the mirror itself asked for, by the name that it asked by: why.
    pub reasons: BTreeMap<String, String>,
}

impl Mirror {
    pub(super) fn may_lack_a_file(&self, ended: &Ended) -> bool {
        // A start that a condition skips is done.
        self.state.left.concerns(&ended.unit, &ended.result)
            || !self.troubles.is_empty() && ["done", "failed"].contains(&ended.result.as_str())
    }

    /// What the service says, without what is for us.
    pub(super) fn take_in(&mut self, missed: Option<Missed>) -> Option<BTreeMap<String, bool>> {
        let Missed { units, reasons } = missed?;
        self.reasons = reasons;
        Some(units)
    }

    /// Tells units that did not start for want of a file why that is not there.
    pub(super) fn tell_what_they_lack(&mut self, provided: &Provided, manager: &mut Manager) {
        for (unit, path, comes) in self.state.left.untold(provided, manager) {
            records::unit_lacks_file(&unit, &path.display().to_string(), &self.why_not(&path), comes);
        }
    }

    /// Why a file of ours, or a link to one, is not there.
    fn why_not(&self, path: &Path) -> String {
        let mut files = self.config.iter().flat_map(|config| &config.files);
        let file = files.find(|file| file.path == path || file.symlinks.iter().any(|link| link == path));
        let Some((file, trouble)) = file.and_then(|file| Some((file, self.troubles.get(&file.path)?))) else {
            return "opnix has not written it yet".to_owned();
        };
        let refused = self.reasons.get(file.entry.content.mirror_name().as_str());
        let refused = refused.filter(|_| trouble.why == NoValue::Refused.describe());
        let why = refused.map_or(trouble.why.clone(), |reason| format!("the service refused it: {reason}"));
        why.replace('\n', "; ")
    }
}
