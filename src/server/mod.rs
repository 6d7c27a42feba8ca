//! The service, on two threads: the accept loop (one for each socket), which answers from memory, and the runtime, which runs
//! everything that takes time: waiting requests, fetches, reload and drain. So nothing that takes time holds up an answer from memory.

mod accept;
pub mod answer;
pub mod given;
mod in_force;
pub mod keeper;
pub mod lifetime;
mod missed;
pub mod places;
mod refusal;
mod refusals;
mod reload;
pub mod request;
mod starts;
mod told;
mod unserved;
mod waiting;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use self::given::{Gift, Given};
pub use self::in_force::{Configuration, Sources};
pub use self::missed::Miss;
use self::missed::Missed;
use self::places::Places;
use self::refusal::Refusal;
use self::refusals::Refusals;
pub use self::refusals::Refused;
pub use self::reload::Rejected;
use self::reload::{Looked, Read};
use self::starts::Starts;
pub use self::unserved::{Feed, News};
pub use self::waiting::Wait;
use self::waiting::Waiting;
use crate::config::Faults;
use crate::counters;
use crate::files::StateDirectory;
use crate::moment::Moment;
use crate::peer::{Claim, Legacy, Trust};
use crate::policy::{Grant, MIRROR};
use crate::providers::ledger::Meter;
use crate::records;
use crate::remedy::Remedy;
use crate::secret::Secret;
use crate::store::disk::Disk;
use crate::store::{Base, InForce, Served, Store};
use crate::systemd::notify::Notifier;

/// A token that was brought and is not in force.
#[derive(Debug, Clone)]
pub struct BadToken {
    pub why: String,
    /// When the first such one was brought.
    pub since: Moment,
}

/// What requests need.
pub struct Service {
    trust: Trust,
    notifier: Notifier,
    places: Arc<Places>,
    waiting: Waiting,
    sources: Sources,
    configuration: Mutex<Arc<Configuration>>,
    /// Since when it is in force.
    configured_at: Mutex<Moment>,
    /// Why it is an older one than that of the files.
    rejected: Mutex<Option<Rejected>>,
    looked: Arc<tokio::sync::Mutex<Looked>>,
    bad_token: Mutex<Option<BadToken>>,
    missed: Arc<Missed>,
    refusals: Refusals,
    given: Arc<Given>,
    starts: Starts,
    base: Base,
    /// Requests that have no answer yet, except those that never get one.
    unanswered: TaskTracker,
    /// Cancelled once everything that still waits is to be refused.
    refusing: CancellationToken,
    /// Cancelled when the keeper is gone: what systemd has is left to the next instance, all else is to be refused.
    orphaned: CancellationToken,
}

impl Service {
    /// Comes up even when the configuration, as it was read `first`, is faulty, because not listening would leave units waiting.
    pub fn new(
        trust: Trust,
        backed: bool,
        notifier: Notifier,
        runtime: Handle,
        sources: Sources,
        first: Read,
    ) -> Self {
        counters::begin();
        let disk = Arc::new(Disk::find());
        let base = Base {
            runtime,
            in_force: InForce::default(),
            meter: Meter::new(disk.ledger()),
            disk,
            changes: Arc::default(),
            begun: Arc::default(),
        };
        if let Some(why) = base.disk.unsealable() {
            info!("values are kept in memory only: {why}");
        }
        if let Some(obstacle) = trust.obstacle() {
            records::obstacle(&obstacle);
        }
        let mut service = Self {
            trust,
            places: Places::new(notifier.clone(), backed),
            notifier,
            waiting: Waiting::default(),
            sources,
            configuration: Mutex::new(Arc::new(Configuration::Faulty(Faults::default()))),
            configured_at: Mutex::new(Moment::now()),
            rejected: Mutex::default(),
            looked: Arc::default(),
            bad_token: Mutex::default(),
            missed: Arc::new(Missed::load(StateDirectory::of_runtime())),
            refusals: Refusals::new(),
            given: Arc::new(Given::load(StateDirectory::of_runtime())),
            starts: Starts::default(),
            base,
            unanswered: TaskTracker::new(),
            refusing: CancellationToken::new(),
            orphaned: CancellationToken::new(),
        };
        service.begin_with(first);
        service
    }

