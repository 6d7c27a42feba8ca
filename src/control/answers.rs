//! What the calls answer, from the configuration in force and its store.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::interface::{
    Budget, Cache, Error, Explanation, Fetching, Health, Held, MirroredFile, Missed, Outcome, Outdated,
    Progress, Provider, Records, Refreshed, Refusal, Rejected, Renewal, Request, Rule, Secret, State, Status,
    TokenTaken, UnitState, Window,
};
use crate::config;
use crate::files;
use crate::moment::Now;
use crate::names::{CredentialName, UnitName};
use crate::peer::Claim;
use crate::policy::{self, Denied, Entry, Policy};
use crate::providers::child::token;
use crate::records;
use crate::remedy::Remedy;
use crate::secret;
use crate::server::{self, Configuration, Miss, Refused, Service, Wait};
use crate::similar::nearest;
use crate::store::decide::{self, Decision};
use crate::store::{Store, renew};

pub fn status(service: &Service) -> Status {
    let (queued, dropped) = records::counts();
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        faults: None,
        rejected: service.rejected().map(Rejected::from),
        bad_token: service.bad_token().map(Rejected::from),
        provider: None,
        cache: Cache::default(),
        budget: Budget { hour: unlimited(), day: unlimited(), limited_until: None },
        secrets: Vec::new(),
        waiting: service.waiting() as u64,
        missed: missed(service),
        records: Records { queued, dropped: dropped.iter().sum() },
        requests: service.requests().into_iter().map(Request::from).collect(),
        obstacle: service.obstacle().map(|obstacle| obstacle.lines()),
        refusals: refusals(service),
        configured_at: Some(seconds(service.configured_at().date())),
        files: Vec::new(),
        fetching: None,
    };
    match &*service.configuration() {
        configuration @ Configuration::Valid { provider, store, entries, files, .. } => {
            let answers = store.answers();
            let secret = |entry: &Arc<Entry>| Secret {
                needed: Some(configuration.needs(&entry.name)),
                ..secret(store, entry, answers)
            };
            status.provider = Some(self::provider(store, provider.kind()));
            status.cache = cache(store);
            status.budget = budget(store);
            status.secrets = entries.iter().map(secret).collect();
            status.fetching = fetching(store);
            status.files = files.iter().map(MirroredFile::from).collect();
        }
        Configuration::Faulty(faults) => status.faults = Some(faults.to_string()),
    }
    status
}

pub fn outdated(service: &Service) -> Outdated {
    let configuration = service.configuration();
    let old = service.given(|_| true).into_iter().filter(|(_, (_, is_newest))| *is_newest == Some(false));
    let held = old.filter_map(|(claim, (at, is_newest))| {
        Some(Held {
            secret: Some(configuration.entry_for(&claim)?.name.clone()),
            unit: claim.unit.to_string(),
            credential: claim.credential.to_string(),
            given_at: Some(seconds(at.date())),
            is_newest,
            place: None,
            references: Vec::new(),
            state: None,
        })
    });
    Outdated { credentials: held.collect() }
}

