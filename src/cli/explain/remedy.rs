//! What to do where the mapping refuses a unit its credential.

use crate::cli::check::credentials::{Credentials, Source};
use crate::cli::control::ControlArguments;
use crate::control::interface::Rule;
use crate::names::{UnitName, UnitPattern};
use crate::policy::MIRROR;
use crate::scope;
use crate::similar::nearest;
use crate::systemd::SOCKET;
use crate::systemd::unit_files::UnitFiles;

/// Names of units that are shorter are all alike.
const SHORT: usize = 4;

/// `others` are the lines of the mapping that come near. `written` finds the line of the unit's files that asks for the credential.
pub fn of(
    unit: &str,
    credential: &str,
    others: &[Rule],
    written: impl FnOnce() -> Option<String>,
) -> Vec<String> {
    if unit == MIRROR {
        return vec![
            "the configuration in force has no file for this name; if it is another one by now: systemctl reload opnix.service opnix-mirror.service".into(),
        ];
    }
    let (own, foreign): (Vec<&Rule>, Vec<&Rule>) = others.iter().partition(|rule| is_for(rule, unit));
    if let Some(meant) = nearest(credential, own.iter().map(|rule| rule.credential.as_str())) {
        let written = written();
        let place = written.map_or_else(|| format!("in {unit}"), |place| format!("at {place}"));
        return vec![
            format!("did you mean \"{meant}\"? {place} write"),
            format!("LoadCredential={meant}:{}", scope::socket().display()),
        ];
    }
    let same: Vec<&Rule> = foreign.iter().copied().filter(|rule| rule.credential == credential).collect();
    let stems = same.iter().map(|rule| stem(&rule.units)).filter(|stem| stem.len() >= SHORT);
    if let Some(meant) = nearest(stem(unit), stems)
        && let Some(rule) = same.iter().find(|rule| stem(&rule.units) == meant)
    {
        return vec![
            format!("did you mean {unit} with \"{}\"? at {} write \"{unit}\"", rule.units, rule.place),
            format!("else add \"{unit}\" to the `units` of the secret in secrets.json"),
        ];
    }
    if !same.is_empty() {
        return vec![format!("add \"{unit}\" to the `units` of the secret in secrets.json")];
    }
    match foreign.first() {
        Some(near) => vec![
            format!(
                "did you mean \"{}\"? add \"{unit}\" to its `units`, {}, and in {unit} write",
                near.credential, near.place
            ),
            format!("LoadCredential={}:{}", near.credential, scope::socket().display()),
        ],
        None => vec![format!("add a secret of this name to secrets.json, with \"{unit}\" among its `units`")],
    }
}

/// What is alike in all names says nothing about which was meant.
fn stem(unit: &str) -> &str {
    unit.rsplit_once('.').map_or(unit, |(stem, _)| stem)
}

fn is_for(rule: &Rule, unit: &str) -> bool {
    let (Ok(units), Ok(unit)) = (rule.units.parse::<UnitPattern>(), unit.parse::<UnitName>()) else {
        return false;
    };
    units.matches(&unit)
}

/// The line of the unit's files on this machine that asks our socket for this credential.
pub fn line_of(unit: &str, credential: &str, control: &ControlArguments) -> Option<String> {
    if control.control != std::path::Path::new(crate::control::SOCKET) {
        return None;
    }
    let effective = UnitFiles::of_the_machine().ok()?.effective(unit).ok()?;
    let credentials = Credentials::of(&effective);
    let loaded = credentials.loaded.get(credential)?;
    let is_ours = matches!(&loaded.source, Source::Path(path) if path == SOCKET);
    is_ours.then(|| loaded.place.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(units: &str, credential: &str) -> Rule {
        Rule { units: units.into(), credential: credential.into(), place: "secrets.json:2:9".into() }
    }

    fn says(unit: &str, credential: &str, others: &[Rule]) -> String {
        of(unit, credential, others, || Some("/etc/systemd/system/x.service:7".into())).join("\n")
    }

    #[test]
    fn a_misspelt_credential_names_the_line_that_asks_for_it() {
        let own = [rule("x.service", "openai-api-key"), rule("x.service", "other")];
        assert_eq!(
            says("x.service", "openai-apikey", &own),
            "did you mean \"openai-api-key\"? at /etc/systemd/system/x.service:7 write\n\
             LoadCredential=openai-api-key:/run/opnix/creds.sock"
        );
        let without = of("x@1.service", "openai-apikey", &[rule("x@*.service", "openai-api-key")], || None);
        assert!(without[0].ends_with("in x@1.service write"), "{without:?}");
    }

    #[test]
    fn a_misspelt_unit_names_the_line_of_the_mapping() {
        let said = says("opencode.service", "key", &[rule("opencde.service", "key")]);
        assert!(
            said.starts_with("did you mean opencode.service with \"opencde.service\"? at secrets.json:2:9"),
            "{said}"
        );
        // Short names that have little but their kind in common.
        let said = says("db.service", "key", &[rule("web.service", "key")]);
        assert_eq!(said, "add \"db.service\" to the `units` of the secret in secrets.json");
    }

    #[test]
    fn what_is_near_to_nothing_of_the_unit_is_to_be_added() {
        let said = says("new.service", "key-on", &[rule("web.service", "key-one")]);
        assert!(said.contains("add \"new.service\" to its `units`, secrets.json:2:9"), "{said}");
        assert!(says("new.service", "key", &[]).starts_with("add a secret of this name"));
        assert!(says(MIRROR, "mirror-1", &[]).contains("no file for this name"));
    }
}
