//! Whether every credential would be served now, and if not, why. Pure.

use super::files::Look;
use super::relative;
use crate::cli::Exit;
use crate::control::interface::{Health, MirroredFile, Refusal, Request, Secret, State, Status};
use crate::policy::MIRROR;
use crate::systemd::manager::Unit;
use std::path::Path;
use std::time::SystemTime;

/// So many are named; of the others the number is told.
const NAMED: usize = 12;

pub struct Verdict {
    pub exit: Exit,
    /// What is wrong, the worst first.
    pub reasons: Vec<String>,
}

/// Why a refusal is of no interest any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The unit was started since, and runs.
    Runs,
    Gone,
    /// It does not ask for that any more.
    NotAsked,
}

impl Over {
    pub fn words(self) -> &'static str {
        match self {
            Self::Runs => "it was started since, and runs",
            Self::Gone => "there is no such unit any more",
            Self::NotAsked => "it does not ask for that any more",
        }
    }
}

/// Whether the refusal of a unit is over, by how that is now, and by the requests that wait. `socket` is where the service gives
/// credentials.
pub fn over(refusal: &Refusal, requests: &[Request], unit: &Unit, socket: &Path) -> Option<Over> {
    let Refusal { credential, at, .. } = refusal;
    if !unit.is_known() {
        return Some(Over::Gone);
    }
    // One of Type=simple is active while it waits.
    let waits =
        requests.iter().any(|request| (&request.unit, &request.credential) == (&refusal.unit, credential));
    let is_up = unit.is_running() && unit.state() != "activating" && !waits;
    if is_up && unit.started() > *at {
        return Some(Over::Runs);
    }
    // systemd finds sockets in a directory as well, and then begins the credential's name with its own.
    let asks = unit.loads().iter().any(|load| {
        let source = Path::new(&load.source);
        source == socket && load.id == *credential
            || source != socket && socket.starts_with(source) && credential.starts_with(&load.id)
    });
    (!asks).then_some(Over::NotAsked)
}

/// A unit that was refused something, and has not got it since.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    pub refusal: Refusal,
    pub over: Option<Over>,
}

impl Verdict {
    /// Nothing would be served, because of something that the service does not see.
    pub fn but(&mut self, why: String) {
        self.reasons.insert(0, why);
        if self.exit == Exit::Ok {
            self.exit = Exit::Unavailable;
        }
    }
}

/// Whether a unit would be given it now.
pub fn is_servable(secret: &Secret, status: &Status) -> bool {
    secret.ready.unwrap_or_else(|| match secret.state {
        // An older service does not say.
        State::Fresh | State::Stale | State::Kept => true,
        State::Missing => status.provider.as_ref().is_some_and(|provider| provider.health != Health::Down),
        State::Refused => false,
    })
}

pub fn judge<'f>(
    status: &Status,
    refused: &[Refused],
    files: impl Iterator<Item = (&'f MirroredFile, &'f Look)>,
    now: SystemTime,
) -> Verdict {
    let mut reasons = Vec::new();
    let (mut is_faulty, mut lacks) = (false, false);
    if status.faults.is_some() {
        is_faulty = true;
        reasons.push("the configuration is faulty: every request is refused".to_owned());
    }
    if status.obstacle.is_some() {
        lacks = true;
        reasons.push("this machine keeps opnix from serving any unit".to_owned());
    }
    if status.rejected.is_some() {
        is_faulty = true;
        reasons.push("the configuration is faulty: an older one is in force".to_owned());
    }
    if status.bad_token.is_some() {
        is_faulty = true;
        reasons.push("the token in its file is faulty, and not in force".to_owned());
    }
    let needed = || status.secrets.iter().filter(|secret| secret.needed.unwrap_or(true));
    let missing: Vec<&str> =
        needed().filter(|secret| !is_servable(secret, status)).map(|secret| secret.name.as_str()).collect();
    if !missing.is_empty() {
        lacks = true;
        let all = needed().count();
        reasons.push(format!("{} of {all} secrets cannot be had now: {}", missing.len(), list(&missing)));
    }
    // Of the mirror's files it is told below how they are.
    for Refused { refusal, .. } in
        refused.iter().filter(|refused| refused.over.is_none() && refused.refusal.unit != MIRROR)
    {
        lacks = true;
        let Refusal { unit, credential, at, .. } = refusal;
        reasons.push(format!(
            "{unit} was refused \"{credential}\" {}, and has not got it since",
            relative(*at, now)
        ));
    }
    for (file, look) in files {
        match look {
            Look::Missing if !file.optional => reasons.push(format!("{} is not there", file.path)),
            // Who is to read it cannot, or others can.
            Look::Other(what) => reasons.push(format!("{} {what}", file.path)),
            _ => continue,
        }
        lacks = true;
    }
    let exit = match (is_faulty, lacks) {
        (true, _) => Exit::Config,
        (false, true) => Exit::Unavailable,
        (false, false) => Exit::Ok,
    };
    Verdict { exit, reasons }
}

