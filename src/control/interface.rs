//! The types of the varlink interface `io.opnix`. Its text, `docs/io.opnix.varlink`, is made from them.
//!
//! It is public: things are added to it, never changed or taken away. Times are seconds since 1970 (UTC), ages seconds.
//! No value of a secret ever goes through it.

use serde::{Deserialize, Serialize};
use zlink::introspect::{CustomType, Type};
use zlink::proxy;

use super::counts::Counts;
pub use super::error::Error;
pub use super::pages::whole_status;
use super::unserved::Unserved;

/// What `Status` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Type)]
pub struct Status {
    /// Of opnix.
    pub version: String,
    /// What is wrong with the configuration that the service came up with; it refuses every request then.
    pub faults: Option<String>,
    /// A newer configuration, which is not in force.
    #[serde(default)]
    pub rejected: Option<Rejected>,
    /// The token that is in its file, and not in force.
    #[serde(default)]
    pub bad_token: Option<Rejected>,
    pub provider: Option<Provider>,
    pub cache: Cache,
    pub budget: Budget,
    /// In the order of the configuration.
    pub secrets: Vec<Secret>,
    /// How many requests of units wait for their value.
    pub waiting: u64,
    /// What units were refused for want of, and have not got since.
    #[serde(default)]
    pub missed: Vec<Missed>,
    /// An older service does not report them.
    #[serde(default)]
    pub records: Records,
    /// The requests of units that wait for their value. An older service does not report them.
    #[serde(default)]
    pub requests: Vec<Request>,
    /// What keeps the service from serving any unit; it refuses every request then. An older service does not report it.
    #[serde(default)]
    pub obstacle: Option<String>,
    /// What units were refused, for whatever reason, and have not got since, the last first. An older service does not report it.
    #[serde(default)]
    pub refusals: Vec<Refusal>,
    /// Since when the configuration is in force. An older service does not report it.
    #[serde(default)]
    pub configured_at: Option<u64>,
    /// The files that opnix-mirror.service is to write. An older service does not report them.
    #[serde(default)]
    pub files: Vec<MirroredFile>,
    /// How far what is being fetched is; none: nothing is. An older service does not report it.
    #[serde(default)]
    pub fetching: Option<Fetching>,
}

/// How far what is being fetched is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Fetching {
    /// Of how many values it is known whether they can be had.
    pub done: u64,
    /// How many were asked for.
    pub all: u64,
    pub since: u64,
}

/// What `Progress` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Progress {
    /// None: nothing is being fetched.
    pub fetching: Option<Fetching>,
}

/// A file of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomType)]
pub struct MirroredFile {
    /// The name of its secret in the configuration.
    pub secret: String,
    /// The name by which the mirror asks for it.
    pub credential: String,
    pub path: String,
    pub owner: String,
    /// None: that of the mirror.
    pub group: Option<String>,
    /// The permission bits, octal.
    pub mode: String,
    /// The links that lead to it.
    pub symlinks: Vec<String>,
    /// Whether it may be missing.
    pub optional: bool,
    /// The units that are told of another content.
    pub services: Vec<String>,
}

/// A credential that a unit asked for and was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomType)]
pub struct Refusal {
    pub unit: String,
    pub credential: String,
    /// The name of the secret in the configuration, if the unit may have it.
    pub secret: Option<String>,
    /// When it was last refused.
    pub at: u64,
    /// How often, in this run of the service.
    pub times: u64,
    /// The check that failed, as in the journal's OPNIX_CHECK.
    pub check: String,
    /// Why, and what to do, each on a line of its own.
    pub reason: String,
}

/// What `Outdated` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Type)]
pub struct Outdated {
    pub credentials: Vec<Held>,
}

/// What `Unit` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Type)]
pub struct UnitState {
    /// What it may have.
    pub credentials: Vec<Held>,
    /// What it was refused for want of, and has not got since.
    pub missed: Vec<Missed>,
    /// Its requests that wait for their value.
    pub requests: Vec<Request>,
    /// What it was refused, for whatever reason, and has not got since, the last first. An older service does not report it.
    #[serde(default)]
    pub refusals: Vec<Refusal>,
}

/// A credential of a unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomType)]
pub struct Held {
    pub unit: String,
    pub credential: String,
    /// The name of the secret in the configuration.
    pub secret: Option<String>,
    /// When the unit was last given it, in this boot.
    pub given_at: Option<u64>,
    /// Whether that was the newest value that opnix knows; none: it was not given, or keeps no value, or is another each time.
    pub is_newest: Option<bool>,
    /// The line of the configuration that says so. An older service does not report it.
    #[serde(default)]
    pub place: Option<String>,
    /// Where it comes from: secret references. An older service does not report them.
    #[serde(default)]
    pub references: Vec<String>,
    /// The state of its secret; only with `Unit`. An older service does not report it.
    #[serde(default)]
    pub state: Option<Secret>,
}

