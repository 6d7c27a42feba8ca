//! What the mirror says of itself: in one line for `systemctl status`, and in a file for `opnix status`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::Mirror;
use crate::config::MirrorFile;
use crate::files::StateDirectory;

/// In the runtime directory.
pub const FILE: &str = "status.json";

/// How everything is, as far as it is not as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How many files there are to be.
    pub files: usize,
    /// How many of them are not as they should be.
    pub missing: usize,
    /// Why a file is not as it should be.
    pub troubles: BTreeMap<PathBuf, Told>,
    /// What left the configuration and could not be removed, and why.
    pub stuck: BTreeMap<PathBuf, String>,
    /// Why the configuration that is there now is not used.
    pub faults: Option<String>,
    /// What could not be done to units whose secret changed.
    pub failures: Vec<String>,
    /// Units that were not started for want of files, with these.
    #[serde(default)]
    pub left: BTreeMap<String, Vec<PathBuf>>,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub why: String,
    /// In seconds since 1970.
    pub since: u64,
}

impl Report {
    /// What the mirror of this runtime directory wrote last.
    pub fn read(directory: &StateDirectory) -> Option<Self> {
        serde_json::from_slice(&directory.read(FILE).ok()??).ok()
    }

    /// In one line, for `systemctl status`.
    pub fn line(&self) -> String {
        let mut text = match (self.files, self.missing) {
            (0, _) => "There are no files to write.".to_owned(),
            (all, 0) => format!("All {all} files are in place."),
            (all, missing) => format!("{} of {all} files are in place.", all - missing),
        };
        if let Some(faults) = &self.faults {
            text.push_str(&format!(" The new configuration is faulty, the old one is in force: {faults}"));
        }
        for (path, why) in &self.stuck {
            text.push_str(&format!(
                " {} left the configuration and cannot be removed: {why};",
                path.display()
            ));
        }
        for failure in &self.failures {
            text.push_str(&format!(" A secret changed, and {failure};"));
        }
        for (path, told) in &self.troubles {
            text.push_str(&format!(" {}: {};", path.display(), told.why));
        }
        text.replace('\n', "; ")
    }
}

impl Mirror {
    /// How everything is now, in one line, and in the file, if it is another thing than before.
    pub fn report(&mut self) -> String {
        let report = self.reported();
        if self.reported.as_ref() != Some(&report) && self.write(&report) {
            self.reported = Some(report.clone());
        }
        report.line()
    }

    fn reported(&self) -> Report {
        let is_wanted = |file: &&MirrorFile| !file.optional || self.is_written(file);
        let files = self.config.iter().flat_map(|config| &config.files).filter(is_wanted);
        let seconds =
            |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let troubles = self.troubles.iter().map(|(path, trouble)| {
            (path.clone(), Told { why: trouble.why.clone(), since: seconds(trouble.since) })
        });
        Report {
            missing: files.clone().filter(|file| self.troubles.contains_key(&file.path)).count(),
            files: files.count(),
            troubles: troubles.collect(),
            stuck: self.stuck.clone(),
            faults: self.faults.clone(),
            failures: self.acts.failures().map(str::to_owned).collect(),
            left: self.state.left.for_want_of_files().collect(),
        }
    }

    fn write(&self, report: &Report) -> bool {
        let Some(directory) = &self.memory.runtime else { return true };
        let text = serde_json::to_vec(report).unwrap_or_default();
        let wrote = directory.replace(FILE, &text);
        if let Err(error) = &wrote {
            warn!(
                "how the files are cannot be told to `opnix status`: {}: {error}",
                directory.path(FILE).display()
            );
        }
        wrote.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_what_is_damaged_is_not() {
        let place = std::env::temp_dir().join(format!("opnix-report-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let directory = StateDirectory::new(&place);
        assert_eq!(Report::read(&directory), None);
        let mut report = Report { files: 2, missing: 1, ..Report::default() };
        report.troubles.insert("/run/secrets/a".into(), Told { why: "no user\ncreate it".into(), since: 7 });
        report.stuck.insert("/srv/b".into(), "read-only".into());
        report.failures.push("systemctl reload x failed (failed)".into());
        directory.replace(FILE, &serde_json::to_vec(&report).unwrap()).unwrap();
        assert_eq!(Report::read(&directory), Some(report.clone()));
        let line = report.line();
        assert!(line.starts_with("1 of 2 files are in place. /srv/b left the configuration"), "{line}");
        assert!(line.contains("A secret changed, and systemctl reload") && !line.contains('\n'), "{line}");
        directory.replace(FILE, b"{").unwrap();
        assert_eq!(Report::read(&directory), None);
        std::fs::remove_dir_all(Path::new(&place)).unwrap();
    }
}