pub fn unit(service: &Service, unit: &str) -> Result<UnitState, Error> {
    let configuration = service.configuration();
    if let Configuration::Faulty(faults) = &*configuration {
        return Err(Error::Unconfigured { faults: faults.to_string() });
    }
    let name = unit
        .parse::<UnitName>()
        .map_err(|error| Error::InvalidName { name: unit.to_owned(), reason: error.lines() })?;
    let given = service.given(|claim| claim.unit == name);
    let answers = configuration.store().is_some_and(Store::answers);
    let held = |(credential, secret): (CredentialName, String)| {
        let claim = Claim { unit: name.clone(), credential };
        let (rule, store) = match &*configuration {
            Configuration::Valid { policy, store, .. } => {
                (policy.rule_for(&name, &claim.credential).ok(), Some(store))
            }
            Configuration::Faulty(_) => (None, None),
        };
        let references = rule.iter().flat_map(|rule| rule.entry.content.references());
        let gift = given.get(&claim).copied();
        Held {
            unit: unit.to_owned(),
            credential: claim.credential.to_string(),
            secret: Some(secret),
            given_at: gift.map(|(at, _)| seconds(at.date())),
            is_newest: gift.and_then(|(_, is_newest)| is_newest),
            place: rule.map(|rule| rule.place.to_string()),
            references: references.map(ToString::to_string).collect(),
            state: rule.zip(store).map(|(rule, store)| self::secret(store, &rule.entry, answers)),
        }
    };
    Ok(UnitState {
        credentials: configuration.credentials_of(&name).into_iter().map(held).collect(),
        missed: missed(service).into_iter().filter(|missed| missed.unit == unit).collect(),
        requests: service
            .requests()
            .into_iter()
            .map(Request::from)
            .filter(|request| request.unit == unit)
            .collect(),
        refusals: refusals(service).into_iter().filter(|refusal| refusal.unit == unit).collect(),
    })
}

pub fn explanation(service: &Service, unit: &str, credential: &str) -> Result<Explanation, Error> {
    let invalid = |name: &str, reason: String| Error::InvalidName { name: name.to_owned(), reason };
    let unit = unit.parse::<UnitName>().map_err(|error| invalid(unit, error.lines()))?;
    let credential =
        credential.parse::<CredentialName>().map_err(|error| invalid(credential, error.lines()))?;
    match &*service.configuration() {
        Configuration::Valid { policy, store, .. } => {
            let answers = store.answers();
            Ok(explain(policy, &unit, &credential, |entry: &Entry| Some(secret(store, entry, answers))))
        }
        Configuration::Faulty(faults) => Err(Error::Unconfigured { faults: faults.to_string() }),
    }
}

pub async fn refresh(service: &Service, names: &[String], dry_run: bool) -> Result<Refreshed, Error> {
    let configuration = service.configuration();
    let (entries, store) = match &*configuration {
        Configuration::Valid { entries, store, .. } => (entries, store),
        Configuration::Faulty(faults) => return Err(Error::Unconfigured { faults: faults.to_string() }),
    };
    let mut wanted: Vec<&Entry> = Vec::new();
    for name in names {
        let entry = entries.iter().find(|entry| entry.name == *name);
        wanted.push(entry.ok_or_else(|| Error::UnknownSecret { name: name.clone() })?);
    }
    if names.is_empty() {
        wanted = entries.iter().map(|entry| &**entry).collect();
    }
    let renewals = if dry_run { store.peek(&wanted).await } else { store.refresh(&wanted).await };
    Ok(Refreshed { secrets: renewals.into_iter().map(Renewal::from).collect() })
}

/// The token comes in a pipe, so that no copy of it is left where nobody wipes.
pub fn take_token(
    service: &Service,
    trouble: Option<String>,
    dry_run: bool,
    pipe: Vec<OwnedFd>,
) -> Result<TokenTaken, Error> {
    let bad = |reason: String| Error::BadToken { reason };
    let read = |pipe: OwnedFd| {
        // Whoever keeps the other end open is not waited for.
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        files::read_from(File::from(pipe), 0, token::SIZE_MAX)
    };
    let text = pipe.into_iter().next().map(read).transpose().map_err(|error| error.to_string());
    let token = text.map(|text| text.and_then(|text| secret::Secret::copy_from(text.trim_ascii()).ok()));
    let token = trouble.map_or(token, Err);
    let changed =
        if dry_run { service.would_take_token(token) } else { service.take_token(token) }.map_err(bad)?;
    Ok(TokenTaken { changed })
}

