//! Who may have what. Deny by default: a unit gets exactly the credentials that the configuration maps to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::names::{CredentialName, UnitName, UnitPattern};
use crate::peer::{Claim, Peer};
use crate::place::Place;
use crate::similar;
use crate::template::Template;

/// One secret or template of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub content: Template,
    pub place: Place,
}

/// One line of the mapping: these units may have this entry under this credential name.
#[derive(Debug, Clone)]
pub struct Rule {
    pub units: UnitPattern,
    pub credential: CredentialName,
    pub entry: Arc<Entry>,
    /// How long a unit may wait for it, if not as long as all others; [`Duration::MAX`] is for ever.
    pub deadline: Option<Duration>,
    pub place: Place,
}

/// The mapping. The rule for a unit by name takes precedence over the rule for all instances of its template; two rules
/// for the same units and credential cannot be added. So the order of the configuration does not matter.
#[derive(Debug, Default)]
pub struct Policy {
    rules: HashMap<CredentialName, HashMap<UnitPattern, Rule>>,
    /// What the mirror may have.
    mirrored: HashMap<CredentialName, Arc<Entry>>,
}

/// The unit that writes files, and watches for changes: `systemd/opnix-mirror.service`.
pub const MIRROR: &str = "opnix-mirror.service";

/// The right of one unit to one entry. Only [`Policy::decide`] makes one.
#[derive(Debug)]
#[must_use]
pub struct Grant {
    peer: Peer,
    entry: Arc<Entry>,
    deadline: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("no secret is configured under this credential name")]
    UnknownCredential,
    #[error("this secret is not configured for this unit")]
    NotForUnit,
}

/// What was probably meant by a unit and credential that are not mapped to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meant {
    /// This credential, which is mapped to the unit.
    Credential(CredentialName),
    /// This unit, or this template, to which the credential is mapped.
    Units(UnitPattern),
}

impl std::fmt::Display for Meant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Credential(name) => write!(f, "did the unit mean \"{name}\", which is configured for it?"),
            Self::Units(units) => write!(f, "did the configuration, which names {units}, mean this unit?"),
        }
    }
}

impl Policy {
    /// Adds a rule, unless there is one for the same units and credential already.
    pub fn add(&mut self, rule: Rule) -> Result<(), &Rule> {
        use std::collections::hash_map::Entry;
        match self.rules.entry(rule.credential.clone()).or_default().entry(rule.units.clone()) {
            Entry::Occupied(taken) => Err(taken.into_mut()),
            Entry::Vacant(free) => {
                free.insert(rule);
                Ok(())
            }
        }
    }

    pub fn decide(&self, peer: Peer) -> Result<Grant, (Peer, Denied)> {
        let mirrored =
            || self.mirrored.get(&peer.credential).filter(|_| peer.unit.as_str() == MIRROR).cloned();
        match self.rule_for(&peer.unit, &peer.credential) {
            Ok(rule) => Ok(Grant { entry: rule.entry.clone(), deadline: rule.deadline, peer }),
            Err(denied) => match mirrored() {
                Some(entry) => Ok(Grant { entry, deadline: None, peer }),
                None => Err((peer, denied)),
            },
        }
    }

    /// Lets the mirror have an entry, under the name that its content has.
    pub fn mirror(&mut self, entry: &Arc<Entry>) {
        self.mirrored.insert(entry.content.mirror_name(), entry.clone());
    }

    /// The rule that decides for this unit and credential: it answers a question, and grants nothing.
    pub fn rule_for(&self, unit: &UnitName, credential: &CredentialName) -> Result<&Rule, Denied> {
        let rules = self.rules.get(credential).ok_or(Denied::UnknownCredential)?;
        let exact = rules.get(&UnitPattern::Unit(unit.clone()));
        let template = || rules.get(&UnitPattern::Instances(unit.template()?));
        exact.or_else(template).ok_or(Denied::NotForUnit)
    }

    /// What was probably meant where [`Self::rule_for`] finds nothing. Looks through the whole mapping.
    pub fn meant(&self, unit: &UnitName, credential: &CredentialName) -> Option<Meant> {
        let of_unit = self.rules().filter(|rule| rule.units.matches(unit)).map(|rule| &rule.credential);
        if let Some(name) = similar::nearest(credential.as_str(), of_unit.map(CredentialName::as_str)) {
            return name.parse().ok().map(Meant::Credential);
        }
        let of_credential = self.rules.get(credential).into_iter().flat_map(HashMap::keys);
        // A template is compared with the unit's own.
        let template = unit.template();
        let named = of_credential.filter_map(|units| match units {
            UnitPattern::Unit(name) => Some((name.as_str(), units)),
            UnitPattern::Instances(name) => template.as_ref().map(|_| (name.as_str(), units)),
        });
        let named: Vec<_> = named.collect();
        let (units, templates): (Vec<_>, Vec<_>) =
            named.into_iter().partition(|(_, units)| matches!(units, UnitPattern::Unit(_)));
        let among = |written: &str, known: &[(&str, &UnitPattern)]| {
            let nearest = similar::nearest_unit(written, known.iter().map(|(name, _)| *name))?;
            known.iter().find(|(name, _)| *name == nearest).map(|(_, units)| (*units).clone())
        };
        let by_template = || template.as_deref().and_then(|template| among(template, &templates));
        among(unit.as_str(), &units).or_else(by_template).map(Meant::Units)
    }

