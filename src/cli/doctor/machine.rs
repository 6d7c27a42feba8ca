//! What opnix needs of the machine.

use nix::sys::statvfs::statvfs;

use super::finding::{Finding, Kind};
use super::{Case, selinux};
use crate::cli::control::SERVICE;
use crate::peer::Legacy;
use crate::remedy::Remedy;
use crate::scope;

const AREA: &str = "machine";
/// From this version on systemd gives a running unit new credentials when it is reloaded (`RefreshOnReload=`).
const REFRESHES: u32 = 260;
/// What opnix writes to /run takes less, in bytes, and needs fewer files.
const ROOM: u64 = 1 << 20;
const FILES: u64 = 64;

pub fn look(case: &Case) -> Vec<Finding> {
    if !case.is_seen_whole() {
        let what = if case.arguments.control.is_systems() {
            "this is not root, who alone may ask the service and see its files: sudo opnix doctor"
        } else {
            "the service asked is not the system's: systemd's own part, its sockets and files are not looked at; of the one that a user's own systemd has: opnix doctor --user"
        };
        return vec![Finding::unseen(AREA, what)];
    }
    let mut findings = Vec::new();
    if let Some(legacy) = Legacy::here() {
        findings.push(Finding::fault(Kind::MachineRefuses, AREA, "").lines(&legacy.lines()));
    }
    findings.extend(room());
    let Some(mut manager) = case.manager() else {
        let socket = scope::runtime_directory().join("systemd/private");
        let what = format!("systemd does not answer on {}", socket.display());
        let mend = match case.is_of_the_user() {
            true => {
                "is the user logged in, or lingering? loginctl enable-linger; and is XDG_RUNTIME_DIR set?"
            }
            false => "is it PID 1 here? ps -p 1",
        };
        findings.push(Finding::fault(Kind::MachineRefuses, AREA, what).mend(mend));
        return findings;
    };
    let service = manager.unit(SERVICE).map_or(0, |unit| unit.main_pid());
    if let Some((manager, service)) = (service != 0).then(|| selinux::forbids(service)).flatten() {
        let what = format!("SELinux does not let systemd ({manager}) connect to {SERVICE} ({service})");
        let rule =
            "a policy module that says: (allow init_t unconfined_service_t (unix_stream_socket (connectto)))";
        findings.push(Finding::fault(Kind::MachineRefuses, AREA, what).mend(rule));
    }
    match manager.version() {
        Ok(version) => {
            let number: u32 =
                version.split(|c: char| !c.is_ascii_digit()).find_map(|part| part.parse().ok()).unwrap_or(0);
            let lacks = if number < REFRESHES {
                "; to get a new value a unit has to be restarted (RefreshOnReload= comes with 260)"
            } else {
                ""
            };
            if findings.is_empty() {
                findings.push(Finding::fine(AREA, format!("systemd {version}{lacks}")));
            }
        }
        Err(error) => {
            findings.push(Finding::unseen(AREA, format!("systemd does not say its version: {error}")))
        }
    }
    findings
}

fn room() -> Option<Finding> {
    let run = statvfs("/run").ok()?;
    let free = run.blocks_available().saturating_mul(run.fragment_size());
    let has_files = run.files() > 0;
    let full = match (free < ROOM, has_files && run.files_available() < FILES) {
        (true, _) => format!("/run is full: {} KiB are free", free / 1024),
        (_, true) => format!("/run has no room for more files: {} more", run.files_available()),
        _ => return None,
    };
    Some(
        Finding::fault(Kind::RunFull, AREA, full)
            .mend("find out what fills it: du -xh /run | sort -h | tail"),
    )
}
