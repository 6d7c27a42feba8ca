//! The kinds of errors that fetching can end with, the same for all providers.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::budget::LONGEST_LIMIT;
pub use super::step::Step;
use crate::documents::document;
use crate::moment::Moment;
use crate::remedy::Remedy;
use crate::scope;
use crate::similar;

/// Why a value cannot be had. Holds names and ids, never values. Crosses the socket between the service and the process
/// that asks 1Password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum FetchError {
    #[error("there is no token for 1Password: {looked}")]
    TokenMissing { looked: String },
    /// In the words of the check.
    #[error("{what}")]
    TokenMalformed { what: String, remedy: Option<String> },
    #[error("1Password rejects the token: it is expired, revoked, or its account is gone")]
    TokenRejected,
    /// Not one vault or item, but all of them: a frozen account, or a token whose rights were taken away.
    #[error("the token may not read the account's vaults")]
    AccountRefused,
    #[error("the token may not read {what}")]
    Forbidden { what: String },
    /// `has`, here and below: some of the names that are there, the most similar first ([`similar::listed`]).
    #[error("there is no vault \"{vault}\"")]
    VaultNotFound {
        vault: String,
        #[serde(default)]
        has: Vec<String>,
    },
    /// Of a vault's many items `has` names similar ones only.
    #[error("there is no item \"{item}\" in vault \"{vault}\"")]
    ItemNotFound {
        vault: String,
        item: String,
        #[serde(default)]
        has: Vec<String>,
    },
    #[error("item \"{item}\" has no section \"{section}\"")]
    SectionNotFound {
        item: String,
        section: String,
        #[serde(default)]
        has: Vec<String>,
    },
    /// `other`: but a file of this name.
    #[error("item \"{item}\" has no field \"{field}\"")]
    FieldNotFound {
        item: String,
        field: String,
        other: bool,
        #[serde(default)]
        has: Vec<String>,
    },
    /// `other`: but a field of this name.
    #[error("item \"{item}\" has no file \"{file}\"")]
    FileNotFound {
        item: String,
        file: String,
        other: bool,
        #[serde(default)]
        has: Vec<String>,
    },
    /// The candidates are ids of vaults or items, or else references.
    #[error("{what} \"{name}\" is ambiguous")]
    Ambiguous { what: ObjectKind, name: String, candidates: Vec<String> },
    #[error("the value of {reference} is empty")]
    Empty { reference: String },
    #[error("{reference}: {what}")]
    Unsupported { reference: String, what: String },
    #[error("{reference}: {what}")]
    Malformed { reference: String, what: String },
    #[error("1Password's limit on requests is reached{}", Until(*.until))]
    RateLimited { until: Option<Moment> },
    #[error("1Password cannot be reached: {why}")]
    Unreachable {
        why: String,
        #[serde(default)]
        at: Step,
    },
    #[error("1Password is out of order: {why}")]
    Unavailable { why: String },
    #[error("1Password does not take the request: {why}")]
    NotTaken { why: String },
    #[error("there is no Connect server at {url}: {why}")]
    NoConnect { url: String, why: String },
    /// One vault, item or file cannot be had, although the provider works.
    #[error("{part} cannot be had: {cause}")]
    PartFails { part: String, cause: Box<FetchError> },
    #[error("1Password did not answer within {0:?}")]
    TimedOut(Duration),
    /// An answer that makes no sense, or a core that crashed: a fault of the provider's, or of ours.
    #[error("the provider broke its contract: {why}")]
    Broken { why: String },
    #[error("the process that asks 1Password was killed")]
    Killed,
    /// 1Password's core library cannot be used, in the words of whoever tried to load it.
    #[error("{what}")]
    Core { what: String, remedy: Option<String> },
    #[error("the certificates in {path} cannot be used: {why}")]
    Certificates { path: String, why: String },
    #[error("the HTTP client for the Connect server cannot be set up: {why}")]
    HttpClient { why: String },
    #[error("the process that asks 1Password cannot be started: {why}")]
    Process { why: String },
    #[error("the asynchronous runtime cannot be started: {why}")]
    Runtime { why: String },
    #[error("the vault file {path} cannot be used: {why}")]
    VaultFile { path: String, why: String },
}

