//! Is each file there that opnix is to write, for whom it is to be, and with the mode that it is to have.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use super::Case;
use super::finding::{Finding, Kind};
use crate::config::MirrorFile;
use crate::counted::counted;
use crate::mirror::accounts::Accounts;
use crate::mirror::mount;

const AREA: &str = "files";
const SAYS: &str = "systemctl status opnix-mirror.service";

pub fn look(case: &Case) -> Vec<Finding> {
    let Some(config) = case.config().filter(|config| !config.files.is_empty()) else { return Vec::new() };
    if !case.is_of_the_system() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if config.needs_memory()
        && let Some(why) = mount::trouble(&config.mirror_root, false)
    {
        let finding = Finding::fault(Kind::MemoryMissing, AREA, "").lines(&why);
        let mend = "systemctl restart opnix-mount.service opnix-mirror.service".to_owned();
        findings.push(if finding.remedy.is_some() { finding } else { finding.mend(mend) });
    }
    let accounts = Accounts::look_up(&config.files);
    for file in &config.files {
        findings.extend(look_at(file, &accounts));
    }
    if findings.is_empty() {
        let count = counted(config.files.len(), "file");
        findings
            .push(Finding::fine(AREA, format!("{count}, each where it is to be, with its owner and mode")));
    }
    findings
}

fn look_at(file: &MirrorFile, accounts: &Accounts) -> Option<Finding> {
    let (shown, place) = (file.path.display(), file.entry.place.to_string());
    let owner = match accounts.of(file) {
        Ok(owner) => owner,
        Err(why) => {
            let mend = format!(
                "create that user or group, or change the entry; the file comes by itself then: {SAYS}"
            );
            return Some(
                Finding::fault(Kind::FileMissing, AREA, format!("{shown}: {why}")).at(place).mend(mend),
            );
        }
    };
    let metadata = match fs::symlink_metadata(&file.path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound && file.optional => return None,
        Err(error) => {
            let what = format!("{shown}: {error}");
            return Some(Finding::fault(Kind::FileMissing, AREA, what).at(place).mend(SAYS));
        }
    };
    let what = differs(file, owner.ids(), &metadata)?;
    Some(
        Finding::fault(Kind::FileDiffers, AREA, format!("{shown} {what}"))
            .at(place)
            .mend(format!("systemctl restart opnix-mirror.service; {SAYS}")),
    )
}

/// From what is configured.
fn differs(file: &MirrorFile, owner: (u32, u32), metadata: &Metadata) -> Option<String> {
    let ids = (metadata.uid(), metadata.gid());
    let mode = metadata.mode() & 0o7777;
    if !metadata.is_file() {
        Some("is no file".to_owned())
    } else if ids != owner {
        Some(format!(
            "belongs to user {} and group {}, and is to belong to {} and {}",
            ids.0, ids.1, owner.0, owner.1
        ))
    } else if mode != file.mode {
        Some(format!("has mode {mode:04o}, and is to have {:04o}", file.mode))
    } else {
        file.symlinks.iter().find_map(|link| {
            let target = fs::read_link(link).ok();
            (target.as_deref() != Some(file.path.as_path()))
                .then(|| format!("has no link {}", link.display()))
        })
    }
}