    pub fn configuration(&self) -> Arc<Configuration> {
        self.configuration.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Since when the configuration is in force.
    pub fn configured_at(&self) -> Moment {
        *self.configured_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a token that was replaced, or says why not; `None`: there is none any more; an error: why it cannot be read. Says
    /// whether it is another one.
    pub fn take_token(&self, token: Result<Option<Secret>, String>) -> Result<bool, String> {
        let taken = self.new_token(token).map(|token| self.hand_over(token));
        let mut bad = self.bad_token.lock().unwrap_or_else(PoisonError::into_inner);
        *bad = match &taken {
            Ok(_) => None,
            Err(why) if self.configuration().store().is_some() => {
                let since = bad.as_ref().map_or_else(Moment::now, |bad| bad.since);
                Some(BadToken { why: why.clone(), since })
            }
            Err(_) => bad.take(),
        };
        taken
    }

    /// Whether it would be taken, and is another one.
    pub fn would_take_token(&self, token: Result<Option<Secret>, String>) -> Result<bool, String> {
        self.new_token(token).map(|token| token.is_some())
    }

    fn hand_over(&self, token: Option<Secret>) -> bool {
        let is_new = token.is_some();
        if let Some(token) = token {
            self.sources.token.hand_over(token);
            records::token_taken();
        }
        if let Some(store) = self.configuration().store()
            && (is_new || self.sources.token.is_read_anew())
        {
            store.notice_new_token();
        }
        is_new
    }

    /// The token, if it is another one than that in force.
    fn new_token(&self, token: Result<Option<Secret>, String>) -> Result<Option<Secret>, String> {
        let configuration = self.configuration();
        let Some(store) = configuration.store() else {
            return Err("there is no valid configuration, which says what kind of token it has to be".into());
        };
        if !store.provider().needs_token() || self.sources.token.is_read_anew() {
            return Ok(None);
        }
        let in_force = self.sources.token.read();
        let token = match token? {
            None if in_force.is_ok() => return Err("it is not there any more, or empty".into()),
            None => return Ok(None),
            Some(token) => store.provider().check_token(token).map_err(|error| error.lines())?,
        };
        Ok((!in_force.is_ok_and(|in_force| in_force.is_same_as(&token))).then_some(token))
    }

    /// Why the token in its file is not the one in force, as far as it was brought.
    pub fn bad_token(&self) -> Option<BadToken> {
        // A provider that needs none may be in force since.
        let configuration = self.configuration();
        let is_needed = configuration.store().is_none_or(|store| store.provider().needs_token());
        self.bad_token.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|_| is_needed)
    }

    /// A unit was refused. One that has a right to its secret is helped to it as soon as that can be had.
    fn refused(&self, claim: &Claim, refusal: &Refusal) {
        // What the mirror lacks is told with its files.
        if claim.unit.as_str() != MIRROR {
            self.refusals.note(claim, refusal);
        }
        // What a configuration that is not in force allows is not known.
        let may_be_allowed = || matches!(refusal, Refusal::Policy(_)) && self.rejected().is_some();
        if refusal.is_for_want_of_the_value() || may_be_allowed() {
            self.missed.note(claim, refusal.line());
            self.configuration().await_value(claim);
        } else {
            self.missed.settle(claim);
        }
    }

    /// Nobody waits for this answer any more. The unit's own time to start may have been over, or somebody stopped it: how the
    /// unit is will tell.
    fn abandoned(&self, claim: &Claim) {
        records::abandoned(Some(claim));
        if !self.configuration().still_maps(claim) {
            return;
        }
        self.missed.note(claim, "its start ended before the value came".to_owned());
        self.configuration().await_value(claim);
    }

    /// Whether a unit may have this besides what it was given in the same start.
    fn goes_together(
        &self,
        grant: &Grant,
        since: Moment,
        served: &Served,
        configuration: &Configuration,
    ) -> Result<(), Refusal> {
        // Who is not identified asks in no start.
        if matches!(self.trust, Trust::Names) {
            return Ok(());
        }
        self.starts.agree(grant, since, served, configuration)
    }

    /// Why no unit gets anything, if that is so.
    pub fn obstacle(&self) -> Option<Legacy> {
        self.trust.obstacle()
    }

    /// What units were refused for want of a value, and have not got since.
    pub fn missed(&self) -> BTreeMap<Claim, Miss> {
        self.missed.all()
    }

    /// What units were refused, for whatever reason, and have not got since, the last first.
    pub fn refusals(&self) -> Vec<(Claim, Refused)> {
        self.refusals.all()
    }

    /// Whether the units served are those of the manager of one user.
    pub fn is_of_a_user(&self) -> bool {
        matches!(self.trust, Trust::User(_))
    }

    /// When credentials were last given to these units, and whether that was the newest value, as far as it is known.
    pub fn given(&self, concerns: impl Fn(&Claim) -> bool) -> BTreeMap<Claim, (Moment, Option<bool>)> {
        let configuration = self.configuration();
        // Many units may have one secret, which may be large.
        let mut hashes: HashMap<String, Option<String>> = HashMap::new();
        let mut newest = |claim: &Claim, gift: &Gift| {
            let entry = configuration.entry_for(claim)?;
            let hash = hashes
                .entry(entry.name.clone())
                .or_insert_with(|| configuration.newest(entry).and_then(|value| self.given.hash(&value)));
            hash.as_ref().map(|hash| gift.is(hash))
        };
        let all = self.given.all().into_iter().filter(|(claim, _)| concerns(claim));
        all.map(|(claim, gift)| {
            let is_newest = newest(&claim, &gift);
            (claim, (gift.at, is_newest))
        })
        .collect()
    }

    /// Counts what changes: values, and the configuration.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.base.changes.subscribe()
    }

    /// How many requests wait for their value, or are being refused.
    pub fn waiting(&self) -> usize {
        self.unanswered.len()
    }

    /// Those of units that wait for their value.
    pub fn requests(&self) -> Vec<Wait> {
        self.waiting.all()
    }

    /// Returns when another configuration is in force than that of this store.
    async fn replaced(&self, store: &Store) {
        let mut changes = self.changes();
        while self.is_in_force(store) {
            let _ = changes.changed().await;
        }
    }

    fn is_in_force(&self, store: &Store) -> bool {
        self.configuration().store().is_some_and(|now| now.is(store))
    }
}

/// What units missed is looked for under a new configuration as well, as far as they still may have it.
fn look_for(missed: &Missed, configuration: &Configuration) {
    missed.retain(|claim| configuration.still_maps(claim));
    missed.all().keys().for_each(|claim| configuration.await_value(claim));
}