fn provider(store: &Store, kind: &str) -> Provider {
    let report = store.provider_report();
    Provider {
        kind: kind.to_owned(),
        account: report.account,
        health: report.health.into(),
        down_since: report.down.as_ref().map(|down| seconds(down.since.date())),
        tried: report.down.as_ref().map(|down| seconds(down.tried.date())),
        error_kind: report.down.as_ref().map(|down| down.error.kind().to_owned()),
        account_before: report.account_before,
        error: report.down.map(|down| down.error.lines()),
        token_error: report.token_error.map(|error| error.lines()),
        not_before: report.told_until.map(|until| seconds(until.date())),
        next_refresh: report.next_refresh.map(|moment| seconds(moment.date())),
    }
}

pub fn progress(service: &Service) -> Progress {
    Progress { fetching: service.configuration().store().and_then(fetching) }
}

fn fetching(store: &Store) -> Option<Fetching> {
    let progress = store.progress()?;
    Some(Fetching {
        done: progress.done as u64,
        all: progress.all as u64,
        since: seconds(progress.since.date()),
    })
}

fn missed(service: &Service) -> Vec<Missed> {
    let configuration = service.configuration();
    let describe = |(claim, miss): (Claim, Miss)| Missed {
        secret: configuration.entry_for(&claim).map(|entry| entry.name.clone()),
        ready: configuration.has(&claim),
        unit: claim.unit.to_string(),
        credential: claim.credential.to_string(),
        since: seconds(miss.since),
        reason: miss.reason,
    };
    service.missed().into_iter().map(describe).collect()
}

fn refusals(service: &Service) -> Vec<Refusal> {
    let configuration = service.configuration();
    service.refusals().into_iter().map(|(claim, refused)| refusal(&configuration, claim, refused)).collect()
}

pub fn refusal(configuration: &Configuration, claim: Claim, refused: Refused) -> Refusal {
    Refusal {
        secret: configuration.entry_for(&claim).map(|entry| entry.name.clone()),
        unit: claim.unit.to_string(),
        credential: claim.credential.to_string(),
        at: seconds(refused.at),
        times: refused.times,
        check: refused.check.to_owned(),
        reason: refused.reason,
    }
}

fn cache(store: &Store) -> Cache {
    let report = store.cache_report();
    Cache {
        sealed: report.unsealed_because.is_none(),
        unsealed_because: report.unsealed_because,
        in_memory: report.in_memory as u64,
        sealable: report.sealable as u64,
        written_at: report.written.map(seconds),
        on_disk: report.on_disk.map(|count| count as u64),
        unwritable_since: report.trouble.as_ref().map(|trouble| seconds(trouble.since.date())),
        unwritable_because: report.trouble.map(|trouble| trouble.why),
    }
}

fn budget(store: &Store) -> Budget {
    let (limits, ledger) = store.budget();
    let now = Now::read();
    let window = |used: u32, limit: Option<u32>| Window {
        used: used.into(),
        left: limit.map(|limit| limit.saturating_sub(used).into()),
        limit: limit.map(Into::into),
    };
    Budget {
        hour: window(ledger.last_hour(now.moment), limits.hourly),
        day: window(ledger.last_day(now.moment), limits.daily),
        limited_until: ledger.limited_until(now).map(|until| seconds(now.date_of(until))),
    }
}

/// For a template, the worst of its references counts.
fn secret(store: &Store, entry: &Entry, answers: bool) -> Secret {
    let report = store.secret_report(entry, answers);
    let states = report.decisions.iter().map(|decision| match decision {
        Decision::Serve => State::Fresh,
        Decision::Fetch { fall_back: true } => State::Stale,
        Decision::ServeAndRefresh => State::Kept,
        Decision::Fetch { fall_back: false } => State::Missing,
        Decision::Refuse => State::Refused,
    });
    Secret {
        name: entry.name.clone(),
        state: states.max().unwrap_or(State::Missing),
        age: report.age.map(|age| age.as_secs()),
        denied_for: report.denied_for.map(|denied| denied.as_secs()),
        error: report.failure.as_ref().map(|failure| failure.error.lines()),
        error_at: report.failure.map(|failure| seconds(failure.at.date())),
        ready: Some(report.is_servable),
        needed: None,
    }
}