/// In words, and not too many.
pub fn list(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let named = names[..names.len() - more].join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::systemd::bus::Value;

    fn status(more: serde_json::Value) -> Status {
        let mut whole = json!({"version": "1", "waiting": 0, "missed": [], "secrets": [],
            "provider": {"kind": "connect", "health": "up"},
            "cache": {"sealed": false, "in_memory": 0, "sealable": 0},
            "budget": {"hour": {"used": 0}, "day": {"used": 0}}});
        whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    fn exit(status: &Status) -> Exit {
        judge(status, &[], [].into_iter(), SystemTime::UNIX_EPOCH).exit
    }

    #[test]
    fn what_nobody_needs_makes_no_fault_and_what_cannot_be_had_does() {
        let secret = |state: &str, ready, needed| json!({"name": "a", "state": state, "ready": ready, "needed": needed});
        let of = |secret| exit(&status(json!({"secrets": [secret]})));
        assert_eq!(of(secret("missing", json!(false), json!(true))), Exit::Unavailable);
        assert_eq!(of(secret("missing", json!(false), json!(false))), Exit::Ok);
        assert_eq!(of(secret("missing", json!(true), json!(true))), Exit::Ok);
        // An older service.
        assert_eq!(of(secret("missing", json!(null), json!(null))), Exit::Ok);
        assert_eq!(of(secret("refused", json!(null), json!(null))), Exit::Unavailable);
        let down = json!({"provider": {"kind": "connect", "health": "down"}, "secrets": [{"name": "a", "state": "missing"}]});
        assert_eq!(exit(&status(down)), Exit::Unavailable);
        let warm = json!({"provider": {"kind": "connect", "health": "down"}, "secrets": [{"name": "a", "state": "kept"}]});
        assert_eq!(exit(&status(warm)), Exit::Ok);
        let rejected =
            json!({"rejected": {"faults": "f", "since": 0}, "secrets": [{"name": "a", "state": "refused"}]});
        assert_eq!(exit(&status(rejected)), Exit::Config);
    }

    #[test]
    fn a_refusal_counts_until_it_is_over_and_a_file_if_it_has_to_be_there() {
        let refusal = |unit: &str| Refusal {
            unit: unit.into(),
            credential: "key".into(),
            secret: None,
            at: 5,
            times: 1,
            check: "policy".into(),
            reason: "no".into(),
        };
        let judged = |refused: &Refused| {
            judge(&status(json!({})), std::slice::from_ref(refused), [].into_iter(), SystemTime::UNIX_EPOCH)
                .exit
        };
        assert_eq!(judged(&Refused { refusal: refusal("a.service"), over: None }), Exit::Unavailable);
        assert_eq!(judged(&Refused { refusal: refusal("a.service"), over: Some(Over::Runs) }), Exit::Ok);
        assert_eq!(judged(&Refused { refusal: refusal(MIRROR), over: None }), Exit::Ok);
        let file = |optional| MirroredFile {
            secret: "s".into(),
            credential: "c".into(),
            path: "/x".into(),
            owner: "root".into(),
            group: None,
            mode: "0400".into(),
            symlinks: Vec::new(),
            optional,
            services: Vec::new(),
        };
        let judged = |optional, look| {
            let files = [(&file(optional), &look)];
            judge(&status(json!({})), &[], files.into_iter(), SystemTime::UNIX_EPOCH).exit
        };
        assert_eq!(judged(false, Look::Missing), Exit::Unavailable);
        assert_eq!(judged(true, Look::Missing), Exit::Ok);
        assert_eq!(judged(false, Look::Unknown("?".into())), Exit::Ok);
        assert_eq!(judged(false, Look::Other("another mode".into())), Exit::Unavailable);
    }

    #[test]
    fn a_refusal_is_over_when_the_unit_runs_since_is_gone_or_does_not_ask_any_more() {
        let text = |text: &str| Value::Text(text.into());
        let loads = |id: &str, source: &str| Value::List(vec![Value::List(vec![text(id), text(source)])]);
        let unit = |load: &str, active: &str, started: u64, loads: Value| {
            Unit::made_up(
                "a.service",
                &[
                    ("LoadState", text(load)),
                    ("ActiveState", text(active)),
                    ("SubState", text("running")),
                    ("InactiveExitTimestamp", Value::Number(i128::from(started) * 1_000_000)),
                    ("LoadCredential", loads),
                ],
            )
        };
        let socket = Path::new("/run/opnix/creds.sock");
        let refusal = Refusal {
            unit: "a.service".into(),
            credential: "key".into(),
            secret: None,
            at: 100,
            times: 1,
            check: "provider".into(),
            reason: "down".into(),
        };
        let judge = |unit: &Unit| over(&refusal, &[], unit, socket);
        let asks = || loads("key", "/run/opnix/creds.sock");
        assert_eq!(judge(&unit("loaded", "failed", 90, asks())), None);
        assert_eq!(judge(&unit("loaded", "active", 90, asks())), None, "the refusal was of another start");
        assert_eq!(judge(&unit("loaded", "active", 110, asks())), Some(Over::Runs));
        assert_eq!(judge(&unit("not-found", "inactive", 0, asks())), Some(Over::Gone));
        assert_eq!(judge(&unit("loaded", "failed", 90, loads("key", "/etc/key"))), Some(Over::NotAsked));
        assert_eq!(judge(&unit("loaded", "failed", 90, loads("k", "/run/opnix"))), None, "of a directory");
    }

    #[test]
    fn many_names_are_not_all_told() {
        let names: Vec<String> = (0..14).map(|number| format!("n{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(list(&names[..2]), "n0, n1");
        assert!(list(&names).ends_with("n11 and 2 more"));
    }
}
