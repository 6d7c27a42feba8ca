//! Records in the journals of units themselves, which `systemctl status UNIT` and `journalctl -u UNIT` show: those of root with the
//! field OBJECT_SYSTEMD_UNIT, and in a user's manager those of that user with OBJECT_SYSTEMD_USER_UNIT. They name the unit, because
//! they are in the journal of who wrote them as well.

use std::time::Duration;

use humantime::format_duration;
use tracing::{info, warn};

use super::id;
use crate::scope;

/// The unit, if it is one of the system, and if it is one of a user: as [`crate::systemd::manager::Manager::connect`] has it.
fn fields(unit: &str) -> (Option<&str>, Option<&str>) {
    if scope::has_systems_manager() { (Some(unit), None) } else { (None, Some(unit)) }
}

/// A record of this unit's.
macro_rules! of_unit {
    ($unit:expr, $level:ident, $id:expr, $($rest:tt)*) => {{
        let (of_system, of_user) = fields($unit);
        $level!(
            message_id = $id,
            object_systemd_unit = of_system,
            object_systemd_user_unit = of_user,
            $($rest)*
        );
    }};
}

/// The command that says more of a unit.
fn see(command: impl FnOnce() -> String) -> String {
    if scope::has_systems_manager() || scope::is_user() {
        scope::commands(&command()).into_owned()
    } else {
        "journalctl --user -u opnix.service".to_owned()
    }
}

/// The mirror acts on a unit, as systemctl does by this word.
pub fn secret_changed(action: &str, unit: &str) {
    of_unit!(unit, info, id::SECRET_CHANGED, "a secret changed: systemctl {action} {unit}");
}

/// The mirror starts a unit, likewise.
pub fn unit_started(unit: &str, why: &str) {
    of_unit!(unit, info, id::UNIT_STARTED, "{why}: systemctl start {unit}");
}

/// What the mirror had begun on a unit whose secret changed is done.
pub fn unit_told(unit: &str, action: &str) {
    of_unit!(unit, info, id::UNIT_TOLD, "systemctl {action} {unit} is done");
}

/// It failed.
pub fn unit_not_told(unit: &str, action: &str, why: &str) {
    let is_started = ["try-restart", "start"].contains(&action);
    let then = if is_started { "" } else { ": it may go on with the old one" };
    of_unit!(
        unit,
        warn,
        id::UNIT_NOT_TOLD,
        "a secret changed, and systemctl {action} {unit} failed ({why}){then}"
    );
}

/// The unit was refused a credential, so many times since that was told last.
pub fn unit_refused(unit: &str, credential: &str, check: &str, reason: &str, times: u64) {
    let often = if times > 1 { format!(", {times} times since the last such line") } else { String::new() };
    let see = see(|| match check {
        "policy" => format!("opnix explain {unit} {credential}"),
        _ => format!("opnix status {unit}"),
    });
    of_unit!(
        unit,
        warn,
        id::UNIT_REFUSED,
        opnix_credential = credential,
        opnix_check = check,
        opnix_reason = reason,
        "opnix refused {unit} the credential \"{credential}\"{often}: {reason}. See: {see}"
    );
}

/// The unit waits for a credential for some seconds already; `why`, if anything is known of that. `left` is how long it may go on.
pub fn unit_waits(unit: &str, credential: &str, why: Option<&str>, left: Option<Duration>) {
    let end =
        left.map_or("without end".to_owned(), |left| format!("for up to {} more", format_duration(left)));
    let why = why.unwrap_or("the provider has not answered yet");
    let see = see(|| format!("opnix status {unit}"));
    of_unit!(
        unit,
        warn,
        id::UNIT_WAITS,
        opnix_credential = credential,
        opnix_reason = why,
        "{unit} waits for the credential \"{credential}\" from opnix, {end}: {why}. See: {see}"
    );
}

/// The unit did not start because a file of the mirror was not there. `comes`: it is started when the file is there.
pub fn unit_lacks_file(unit: &str, path: &str, why: &str, comes: bool) {
    let then = if comes { "it is started as soon as that is there" } else { "start it when that is there" };
    let see = see(|| "opnix status".to_owned());
    of_unit!(
        unit,
        warn,
        id::UNIT_LACKS_FILE,
        opnix_path = path,
        opnix_reason = why,
        "{unit} needs {path}, which is not there: {why}; {then}. See: {see}"
    );
}

/// The unit waits for opnix.service, whose start fails in this way.
pub fn unit_waits_for_service(unit: &str, service: &str, how: &str) {
    let manager = if scope::has_systems_manager() { "" } else { " --user" };
    of_unit!(
        unit,
        warn,
        id::UNIT_WAITS_FOR_SERVICE,
        opnix_reason = how,
        "{unit} waits for {service}, which does not start ({how}): systemctl{manager} status {service}"
    );
}
