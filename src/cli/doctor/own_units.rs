//! How opnix's own units are, and whether what runs is what is installed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use super::Case;
use super::finding::{Finding, Kind};
use super::sockets::comes_at_boot;
use crate::cli::check::credentials::{Credentials, Why};
use crate::cli::control::{SERVICE, Unanswered};
use crate::documents::document;
use crate::providers::child::token;
use crate::systemd;
use crate::systemd::manager::{CREDENTIALS, Manager, Unit};
use crate::systemd::unit_files::UnitFiles;

const AREA: &str = "service";
const MOMENT: Duration = Duration::from_millis(300);
const MIRROR: &str = "opnix-mirror.service";
const BRINGER: &str = "opnix-token.service";
/// What runs besides the service, and what it is for.
pub const PARTS: [(&str, &str); 5] = [
    (MIRROR, "no file is kept current, and no unit that was refused is started again"),
    ("opnix-mount.service", "there is no memory for files with secrets"),
    ("opnix-setup.service", "no key for the sealed cache can be made"),
    ("opnix-key.service", "the key of the sealed cache is not opened"),
    (BRINGER, "a new token is taken at a reload only"),
];
/// Those with `RemainAfterExit=yes`.
const WORK_AT_BOOT: [&str; 2] = ["opnix-mount.service", "opnix-setup.service"];
/// The units of opnix that have credentials.
const WITH_CREDENTIALS: [&str; 2] = [SERVICE, "opnix-key.service"];

pub fn look(case: &Case) -> Vec<Finding> {
    let mut findings: Vec<Finding> = answer(case).into_iter().collect();
    if !case.is_seen_whole() {
        return findings;
    }
    if case.is_of_the_system() && systemd::is_purged() {
        // All else that is wrong with its units comes from that.
        let what = systemd::PURGED_SAYS;
        return vec![Finding::fault(Kind::Purged, AREA, what).at(systemd::PURGED).mend(systemd::UNPURGE)];
    }
    let Some(mut manager) = case.manager() else { return findings };
    if let Ok(service) = manager.unit(SERVICE) {
        if !service.is_known() {
            let what = format!("systemd knows no {SERVICE}");
            return vec![Finding::fault(Kind::ServiceMissing, AREA, what).mend(format!(
                "install opnix's unit files: systemd/install, as {} says",
                document("README.md")
            ))];
        }
        findings.extend(is_old(&service));
        // A user's files need no mount, and what is kept is not sealed.
        let parts = PARTS.into_iter().filter(|(name, _)| case.is_of_the_system() || *name == MIRROR);
        for (name, without) in parts {
            if let Ok(part) = manager.unit(name) {
                findings.extend(of_part(&part, name, without, &service, case));
            }
        }
    }
    if case.is_of_the_system() {
        findings.extend(taken_back(&mut manager));
    }
    if findings.is_empty() {
        findings.push(Finding::fine(AREA, "it answers, and its parts work"));
    }
    findings
}

/// What it says, or why it says nothing.
fn answer(case: &Case) -> Option<Finding> {
    let why = match &case.status {
        Ok(status) => {
            let obstacle = status.obstacle.as_ref()?;
            // On this machine it was seen already.
            let is_told = case.is_of_the_system() && crate::peer::Legacy::here().is_some();
            return (!is_told).then(|| Finding::fault(Kind::MachineRefuses, AREA, "").lines(obstacle));
        }
        Err(why) => why,
    };
    let (_, lines) = case.arguments.control.describe_alone(why);
    let kind = match why {
        Unanswered::NoService(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Some(Finding::unseen(AREA, lines.lines().next().unwrap_or_default()));
        }
        Unanswered::NoService(_) => Kind::ServiceMissing,
        Unanswered::Stopped => Kind::ServiceStopped,
        Unanswered::DoesNotStart(end) if end.ends_with("243/CREDENTIALS") => {
            return Some(without_credentials(&lines));
        }
        Unanswered::DoesNotStart(_) => Kind::ServiceDoesNotStart,
        Unanswered::Late(_) | Unanswered::Broken(_) | Unanswered::Refused(_) => Kind::ServiceSilent,
    };
    Some(Finding::fault(kind, AREA, "").lines(&lines))
}

/// The service could not be given its own credentials: is that so for every unit?
fn without_credentials(lines: &str) -> Finding {
    let probe = ["--quiet", "--wait", "--collect", "--property=SetCredential=opnix-doctor:x", "true"];
    let mut command = Command::new("systemd-run");
    command.args(probe).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let ended = command.status().ok().and_then(|status| status.code());
    if ended.map(i128::from) == Some(CREDENTIALS) {
        let what = "systemd cannot set up any credential on this machine, not even one of its own";
        let mend = "a container has to be allowed to mount: on LXC, LXD and Incus security.nesting=true, on Proxmox the feature nesting=1";
        return Finding::fault(Kind::CredentialsFail, AREA, what).mend(mend);
    }
    let finding = Finding::fault(Kind::ServiceDoesNotStart, AREA, "").lines(lines);
    finding.mend("look at its own credentials, the token and the key: systemctl cat opnix.service; journalctl -u opnix.service")
}