impl Remedy for FetchError {
    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::HttpClient { .. } => {
                "certificates of public authorities are in the package ca-certificates; a private one's are named by `authority`".into()
            }
            Self::TokenMissing { .. } => {
                let nix = if scope::is_user() { "with home-manager" } else { "on NixOS" };
                let file = scope::token();
                format!(
                    "put it into {} ({nix}: `tokenFile`), or name its file with --token-file; it is taken by itself",
                    file.display()
                )
            }
            Self::TokenMalformed { remedy, .. } | Self::Core { remedy, .. } => return remedy.clone(),
            Self::TokenRejected if scope::is_user() => {
                format!("put a new one into {}", scope::token().display())
            }
            Self::TokenRejected => "give this machine a new one: opnix token set".into(),
            Self::AccountRefused => {
                "see whether the account is frozen, and whether the token's vaults are still shared with it".into()
            }
            Self::Forbidden { .. } => "share it with the account of this machine".into(),
            Self::VaultNotFound { vault, has } => {
                let check = "check its name, and that it is shared with this machine's account";
                meant(vault, has, "the account may read the vaults", check)
            }
            Self::ItemNotFound { item, has, .. } => {
                meant(item, has, "it has", "check its title, and that it is not archived")
            }
            Self::FieldNotFound { other: true, .. } => {
                "it has a file of this name: say \"kind\": \"file\" in secrets.json".into()
            }
            Self::FileNotFound { other: true, .. } => {
                "it has a field of this name: leave out \"kind\": \"file\" in secrets.json".into()
            }
            Self::SectionNotFound { section, has, .. } => meant(section, has, "it has the sections", AGAINST),
            Self::FieldNotFound { field, has, .. } => meant(field, has, "it has the fields", AGAINST),
            Self::FileNotFound { file, has, .. } => meant(file, has, "it has the files", AGAINST),
            Self::Ambiguous { what: ObjectKind::Vault | ObjectKind::Item, candidates, .. } => {
                format!("use one of the ids {}", candidates.join(", "))
            }
            Self::Ambiguous { candidates, .. } => format!("say which: {}", candidates.join(" or ")),
            Self::Empty { .. } => "fill the field in, or remove the secret from the configuration".into(),
            Self::RateLimited { .. } => format!("fewer machines or a Connect server help: {}", document("docs/scale.md")),
            Self::Unreachable { at, .. } => at.remedy().into(),
            Self::Unavailable { .. } => {
                "see whether it reports an outage, and start the unit again when it is over".into()
            }
            Self::NotTaken { .. } => "see the log of the Connect server, or 1Password's status page".into(),
            Self::NoConnect { .. } => {
                "check \"host\" in secrets.json: its name and port, and that nothing but a proxy's path follows them".into()
            }
            Self::PartFails { .. } => {
                "look at it in 1Password; what else is asked for is not affected".into()
            }
            Self::TimedOut(_) => {
                "`opnix doctor` tries the way there; if 1Password is only slow, raise \"deadline\" in secrets.json".into()
            }
            Self::Killed => {
                "see whether this machine runs out of memory: journalctl -k".into()
            }
            Self::Broken { .. } => "please report this to the makers of opnix".into(),
            Self::Unsupported { .. }
            | Self::Malformed { .. }
            | Self::Certificates { .. }
            | Self::Process { .. }
            | Self::Runtime { .. }
            | Self::VaultFile { .. } => return None,
        })
    }
}

const AGAINST: &str = "check the reference against the item in 1Password";

/// Names what was probably meant, or what there is, or else says what to check.
fn meant(wanted: &str, has: &[String], they_are: &str, check: &str) -> String {
    let all = || {
        format!("{they_are} {}", has.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", "))
    };
    match (similar::did_you_mean(wanted, has.iter().map(String::as_str)), has) {
        (_, []) => check.to_owned(),
        (Some(question), [_]) => question,
        (Some(question), _) => format!("{question} {}", all()),
        (None, _) => format!("{check}: {}", all()),
    }
}

