//! The configuration in force, and what it answers with.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::refusal::Refusal;
use super::starts::Pairs;
use crate::config::{self, Config, Faults, MirrorFile};
use crate::moment::Moment;
use crate::names::{CREDENTIALS_MAX, CredentialName, UnitName};
use crate::peer::{Claim, Peer};
use crate::policy::{Entry, Grant, MIRROR, Meant, Policy};
use crate::providers::Provider;
use crate::providers::child::token::TokenSource;
use crate::secret::Secret;
use crate::store::{Base, Inherited, Rules, Served, Store};

/// What the configuration is loaded from.
pub struct Sources {
    pub files: Vec<PathBuf>,
    pub token: TokenSource,
}

/// The configuration in force. A request that waits keeps the store of the one that it began with, unless it may wait longer than
/// others.
pub enum Configuration {
    Valid {
        policy: Policy,
        entries: Vec<Arc<Entry>>,
        /// Where the store's values come from.
        provider: config::Provider,
        store: Store,
        /// What the mirror is to write.
        files: Vec<MirrorFile>,
        /// What belongs together in a start.
        pairs: Box<Pairs>,
        needed: Arc<HashSet<String>>,
    },
    /// The service came up with a faulty configuration: it refuses every request and says why, until a reload mends it.
    Faulty(Faults),
}

impl Configuration {
    /// `old` is the configuration that this one replaces.
    pub fn new(config: Config, token: &TokenSource, base: &Base, old: Option<&Self>) -> Self {
        let Config { provider, timing, budget, settings, policy, entries, files, .. } = config;
        let rules = Rules { timing, budget, settings };
        let old = match old {
            Some(Self::Valid { provider: same, store, .. }) => Some((store, *same == provider)),
            _ => None,
        };
        let asked = old.filter(|(_, is_same)| *is_same).map(|(store, _)| store.provider().clone());
        let new = || Provider::new(provider.clone(), token.clone(), base.meter.clone());
        let asked = asked.unwrap_or_else(|| Arc::new(new()));
        // The old store writes nothing any more. What it knows is newer than what is on disk, whichever provider gave it; if it is
        // another account's, it is not served.
        let inherited = match old {
            None => Inherited::load(&base.disk, asked.account()),
            Some((store, true)) => store.hand_over(),
            Some((store, false)) => store.hand_over().of_another_provider(),
        };
        let store = Store::new(asked, rules, inherited, base);
        old.inspect(|(before, _)| store.succeeds(before));
        let pairs = Box::new(Pairs::of(&policy));
        let needed = Arc::new(needed(&policy, &files));
        Self::Valid { policy, entries, provider, store, files, pairs, needed }
    }

    /// The right to a value, with the store that has it or gets it.
    pub fn decide(&self, peer: Peer) -> Result<(Grant, Store), (Peer, Refusal)> {
        match self {
            Self::Valid { policy, store, .. } => policy
                .decide(peer)
                .map(|grant| (grant, store.clone()))
                .map_err(|(peer, why)| (peer, Refusal::Policy(why))),
            Self::Faulty(faults) => Err((peer, Refusal::Configuration(faults.line()))),
        }
    }

    /// What the unit may have.
    pub fn entry_for(&self, claim: &Claim) -> Option<&Entry> {
        match self {
            Self::Valid { policy, .. } => policy.entry_for(&claim.unit, &claim.credential),
            Self::Faulty(_) => None,
        }
    }

    /// What was probably meant, where the policy allows nothing.
    pub fn meant(&self, claim: &Claim) -> Option<Meant> {
        match self {
            Self::Valid { policy, .. } => policy.meant(&claim.unit, &claim.credential),
            Self::Faulty(_) => None,
        }
    }

    /// What the store keeps, where there is one.
    pub fn store(&self) -> Option<&Store> {
        match self {
            Self::Valid { store, .. } => Some(store),
            Self::Faulty(_) => None,
        }
    }

    /// Whether the unit may still have it. A faulty configuration does not say.
    pub fn still_maps(&self, claim: &Claim) -> bool {
        matches!(self, Self::Faulty(_)) || self.entry_for(claim).is_some()
    }

    /// The credentials that the unit may have, with the names of their secrets.
    pub fn credentials_of(&self, unit: &UnitName) -> BTreeMap<CredentialName, String> {
        let Self::Valid { policy, .. } = self else { return BTreeMap::new() };
        let names = policy.rules().filter(|rule| rule.units.matches(unit)).map(|rule| &rule.credential);
        let entry = |name: &CredentialName| Some(policy.entry_for(unit, name)?.name.clone());
        names.filter_map(|name| Some((name.clone(), entry(name)?))).collect()
    }

    /// Whether a unit needs this secret, or a file that has to be there. All others are of no use, or do without.
    pub fn needs(&self, name: &str) -> bool {
        matches!(self, Self::Valid { needed, .. } if needed.contains(name))
    }

    /// A unit was refused for want of its value: it is looked for in the background.
    pub fn await_value(&self, claim: &Claim) {
        if let (Self::Valid { store, .. }, Some(entry)) = (self, self.entry_for(claim)) {
            store.await_values(entry.content.references());
        }
    }

    /// Whether the unit would be given it now.
    pub fn has(&self, claim: &Claim) -> bool {
        match (self, self.entry_for(claim)) {
            (Self::Valid { store, .. }, Some(entry)) => store.has(&entry.content),
            _ => false,
        }
    }

    /// The newest value that is known. One that is another each time is not.
    pub fn newest(&self, entry: &Entry) -> Option<Arc<Secret>> {
        self.store()?.newest(&entry.content)
    }
}

fn needed(policy: &Policy, files: &[MirrorFile]) -> HashSet<String> {
    let files = files.iter().filter(|file| !file.optional).map(|file| &file.entry);
    policy.rules().map(|rule| &rule.entry).chain(files).map(|entry| entry.name.clone()).collect()
}

/// The value, if it may be given at once.
pub fn ready(store: &Store, grant: &Grant) -> Option<Served> {
    store.ready(grant).filter(|served| within_limit(grant, &served.value).is_ok())
}

/// The value, when it has come. `since` is when the unit first asked.
pub async fn get(store: &Store, grant: &Grant, since: Moment) -> Result<Served, Refusal> {
    let served = store.get(grant, since).await.map_err(|error| Refusal::Provider(Box::new(error)))?;
    within_limit(grant, &served.value).map(|()| served)
}

fn within_limit(grant: &Grant, value: &Secret) -> Result<(), Refusal> {
    let name = &grant.peer().credential;
    // The mirror has one value for each file, and no limit for all of them and their names.
    let limit = if grant.peer().unit.as_str() == MIRROR { CREDENTIALS_MAX } else { name.size_limit() };
    let size = value.len();
    if size <= limit { Ok(()) } else { Err(Refusal::TooLarge { size, limit, name: name.clone() }) }
}