/// A configuration or token that is faulty, so that the one before stays in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomType)]
pub struct Rejected {
    /// What is wrong with it.
    pub faults: String,
    /// When that was first seen.
    pub since: u64,
}

/// A unit that waits for a credential.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomType)]
pub struct Request {
    pub unit: String,
    pub credential: String,
    /// When it first asked.
    pub since: u64,
    /// When it is refused at the latest; none means never.
    pub until: Option<u64>,
}

/// A unit that was refused because its secret could not be had. It is started again as soon as it can: see opnix-mirror.service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomType)]
pub struct Missed {
    pub unit: String,
    pub credential: String,
    /// The name of the secret in the configuration.
    pub secret: Option<String>,
    /// When the unit was first refused.
    pub since: u64,
    /// Why it was last.
    pub reason: String,
    /// Whether it would get it now.
    pub ready: bool,
}

/// What is on its way to the journal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomType)]
pub struct Records {
    /// How many records wait for the journal to take them.
    pub queued: u64,
    /// How many were dropped since the service began, because there was no room for more.
    pub dropped: u64,
}

/// Where secrets come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomType)]
pub struct Provider {
    /// service_account, connect or local.
    pub kind: String,
    /// Whose secrets they are, if there is a token to tell.
    pub account: Option<String>,
    pub health: Health,
    /// Since when it does not work.
    pub down_since: Option<u64>,
    /// Why it does not work.
    pub error: Option<String>,
    /// What kind of error that is, in one word. An older service does not report it.
    #[serde(default)]
    pub error_kind: Option<String>,
    /// The account before: its values are still kept, and none is served. An older service does not report it.
    #[serde(default)]
    pub account_before: Option<String>,
    /// If it does not work: when it was last tried.
    #[serde(default)]
    pub tried: Option<u64>,
    /// When it is asked next in the background.
    pub next_refresh: Option<u64>,
    /// What is wrong with the token that it would be asked with now, if it needs one. An older service does not report it.
    #[serde(default)]
    pub token_error: Option<String>,
    /// It said that it is not to be asked before that. An older service does not report it.
    #[serde(default)]
    pub not_before: Option<u64>,
}

/// How the provider is, as far as the last requests tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, CustomType)]
#[serde(rename_all = "snake_case")]
#[zlink(rename_all = "snake_case")]
pub enum Health {
    /// Nothing is known against it.
    Up,
    /// It cannot be reached, is out of order or too slow, or rejects the token.
    Down,
    /// The budget of this machine is used up, or a limit whose end is not known is reached: values that are kept are
    /// served, others asked for.
    Spent,
    /// It told us not to ask again before a certain time.
    Limited,
}

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomType)]
pub struct Cache {
    /// Whether values are kept on disk, sealed.
    pub sealed: bool,
    /// Why not.
    pub unsealed_because: Option<String>,
    /// How many values are in memory.
    pub in_memory: u64,
    /// How many of them may be on disk.
    pub sealable: u64,
    /// When the file was last written.
    pub written_at: Option<u64>,
    /// How many values the file has; none: one that does not open is there. An older service does not report it.
    #[serde(default)]
    pub on_disk: Option<u64>,
    /// Since when it cannot be written any more: what is on disk is older than what is served. An older service does not report it.
    #[serde(default)]
    pub unwritable_since: Option<u64>,
    /// Why not.
    #[serde(default)]
    pub unwritable_because: Option<String>,
}

/// How many requests were made, and how many may be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomType)]
pub struct Budget {
    pub hour: Window,
    pub day: Window,
    /// When requests in the background go on, if 1Password's limit is reached.
    pub limited_until: Option<u64>,
}

/// The requests of the last hour or day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomType)]
pub struct Window {
    pub used: u64,
    /// What is left of the budget; none means no limit.
    pub left: Option<u64>,
    /// The budget; none means no limit.
    pub limit: Option<u64>,
}