/// What a reference names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    Vault,
    Item,
    Section,
    Field,
    File,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vault => "vault",
            Self::Item => "item",
            Self::Section => "section",
            Self::Field => "field",
            Self::File => "file",
        })
    }
}

struct Until(Option<Moment>);

/// When the first year with five digits begins, counted from 1970: RFC 3339 has no such years.
const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The time may come from the other end. humantime panics before 1970 and fails after the year 9999, where
        // `to_string` panics. Such a time helps nobody, so it is left out.
        let date = |until: &SystemTime| {
            until.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since < YEAR_10000)
        };
        self.0
            .map(Moment::date)
            .filter(date)
            .map_or(Ok(()), |until| write!(f, " until {}", humantime::format_rfc3339_seconds(until)))
    }
}

/// What is to be done, and what may be done, after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consequences {
    /// The same request can succeed a moment later.
    pub retry: bool,
    /// A value that was fetched earlier may be served in the place of this one.
    pub cached_may_stand_in: bool,
    /// Nothing else can be had either.
    pub provider_is_down: bool,
}

impl FetchError {
    /// How long to wait before another try, if one makes sense: `pause`, or for as long as the other end said.
    pub fn retry_in(&self, pause: Duration) -> Option<Duration> {
        match self {
            Self::RateLimited { until: Some(until) } => {
                let rest = until.since(Moment::now());
                Some(rest.min(LONGEST_LIMIT).saturating_add(pause))
            }
            _ => self.consequences().retry.then_some(pause),
        }
    }

    /// Whether it was found on this machine, so that to try again costs 1Password nothing.
    pub fn is_local(&self) -> bool {
        matches!(
            self,
            Self::TokenMissing { .. }
                | Self::TokenMalformed { .. }
                | Self::Core { .. }
                | Self::Certificates { .. }
                | Self::HttpClient { .. }
                | Self::Process { .. }
                | Self::Runtime { .. }
                | Self::VaultFile { .. }
        )
    }

    pub fn consequences(&self) -> Consequences {
        let (retry, cached_may_stand_in, provider_is_down) = match self {
            // Failures of the network or of the server that pass.
            Self::Unreachable { .. } | Self::Unavailable { .. } | Self::TimedOut(_) | Self::Killed => {
                (true, true, true)
            }
            // A person must act, or a limit must end; until then the machine keeps running on what it had.
            Self::RateLimited { .. }
            | Self::TokenMissing { .. }
            | Self::TokenMalformed { .. }
            | Self::TokenRejected
            | Self::AccountRefused
            | Self::NotTaken { .. }
            | Self::NoConnect { .. }
            | Self::Core { .. }
            | Self::Certificates { .. }
            | Self::HttpClient { .. }
            | Self::Process { .. }
            | Self::Runtime { .. }
            | Self::Broken { .. }
            | Self::VaultFile { .. } => (false, true, true),
            Self::PartFails { cause, .. } => (cause.consequences().retry, true, false),
            // Nonsense is nobody's decision.
            Self::Malformed { .. } => (false, true, false),
            // 1Password's own decision: what is revoked or removed there must not go on being served here.
            Self::Forbidden { .. }
            | Self::VaultNotFound { .. }
            | Self::ItemNotFound { .. }
            | Self::SectionNotFound { .. }
            | Self::FieldNotFound { .. }
            | Self::FileNotFound { .. }
            | Self::Ambiguous { .. }
            | Self::Empty { .. }
            | Self::Unsupported { .. } => (false, false, false),
        };
        Consequences { retry, cached_may_stand_in, provider_is_down }
    }

