//! What the calls answer, from the configuration in force and its store.

use super::interface::{Budget, Cache, Error, Explanation, Records, Refreshed, Rule, Secret, Status, Window};
use crate::names::{CredentialName, UnitName};
use crate::policy::{self, Denied, Entry, Policy};
use crate::records;
use crate::remedy::Remedy;
use crate::server::{Configuration, Service};

impl Service {
    pub fn overview(&self) -> Status {
        let (queued, dropped) = records::counts();
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            faults: None,
            provider: None,
            cache: Cache {
                sealed: false,
                unsealed_because: None,
                in_memory: 0,
                sealable: 0,
                written_at: None,
            },
            budget: Budget { hour: unlimited(), day: unlimited(), limited_until: None },
            secrets: Vec::new(),
            waiting: self.waiting() as u64,
            records: Records { queued, dropped: dropped.iter().sum() },
        };
        match &*self.configuration() {
            Configuration::Valid { provider, store, entries, .. } => {
                status.provider = Some(store.provider_report(provider.kind()));
                status.cache = store.cache_report();
                status.budget = store.budget_report();
                status.secrets = entries.iter().map(|entry| store.secret_report(entry)).collect();
            }
            Configuration::Faulty(why) => status.faults = Some(why.clone()),
        }
        status
    }

    pub fn explain(&self, unit: &str, credential: &str) -> Result<Explanation, Error> {
        let invalid = |name: &str, reason: String| Error::InvalidName { name: name.to_owned(), reason };
        let unit = unit.parse::<UnitName>().map_err(|error| invalid(unit, error.lines()))?;
        let credential =
            credential.parse::<CredentialName>().map_err(|error| invalid(credential, error.lines()))?;
        match &*self.configuration() {
            Configuration::Valid { policy, store, .. } => {
                let secret = |entry: &Entry| Some(store.secret_report(entry));
                Ok(explain(policy, &unit, &credential, secret))
            }
            Configuration::Faulty(why) => Err(Error::Unconfigured { faults: why.clone() }),
        }
    }

    pub async fn refresh(&self, names: &[String], dry_run: bool) -> Result<Refreshed, Error> {
        let configuration = self.configuration();
        let (entries, store) = match &*configuration {
            Configuration::Valid { entries, store, .. } => (entries, store),
            Configuration::Faulty(why) => return Err(Error::Unconfigured { faults: why.clone() }),
        };
        let mut wanted: Vec<&Entry> = Vec::new();
        for name in names {
            let entry = entries.iter().find(|entry| entry.name == *name);
            wanted.push(entry.ok_or_else(|| Error::UnknownSecret { name: name.clone() })?);
        }
        if names.is_empty() {
            wanted = entries.iter().map(|entry| &**entry).collect();
        }
        let secrets = if dry_run { store.peek(&wanted).await } else { store.refresh(&wanted).await };
        Ok(Refreshed { secrets })
    }
}

/// By which line a unit would get a credential, or which lines come near. `secret` tells of its value.
pub fn explain(
    policy: &Policy,
    unit: &UnitName,
    credential: &CredentialName,
    secret: impl Fn(&Entry) -> Option<Secret>,
) -> Explanation {
    match policy.rule_for(unit, credential) {
        Ok(rule) => Explanation {
            granted: true,
            reason: None,
            rule: Some(Rule::from(rule)),
            name: Some(rule.entry.name.clone()),
            secret: secret(&rule.entry),
            references: rule.entry.content.references().map(ToString::to_string).collect(),
            others: Vec::new(),
        },
        Err(denied) => {
            let mut others: Vec<&policy::Rule> = match denied {
                Denied::NotForUnit => policy.rules().filter(|rule| rule.credential == *credential).collect(),
                Denied::UnknownCredential => policy.rules().filter(|rule| rule.units.matches(unit)).collect(),
            };
            others.sort_by_key(|rule| (rule.credential.clone(), rule.units.clone()));
            Explanation {
                granted: false,
                reason: Some(denied.to_string()),
                rule: None,
                name: None,
                secret: None,
                references: Vec::new(),
                others: others.into_iter().map(Rule::from).collect(),
            }
        }
    }
}

impl From<&policy::Rule> for Rule {
    fn from(rule: &policy::Rule) -> Self {
        Self {
            units: rule.units.to_string(),
            credential: rule.credential.to_string(),
            place: rule.place.to_string(),
        }
    }
}

fn unlimited() -> Window {
    Window { used: 0, left: None, limit: None }
}