/// By which line a unit would get a credential, or which lines come near. `secret` reports the state of its value.
pub fn explain(
    policy: &Policy,
    unit: &UnitName,
    credential: &CredentialName,
    secret: impl Fn(&Entry) -> Option<Secret>,
) -> Explanation {
    let granted = |rule: Rule, entry: &Entry| Explanation {
        granted: true,
        reason: None,
        rule: Some(rule),
        name: Some(entry.name.clone()),
        secret: secret(entry),
        references: entry.content.references().map(ToString::to_string).collect(),
        others: Vec::new(),
    };
    match policy.rule_for(unit, credential) {
        Ok(rule) => granted(Rule::from(rule), &rule.entry),
        Err(denied) => {
            // The mirror asks by names of its own, which no line of the configuration has.
            if let Some(entry) = policy.entry_for(unit, credential) {
                let (units, credential) = (unit.to_string(), credential.to_string());
                let rule = Rule { units, credential, place: entry.place.to_string() };
                return granted(rule, entry);
            }
            let all = || policy.rules().map(|rule| rule.credential.as_str());
            let meant = nearest(credential.as_str(), all());
            let is_near = |rule: &&policy::Rule| match denied {
                Denied::NotForUnit => rule.credential == *credential || rule.units.matches(unit),
                Denied::UnknownCredential => {
                    rule.units.matches(unit) || meant.is_some_and(|meant| rule.credential.as_str() == meant)
                }
            };
            let mut others: Vec<&policy::Rule> = policy.rules().filter(is_near).collect();
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

impl From<&config::MirrorFile> for MirroredFile {
    fn from(file: &config::MirrorFile) -> Self {
        let text = |path: &PathBuf| path.display().to_string();
        Self {
            secret: file.entry.name.clone(),
            credential: file.entry.content.mirror_name().to_string(),
            path: text(&file.path),
            owner: file.owner.clone(),
            group: file.group.clone(),
            mode: format!("{:04o}", file.mode),
            symlinks: file.symlinks.iter().map(text).collect(),
            optional: file.optional,
            services: file.services.iter().map(|(unit, _)| unit.to_string()).collect(),
        }
    }
}

impl From<server::Rejected> for Rejected {
    fn from(rejected: server::Rejected) -> Self {
        Self { faults: rejected.faults.to_string(), since: seconds(rejected.since.date()) }
    }
}

impl From<server::BadToken> for Rejected {
    fn from(bad: server::BadToken) -> Self {
        Self { faults: bad.why, since: seconds(bad.since.date()) }
    }
}

impl From<Wait> for Request {
    fn from(wait: Wait) -> Self {
        Self {
            unit: wait.claim.unit.to_string(),
            credential: wait.claim.credential.to_string(),
            since: seconds(wait.since.date()),
            until: wait.until.map(|until| seconds(until.date())),
        }
    }
}

fn unlimited() -> Window {
    Window { used: 0, left: None, limit: None }
}

pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl From<renew::Renewal> for Renewal {
    fn from(renewal: renew::Renewal) -> Self {
        let outcome = match renewal.outcome {
            renew::Outcome::NotKept => Outcome::NotKept,
            renew::Outcome::Unchanged => Outcome::Unchanged,
            renew::Outcome::Fetched => Outcome::Fetched,
            renew::Outcome::Changed => Outcome::Changed,
            renew::Outcome::Failed => Outcome::Failed,
        };
        Self { name: renewal.name, outcome, error: renewal.error, kind: renewal.kind.map(str::to_owned) }
    }
}

impl From<decide::Health> for Health {
    fn from(health: decide::Health) -> Self {
        match health {
            decide::Health::Up => Self::Up,
            decide::Health::Down => Self::Down,
            decide::Health::Spent => Self::Spent,
            decide::Health::Limited => Self::Limited,
        }
    }
}
