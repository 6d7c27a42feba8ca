//! Do the sockets listen, for root alone, and after the next boot as well. Nothing connects to that of credentials: to do so is to
//! ask for one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::Uid;

use super::Case;
use super::finding::{Finding, Kind};
use crate::cli::control::{SERVICE, is_heard_at};
use crate::documents::document;
use crate::scope;
use crate::systemd::manager::{Manager, Unit};

const AREA: &str = "sockets";

pub fn look(case: &Case) -> Vec<Finding> {
    if !case.is_seen_whole() {
        return Vec::new();
    }
    let Some(mut manager) = case.manager() else {
        return vec![Finding::unseen(AREA, "systemd does not answer")];
    };
    let sockets = [("opnix.socket", scope::socket()), ("opnix-control.socket", scope::control())];
    let mut findings: Vec<Finding> = sockets
        .iter()
        .flat_map(|(unit, path)| look_at(unit, &path.display().to_string(), &mut manager))
        .collect();
    if findings.is_empty() {
        let (whom, when) = if case.is_of_the_user() { ("this user", "login") } else { ("root", "boot") };
        findings
            .push(Finding::fine(AREA, format!("both listen, for {whom} alone, and after the next {when}")));
    }
    findings
}

fn look_at(name: &str, path: &str, manager: &mut Manager) -> Vec<Finding> {
    let unit = match manager.unit(name) {
        Ok(unit) => unit,
        Err(error) => return vec![Finding::unseen(AREA, format!("{name}: {error}"))],
    };
    if !unit.is_known() {
        let what = format!("there is no {name}");
        return vec![Finding::fault(Kind::SocketStopped, AREA, what).mend(format!(
            "install opnix's unit files: systemd/install, as {} says",
            document("README.md")
        ))];
    }
    let mut findings = Vec::new();
    let runs = manager.unit(SERVICE).is_ok_and(|service| service.main_pid() != 0);
    // systemd does not start a socket whose service runs; the service brings both with it.
    let again = if runs { format!("systemctl restart {SERVICE}") } else { format!("systemctl start {name}") };
    if unit.is_masked() {
        let what = format!("{name} is masked");
        findings.push(
            Finding::fault(Kind::SocketStopped, AREA, what).mend(format!("systemctl unmask {name}; {again}")),
        );
    } else if unit.state() != "active" {
        let what = format!("{name} does not listen: it is {} ({})", unit.state(), unit.end());
        findings.push(Finding::fault(Kind::SocketStopped, AREA, what).mend(&again));
    } else {
        findings.extend(its_file(name, path));
    }
    if !unit.is_masked() && !comes_at_boot(&unit) {
        let what = format!("{name} is not enabled");
        let finding = if name == "opnix.socket" { Finding::fault } else { Finding::warning };
        findings.push(
            finding(Kind::SocketDisabled, AREA, what.as_str()).mend(format!("systemctl enable {name}")),
        );
    }
    findings
}

/// Something else than opnix itself pulls it in.
pub fn comes_at_boot(unit: &Unit) -> bool {
    let mut by =
        ["WantedBy", "RequiredBy", "UpheldBy", "BoundBy"].into_iter().flat_map(|kind| unit.texts(kind));
    by.any(|name| !name.starts_with("opnix"))
}

/// The file that systemd made: it may have been removed, replaced or opened since.
fn its_file(name: &str, path: &str) -> Vec<Finding> {
    let us = if scope::is_user() { "$USER" } else { "root" };
    let made_anew = format!("systemctl stop {SERVICE} {name}; systemctl start {name} {SERVICE}");
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            let what = format!("{name} listens, but nobody finds it: {path}: {error}");
            return vec![Finding::fault(Kind::SocketStopped, AREA, what).mend(made_anew)];
        }
    };
    let mut findings = Vec::new();
    if !is_heard_at(path) {
        let what = format!("{path} is not, or not only, the socket of {name}: somebody replaced it");
        findings.push(Finding::fault(Kind::SocketStopped, AREA, what).mend(made_anew));
    } else if metadata.uid() != Uid::effective().as_raw() || metadata.mode() & 0o077 != 0 {
        let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        let what = format!("{path} belongs to user {uid} and has mode {mode:04o}: others may connect");
        let mend = format!(
            "chown {us}: {path}; chmod 0600 {path}; and look who did that, in drop-ins too: systemctl cat {name}"
        );
        findings.push(Finding::fault(Kind::SocketOpen, AREA, what).mend(mend));
    }
    if let Some(directory) = Path::new(path).parent()
        && let Ok(metadata) = fs::symlink_metadata(directory)
        && (metadata.uid() != Uid::effective().as_raw() || metadata.mode() & 0o022 != 0)
    {
        let (shown, mode) = (directory.display(), metadata.mode() & 0o7777);
        let what = format!(
            "{shown} belongs to user {} and has mode {mode:04o}: others may replace the sockets",
            metadata.uid()
        );
        findings.push(
            Finding::fault(Kind::SocketOpen, AREA, what)
                .mend(format!("chown {us}: {shown}; chmod 0755 {shown}")),
        );
    }
    findings
}