fn of_part(part: &Unit, name: &str, without: &str, service: &Unit, case: &Case) -> Vec<Finding> {
    let mut findings: Vec<Finding> = is_old(part).into_iter().collect();
    let is_up = service.main_pid() != 0;
    let says = format!("systemctl status {name}; journalctl -u {name}");
    let is_needed = match name {
        BRINGER => {
            case.config().is_none_or(|config| config.provider.kind() != "local") && token::loaded().is_some()
        }
        "opnix-mount.service" => case.config().is_some_and(crate::config::Config::needs_memory),
        _ => true,
    };
    if !is_needed {
        return Vec::new();
    }
    if name == MIRROR && case.config().is_some_and(|config| !config.files.is_empty()) && !comes_at_boot(part)
    {
        let what = format!(
            "{name} is not enabled: after the next boot there are no files until something asks for a credential"
        );
        findings.push(Finding::warning(Kind::PartFails, AREA, what).mend(format!("systemctl enable {name}")));
    }
    let what = if !part.is_known() {
        format!("systemd knows no {name}")
    } else if part.is_masked() {
        format!("{name} is masked")
    } else if part.state() == "failed" || part.waits_for_restart() {
        format!("{name} fails ({})", part.end())
    } else if part.state() == "inactive" && is_up && !part.has_job() {
        format!("{name} does not run")
    } else {
        return findings;
    };
    // What the cache can do without, an administrator may do without, too.
    let is_optional = ["opnix-setup.service", "opnix-key.service"].contains(&name);
    let finding = if is_optional && part.state() != "failed" { Finding::warning } else { Finding::fault };
    let mend = if part.is_masked() {
        // One that did its work at boot counts as up for good: it does it anew only at a restart. And each kind of mask is taken
        // away by a command of its own.
        let start = if WORK_AT_BOOT.contains(&name) { "restart" } else { "start" };
        let runtime = if part.file_state() == "masked-runtime" { "--runtime " } else { "" };
        format!("systemctl unmask {runtime}{name}; systemctl {start} {name}")
    } else if part.state() == "inactive" && part.is_known() {
        format!("systemctl start {name}")
    } else {
        says
    };
    findings.push(finding(Kind::PartFails, AREA, format!("{what}: {without}").as_str()).mend(mend));
    findings
}

/// Whether another program runs than the one that is installed, or systemd has older lines in memory than the files.
fn is_old(unit: &Unit) -> Option<Finding> {
    let name = &unit.id;
    if unit.is_stale() {
        let what = format!("systemd has an older version of {name} in memory than its files are");
        return Some(Finding::warning(Kind::UnitFileOld, AREA, what).mend("systemctl daemon-reload"));
    }
    let pid = unit.main_pid();
    let running = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    let installed = fs::metadata(unit.program()?).ok()?;
    let is_same =
        |running: &fs::Metadata| (running.dev(), running.ino()) == (installed.dev(), installed.ino());
    if pid == 0 || is_same(&running) {
        return None;
    }
    // In its first moment it still is systemd's own.
    sleep(MOMENT);
    let still = fs::metadata(format!("/proc/{pid}/exe")).is_ok_and(|running| !is_same(&running));
    still.then(|| {
        let what = format!("{name} runs another program than the one that is installed now");
        Finding::warning(Kind::ProgramOld, AREA, what).mend(format!("systemctl restart {name}"))
    })
}

/// Generators of some images take the credentials of all services back, opnix' own among them.
fn taken_back(manager: &mut Manager) -> Vec<Finding> {
    let Ok(files) = UnitFiles::of_the_machine() else { return Vec::new() };
    let mut findings = Vec::new();
    for unit in WITH_CREDENTIALS {
        let Ok(effective) = files.effective(unit) else { continue };
        let credentials = Credentials::of(&effective);
        // What is given anew afterwards was to be replaced.
        let mut is_given = |id: &String| {
            let has_another = |unit: &Unit| unit.has_another_credential(id);
            credentials.loaded.contains_key(id) || manager.unit(unit).is_ok_and(|unit| has_another(&unit))
        };
        for lost in credentials.lost.iter().filter(|lost| !is_given(&lost.id)) {
            if let Why::Cleared(by) = &lost.why {
                let what = format!("{unit} is started without \"{}\": {by} takes it back", lost.id);
                let mend = "remove that file, or give the credentials anew in a drop-in that comes after it";
                findings.push(Finding::fault(Kind::UnitFile, AREA, what).at(by.to_string()).mend(mend));
            }
        }
    }
    findings
}
