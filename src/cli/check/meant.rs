//! What a line or a mapping probably meant that names what does not exist.

use std::collections::BTreeSet;
use std::path::Path;

use super::credentials::{Loaded, Source};
use super::mapping::name_of;
use super::units::{Report, Unit, is_at};
use crate::config::Config;
use crate::names::{CredentialName, UnitPattern};
use crate::policy::Rule;
use crate::similar;
use crate::systemd::unit_files::UnitFiles;

/// How many letters a path may be off.
const PATH_MAX: usize = 4;

/// What to do about a credential that is not mapped to the unit.
pub fn mapping(unit: &Unit<'_>, name: &CredentialName, config: &Config) -> String {
    let units = &unit.units;
    let of_unit = unit.granted.iter().map(|rule| rule.credential.as_str());
    if let Some(meant) = similar::nearest(name.as_str(), of_unit) {
        return format!("did you mean \"{meant}\", which is mapped to it?");
    }
    let rules: Vec<&Rule> = config.policy.rules().filter(|rule| rule.credential == *name).collect();
    let rule = similar::nearest_unit(written(units), rules.iter().map(|rule| name_of(rule)))
        .and_then(|meant| rules.iter().find(|rule| name_of(rule) == meant));
    match rule {
        Some(rule) => format!("did {} mean it, which names {}?", rule.place, rule.units),
        None => format!("add \"{units}\" to the `units` of a secret named \"{name}\""),
    }
}

/// Of opnix itself.
const OWN: [&str; 8] = [
    "opnix.service",
    "opnix-setup.service",
    "opnix-key.service",
    "opnix-mirror.service",
    "opnix-mount.service",
    "opnix-token.service",
    "opnix.socket",
    "opnix-control.socket",
];

/// The unit that a mapping probably meant which names one that has no file here.
pub fn unit<'f>(rule: &Rule, files: &UnitFiles, names: &'f BTreeSet<String>) -> Option<&'f str> {
    let name = name_of(rule);
    let is_template = |name: &str| name.contains("@.");
    let kind = |name: &str| name.rsplit_once('.').map(|(_, kind)| kind.to_owned());
    let known = names.iter().map(String::as_str);
    // It may be in memory still; and nobody means a part of opnix.
    let other = known.filter(|known| *known != name && !OWN.contains(known));
    let like = other.filter(|known| is_template(known) == is_template(name) && kind(known) == kind(name));
    if files.is_known(name) { None } else { similar::nearest_unit(name, like) }
}

/// Credentials from a path that is like the socket's and is not the socket.
pub fn sockets(unit: &Unit<'_>, socket: &str, report: &mut Report) {
    for (id, Loaded { source, place, .. }) in &unit.credentials.loaded {
        let Source::Path(path) = source else { continue };
        let right = format!("write LoadCredential={id}:{socket}");
        if path != socket && is_at(source, socket) {
            let what =
                format!("{} asks at {path}, which leads to the socket by an old name of /run", unit.units);
            report.warning(place, what, right);
        } else if resembles(path, socket) {
            let what = format!(
                "credential \"{id}\" of {} comes from {path}, which is not opnix's socket",
                unit.units
            );
            report.fault(place, what, format!("did you mean {socket}? {right}"));
        }
    }
}

/// Whether the path was probably meant to be that of the socket.
pub fn resembles(path: &str, socket: &str) -> bool {
    let path = path.strip_prefix("/var").filter(|path| path.starts_with("/run/")).unwrap_or(path);
    let (path, is_control) = (Path::new(path), path == crate::control::SOCKET);
    let socket = Path::new(socket);
    let is_beside = path.parent() == socket.parent();
    let names_a_socket = |path: &Path| {
        path.extension().is_some_and(|extension| ["sock", "socket"].iter().any(|known| extension == *known))
    };
    let distance = || strsim::damerau_levenshtein(&path.to_string_lossy(), &socket.to_string_lossy());
    path != socket && !is_control && (is_beside && names_a_socket(path) || distance() <= PATH_MAX)
}

fn written(units: &UnitPattern) -> &str {
    match units {
        UnitPattern::Unit(unit) => unit.as_str(),
        UnitPattern::Instances(template) => template,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_like_the_socket_or_is_somebody_elses() {
        let socket = crate::systemd::SOCKET;
        for path in [
            "/run/opnix/cred.sock",
            "/run/opnix/creds.socket",
            "/run/opnix/opnix.sock",
            "/run/opnx/creds.sock",
        ] {
            assert!(resembles(path, socket), "{path}");
        }
        for path in
            [socket, crate::control::SOCKET, "/run/vault/creds.sock", "/etc/creds", "/run/secrets/key"]
        {
            assert!(!resembles(path, socket), "{path}");
        }
    }
}
