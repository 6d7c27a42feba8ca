//! Is each file there that opnix is to write, for whom it is to be, and with the mode that it is to have; and what the mirror says
//! of those that are not, and of the units that wait for them.

use std::path::Path;

use super::Case;
use super::finding::{Finding, Kind};
use crate::cli::status::files::{Look, Mirror, look_at, mirror};
use crate::config::Config;
use crate::control::interface::MirroredFile;
use crate::counted::counted;
use crate::mirror::accounts::Accounts;
use crate::mirror::mount;
use crate::mirror::report::Report;
use crate::scope;

const AREA: &str = "files";
const SAYS: &str = "systemctl status opnix-mirror.service";

pub fn look(case: &Case) -> Vec<Finding> {
    if !case.is_seen_whole() {
        return Vec::new();
    }
    let mut manager = case.manager();
    let report = match mirror(manager.as_mut()) {
        Mirror::Up(report) => report.unwrap_or_default(),
        // That it does not run is told already.
        Mirror::Unknown | Mirror::Down(_) => Report::default(),
    };
    let mut findings = Vec::new();
    if let Some(config) = case.config().filter(|config| !config.files.is_empty()) {
        findings.extend(of_files(config, &report));
    }
    findings.extend(of_the_mirror(&report));
    findings
}

fn of_files(config: &Config, report: &Report) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.needs_memory()
        && let Some(why) = mount::trouble(&config.mirror_root, false)
    {
        let finding = Finding::fault(Kind::MemoryMissing, AREA, "").lines(&why);
        let mend = match scope::is_user() {
            true => "systemctl restart opnix-mirror.service",
            false => "systemctl restart opnix-mount.service opnix-mirror.service",
        };
        findings.push(if finding.remedy.is_some() { finding } else { finding.mend(mend) });
    }
    let files: Vec<MirroredFile> = config.files.iter().map(MirroredFile::from).collect();
    let accounts = Accounts::look_up(&config.files);
    for ((file, shown), look) in config.files.iter().zip(&files).zip(look_at(&files)) {
        let told = report.troubles.get(&file.path).map(|told| told.why.as_str());
        let owner = accounts.of(file).err();
        let (kind, what) = match look {
            Look::Missing if file.optional && owner.is_none() => continue,
            Look::Fine(_) if told.is_none() => continue,
            Look::Unknown(why) => {
                findings.push(Finding::unseen(AREA, format!("{}: {why}", shown.path)));
                continue;
            }
            Look::Fine(_) => (Kind::FileOld, "cannot be kept current".to_owned()),
            Look::Missing => (Kind::FileMissing, "is not there".to_owned()),
            Look::Other(_) if owner.is_some() => (Kind::FileDiffers, "is not as it is to be".to_owned()),
            Look::Other(what) => (Kind::FileDiffers, what),
        };
        let why = owner.as_deref().or(told);
        let finding =
            Finding::fault(kind, AREA, format!("{} {what}", shown.path)).at(file.entry.place.to_string());
        let mend = match why {
            Some(why) => format!("{why}\nwhen that is mended, it comes by itself: {SAYS}"),
            None => format!("systemctl restart opnix-mirror.service; {SAYS}"),
        };
        findings.push(finding.mend(mend));
    }
    if findings.is_empty() {
        let count = counted(files.len(), "file");
        findings
            .push(Finding::fine(AREA, format!("{count}, each where it is to be, with its owner and mode")));
    }
    findings
}

/// What the mirror could not do besides, and which units it waits to start.
fn of_the_mirror(report: &Report) -> Vec<Finding> {
    let stuck = report.stuck.iter().map(|(path, why)| {
        let what = format!("{} left the configuration and cannot be removed: {why}", path.display());
        Finding::warning(Kind::FileDiffers, AREA, what).mend(format!("rm {}", path.display()))
    });
    let failed = report.failures.iter().map(|failure| {
        let what = format!("a secret changed, and {failure}");
        Finding::fault(Kind::UnitNotTold, AREA, what).mend(SAYS)
    });
    let left = report.left.iter().map(|(unit, files)| {
        let missing = files.iter().find(|path| !Path::new(path).exists());
        let (what, mend) = match missing {
            Some(path) => (
                format!("{unit} was not started, because {} was not there", path.display()),
                "see above why the file is not there; when it is, the unit is started by itself if something wants it".to_owned(),
            ),
            None => (
                format!("{unit} was not started, for want of a file that is there now"),
                format!("if it does not come up by itself in a moment: systemctl start {unit}"),
            ),
        };
        Finding::fault(Kind::UnitGaveUp, "units", what).mend(mend)
    });
    stuck.chain(failed).chain(left).collect()
}