/// One secret or template of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomType)]
pub struct Secret {
    pub name: String,
    pub state: State,
    /// How long ago 1Password last gave or confirmed the value; for a template, its oldest value.
    pub age: Option<u64>,
    /// How long 1Password has said that there is no such value.
    pub denied_for: Option<u64>,
    /// Why it could not be fetched when it was last asked for.
    pub error: Option<String>,
    /// When that was.
    pub error_at: Option<u64>,
    /// Whether a unit would be given it now, as far as the last answers of 1Password tell. An older service does not report it.
    #[serde(default)]
    pub ready: Option<bool>,
    /// Whether a unit needs it, or a file that has to be there. An older service does not report it.
    #[serde(default)]
    pub needed: Option<bool>,
}

/// What becomes of a unit that asks for a secret now. For a template, the worst of its references counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, CustomType)]
#[serde(rename_all = "snake_case")]
#[zlink(rename_all = "snake_case")]
pub enum State {
    /// It is served at once.
    Fresh,
    /// 1Password is asked; if it does not answer soon, the value that is kept is served.
    Stale,
    /// The value that is kept is served at once although it is not fresh: 1Password does not work, or is not to be asked.
    Kept,
    /// 1Password is asked: there is no value, or none that will do.
    Missing,
    /// It is refused: there is no value that will do, and 1Password is not to be asked.
    Refused,
}

/// What `Explain` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Type)]
pub struct Explanation {
    pub granted: bool,
    /// Why not.
    pub reason: Option<String>,
    /// The line of the configuration that decides.
    pub rule: Option<Rule>,
    /// The name of the secret that the unit gets.
    pub name: Option<String>,
    /// The state of that secret.
    pub secret: Option<Secret>,
    /// Where it comes from: secret references.
    pub references: Vec<String>,
    /// If it is not granted: lines that come near.
    pub others: Vec<Rule>,
}

/// One line of the configuration: these units get this credential.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomType)]
pub struct Rule {
    /// A unit, or all instances of a template.
    pub units: String,
    pub credential: String,
    /// File, line and column.
    pub place: String,
}

/// What `Refresh` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Type)]
pub struct Refreshed {
    pub secrets: Vec<Renewal>,
}

/// What became of one secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomType)]
pub struct Renewal {
    pub name: String,
    pub outcome: Outcome,
    /// Why it failed.
    pub error: Option<String>,
    /// What kind of error that is, in one word. An older service does not report it.
    #[serde(default)]
    pub kind: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, CustomType)]
#[serde(rename_all = "snake_case")]
#[zlink(rename_all = "snake_case")]
pub enum Outcome {
    /// It is never kept: every start asks 1Password.
    NotKept,
    /// 1Password says that the value still is what it was.
    Unchanged,
    /// There was no value before.
    Fetched,
    /// The value differs from the one before.
    Changed,
    /// It could not be fetched; what was kept stays.
    Failed,
}

/// What `Watch` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct Changes {
    /// Goes up with each value that changed, and with each reload of the configuration. Begins anew with the service.
    pub count: u64,
}

/// What `TakeToken` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct TokenTaken {
    /// Whether it is another one than before.
    pub changed: bool,
}

/// The calls, for clients.
#[proxy("io.opnix")]
pub trait Control {
    #[zlink(more)]
    async fn status(
        &mut self,
    ) -> zlink::Result<impl futures_util::Stream<Item = zlink::Result<Result<Status, Error>>>>;
    async fn explain(&mut self, unit: &str, credential: &str) -> zlink::Result<Result<Explanation, Error>>;
    async fn outdated(&mut self) -> zlink::Result<Result<Outdated, Error>>;
    async fn unit(&mut self, unit: &str) -> zlink::Result<Result<UnitState, Error>>;
    async fn refresh(
        &mut self,
        names: Vec<String>,
        dry_run: Option<bool>,
    ) -> zlink::Result<Result<Refreshed, Error>>;
    async fn take_token(
        &mut self,
        trouble: Option<&str>,
        dry_run: Option<bool>,
        #[zlink(fds)] pipe: Vec<std::os::fd::OwnedFd>,
    ) -> zlink::Result<Result<TokenTaken, Error>>;
    async fn counts(&mut self) -> zlink::Result<Result<Counts, Error>>;
    #[zlink(more)]
    async fn watch(
        &mut self,
    ) -> zlink::Result<impl futures_util::Stream<Item = zlink::Result<Result<Changes, Error>>>>;
    #[zlink(more)]
    async fn unserved(
        &mut self,
        after: Option<u64>,
    ) -> zlink::Result<impl futures_util::Stream<Item = zlink::Result<Result<Unserved, Error>>>>;
    #[zlink(more)]
    async fn progress(
        &mut self,
    ) -> zlink::Result<impl futures_util::Stream<Item = zlink::Result<Result<Progress, Error>>>>;
}