    /// One word for the kind, for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TokenMissing { .. } => "token-missing",
            Self::TokenMalformed { .. } => "token-invalid",
            Self::TokenRejected => "token-rejected",
            Self::AccountRefused => "account-refused",
            Self::Forbidden { .. } => "forbidden",
            Self::VaultNotFound { .. } => "vault-not-found",
            Self::ItemNotFound { .. } => "item-not-found",
            Self::SectionNotFound { .. } | Self::FieldNotFound { .. } | Self::FileNotFound { .. } => {
                "field-not-found"
            }
            Self::Ambiguous { .. } => "ambiguous",
            Self::Empty { .. } => "value-empty",
            Self::Unsupported { .. } | Self::Malformed { .. } => "value-unusable",
            Self::RateLimited { .. } => "rate-limited",
            Self::Unreachable { at, .. } => match at {
                Step::Name => "name-unknown",
                Step::Proxy => "proxy-wrong",
                Step::Clock => "clock-wrong",
                Step::Tls | Step::Trust | Step::OtherHost => "untrusted",
                Step::Unknown | Step::Network | Step::Connection | Step::Answer => "unreachable",
            },
            Self::Unavailable { .. } | Self::NotTaken { .. } | Self::NoConnect { .. } => "out-of-order",
            Self::PartFails { cause, .. } => cause.kind(),
            Self::TimedOut(_) => "too-slow",
            Self::Core { .. } => "core-unusable",
            Self::Certificates { .. } | Self::HttpClient { .. } => "certificates-unusable",
            Self::Broken { .. } | Self::Killed => "provider-broken",
            Self::Process { .. } | Self::Runtime { .. } => "machine-short",
            Self::VaultFile { .. } => "vault-file-unusable",
        }
    }

    /// A provider that says that it is done, and gave no result.
    pub fn no_result() -> Self {
        Self::Broken { why: "it gave no result".into() }
    }

    /// Whether the provider answered, and the answer is of no use: something else may be had all the same.
    pub fn is_about_the_answer(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::NotTaken { .. } | Self::Broken { .. } | Self::Killed)
    }

    /// The same, as a failure of this part alone.
    #[must_use]
    pub fn of_part(self, part: &impl fmt::Display) -> Self {
        match self {
            part @ Self::PartFails { .. } => part,
            cause => Self::PartFails { part: part.to_string(), cause: Box::new(cause) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again_and_what_1password_says_for_good_is_not() {
        let unreachable = FetchError::Unreachable { why: "down".into(), at: Step::Unknown };
        let gone = FetchError::ItemNotFound { vault: "v".into(), item: "i".into(), has: Vec::new() };
        let part = unreachable.clone().of_part(&"item \"i\"");
        for (error, retry, cached_may_stand_in, provider_is_down) in [
            (&unreachable, true, true, true),
            (&FetchError::RateLimited { until: None }, false, true, true),
            (&gone, false, false, false),
            (&part, true, true, false),
        ] {
            let expected = Consequences { retry, cached_may_stand_in, provider_is_down };
            assert_eq!(error.consequences(), expected, "{error}");
        }
        assert_eq!(gone.retry_in(Duration::ZERO), None);
    }

    #[test]
    fn the_end_of_a_limit_is_told_if_it_is_a_date_and_waited_for_a_day_at_most() {
        let limit = |wait| FetchError::RateLimited { until: Some(Moment::now() + wait) };
        let tomorrow = limit(Duration::from_secs(24 * 60 * 60)).lines();
        let today = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        assert!(tomorrow.contains("is reached until 20") && !tomorrow.contains(&today), "{tomorrow}");
        // Nobody has to read a year of five digits.
        let far = Duration::from_secs(253_402_300_800);
        assert!(limit(far).lines().contains("is reached\n"), "{}", limit(far).lines());
        for far in [far, Duration::MAX] {
            assert_eq!(limit(far).retry_in(Duration::MAX), Some(Duration::MAX));
            let wait = limit(far).retry_in(Duration::ZERO).unwrap();
            assert!(wait <= Duration::from_secs(24 * 60 * 60), "{wait:?}");
        }
    }

    #[test]
    fn a_limit_is_tried_again_when_it_is_over() {
        assert_eq!(FetchError::RateLimited { until: None }.retry_in(Duration::ZERO), None);
        let until = Moment::now() + Duration::from_secs(60);
        let wait = FetchError::RateLimited { until: Some(until) }.retry_in(Duration::from_secs(1)).unwrap();
        assert!(wait > Duration::from_secs(59) && wait <= Duration::from_secs(61), "{wait:?}");
    }
}