    /// What this unit may have under this name, the mirror included: it answers a question, and grants nothing.
    pub fn entry_for(&self, unit: &UnitName, credential: &CredentialName) -> Option<&Entry> {
        let mirrored = || self.mirrored.get(credential).filter(|_| unit.as_str() == MIRROR);
        self.rule_for(unit, credential).map(|rule| &rule.entry).ok().or_else(mirrored).map(|entry| &**entry)
    }

    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.values().flat_map(HashMap::values)
    }
}

impl Grant {
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// How long this unit may wait for its value, if the configuration has a deadline for it alone.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Gives the right up, for another decision.
    pub fn into_peer(self) -> Peer {
        self.peer
    }

    pub fn claim(&self) -> Claim {
        self.peer.claim()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(units: &str, credential: &str, name: &str) -> Rule {
        let place = Place { file: std::path::Path::new("secrets.json").into(), position: None };
        let content = Template::parse("{{ op://v/i/f }}").unwrap();
        Rule {
            units: units.parse().unwrap(),
            credential: credential.parse().unwrap(),
            entry: Arc::new(Entry { name: name.into(), content, place: place.clone() }),
            deadline: None,
            place,
        }
    }

    fn decide(policy: &Policy, unit: &str, credential: &str) -> Result<String, Denied> {
        let rule = policy.rule_for(&unit.parse().unwrap(), &credential.parse().unwrap());
        rule.map(|rule| rule.entry.name.clone())
    }

    #[test]
    fn what_is_not_mapped_is_denied() {
        let mut policy = Policy::default();
        assert_eq!(decide(&policy, "a.service", "key"), Err(Denied::UnknownCredential));
        policy.add(rule("a.service", "key", "A")).unwrap();
        assert_eq!(decide(&policy, "a.service", "key"), Ok("A".into()));
        assert_eq!(decide(&policy, "b.service", "key"), Err(Denied::NotForUnit));
        assert_eq!(decide(&policy, "a.service", "other"), Err(Denied::UnknownCredential));
        assert_eq!(decide(&policy, "a.socket", "key"), Err(Denied::NotForUnit));
    }

    #[test]
    fn what_was_probably_meant_is_known() {
        let mut policy = Policy::default();
        for (units, credential) in
            [("postgresql.service", "password"), ("app@*.service", "api-key"), ("web.service", "cert")]
        {
            policy.add(rule(units, credential, "A")).unwrap();
        }
        let meant = |unit: &str, credential: &str| {
            policy.meant(&unit.parse().unwrap(), &credential.parse().unwrap()).map(|meant| meant.to_string())
        };
        let credential = |name| Some(format!("did the unit mean \"{name}\", which is configured for it?"));
        let units = |units| Some(format!("did the configuration, which names {units}, mean this unit?"));
        assert_eq!(meant("postgresql.service", "pasword"), credential("password"));
        assert_eq!(meant("app@x.service", "api_key"), credential("api-key"));
        assert_eq!(meant("postgres.service", "password"), units("postgresql.service"));
        assert_eq!(meant("apps@x.service", "api-key"), units("app@*.service"));
        assert_eq!(meant("nginx.service", "password"), None);
        assert_eq!(meant("web.service", "password"), None);
    }

    #[test]
    fn a_second_rule_for_the_same_units_and_credential_is_not_taken() {
        let mut policy = Policy::default();
        policy.add(rule("a@*.service", "key", "A")).unwrap();
        assert_eq!(policy.add(rule("a@*.service", "key", "B")).unwrap_err().entry.name, "A");
    }

    proptest! {
        #[test]
        fn the_order_of_the_rules_does_not_matter(order in Just(vec![0, 1, 2, 3]).prop_shuffle()) {
            let rules = [("a@*.service", "all"), ("a@x.service", "x"), ("a@y.service", "y"), ("b@*.service", "b")];
            let mut policy = Policy::default();
            for index in order {
                policy.add(rule(rules[index].0, "key", rules[index].1)).unwrap();
            }
            prop_assert_eq!(decide(&policy, "a@x.service", "key"), Ok("x".into()));
            prop_assert_eq!(decide(&policy, "a@y.service", "key"), Ok("y".into()));
            prop_assert_eq!(decide(&policy, "a@z.service", "key"), Ok("all".into()));
            prop_assert_eq!(decide(&policy, "b@x.service", "key"), Ok("b".into()));
        }
    }
}
