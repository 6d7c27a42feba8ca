//! The credentials of one start belong together: what a unit is given of one item is of one version of it, a certificate and its
//! key, say. systemd asks for each by itself, and the item may change in between: then the start is refused, and made again.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Configuration;
use super::refusal::Refusal;
use crate::moment::Moment;
use crate::names::{CredentialName, UnitPattern};
use crate::policy::{Grant, Policy};
use crate::reference::Reference;
use crate::store::Served;
use crate::store::versions::{Item, item};

/// Whoever has one credential of a start asks for the next one at once: sooner than this, on any machine that is still alive.
const AT_ONCE: Duration = Duration::from_secs(10);
/// How many starts are remembered before the old ones are forgotten.
const MANY: usize = 1024;

/// The items of which a unit, or the instances of a template, has more than one credential.
#[derive(Debug, Default)]
pub struct Pairs(HashMap<String, HashSet<Item>>);

impl Pairs {
    pub fn of(policy: &Policy) -> Self {
        let mut credentials: HashMap<(String, Item), HashSet<&str>> = HashMap::new();
        for rule in policy.rules() {
            let family = match &rule.units {
                UnitPattern::Unit(unit) => unit.template().unwrap_or_else(|| unit.to_string()),
                UnitPattern::Instances(template) => template.clone(),
            };
            for item in rule.entry.content.references().filter_map(item) {
                credentials.entry((family.clone(), item)).or_default().insert(rule.credential.as_str());
            }
        }
        let mut pairs = Self::default();
        for ((family, item), names) in credentials {
            if names.len() > 1 {
                pairs.0.entry(family).or_default().insert(item);
            }
        }
        pairs
    }
}

/// What was given in each start, by the process that asks.
#[derive(Default)]
pub struct Starts(Mutex<HashMap<(i32, String), Start>>);

struct Start {
    /// When it was last given something.
    at: Moment,
    /// By the credential.
    given: HashMap<CredentialName, Vec<(Reference, u64)>>,
}

impl Starts {
    /// Whether this, asked for at that time, goes together with what the same start was given before.
    pub fn agree(
        &self,
        grant: &Grant,
        since: Moment,
        served: &Served,
        configuration: &Configuration,
    ) -> Result<(), Refusal> {
        let Configuration::Valid { pairs, store, .. } = configuration else { return Ok(()) };
        let peer = grant.peer();
        let template = peer.unit.template();
        let Some(shared) = pairs.0.get(template.as_deref().unwrap_or(peer.unit.as_str())) else {
            return Ok(());
        };
        let is_shared = |reference: &Reference| item(reference).is_some_and(|item| shared.contains(&item));
        let parts = grant.entry().content.references().zip(&served.parts);
        let given: Vec<(Reference, u64)> = parts
            .filter(|(reference, _)| is_shared(reference))
            .map(|(reference, value)| (reference.clone(), store.print_of(value)))
            .collect();
        if given.is_empty() {
            return Ok(());
        }
        let mut starts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Moment::now();
        if starts.len() >= MANY {
            starts.retain(|_, start| now.since(start.at) < AT_ONCE);
        }
        let key = (peer.pid, peer.unit.to_string());
        let start = starts.entry(key.clone()).or_insert_with(|| Start { at: now, given: HashMap::new() });
        // A start asks for each once.
        if since.since(start.at) >= AT_ONCE || start.given.contains_key(&peer.credential) {
            start.given.clear();
        }
        start.at = now;
        let items: HashSet<Item> = given.iter().filter_map(|(reference, _)| item(reference)).collect();
        let is_of_these =
            |(reference, _): &&(Reference, u64)| item(reference).is_some_and(|item| items.contains(&item));
        let before: Vec<_> = start.given.values().flatten().filter(is_of_these).cloned().collect();
        let now: Vec<Reference> = given.iter().map(|(reference, _)| reference.clone()).collect();
        if !store.belong_together(&[&before[..], &given].concat(), &now) {
            starts.remove(&key);
            return Err(Refusal::Apart { item: now[0].item.clone() });
        }
        start.given.insert(peer.credential.clone(), given);
        Ok(())
    }
}
