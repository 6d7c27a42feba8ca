//! The one taxonomy of what can go wrong with a provider, whichever it is.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::budget::LONGEST_LIMIT;

/// Why a value cannot be had. Holds names and ids, never values. Crosses the pipe between the service and the process
/// that holds 1Password's core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum FetchError {
    #[error(
        "there is no token for 1Password: {looked}\nput it into /etc/opnix/token (on NixOS: `tokenFile`) and restart opnix.service, or name its file with --token-file"
    )]
    TokenMissing { looked: String },
    /// What is wrong with it, in the words of the check.
    #[error("{why}")]
    TokenMalformed { why: String },
    #[error(
        "1Password rejects the token: it is expired, revoked, or its account is gone\ngive this machine a new one"
    )]
    TokenRejected,
    #[error("the token may not read {what}\nshare it with the account of this machine")]
    Forbidden { what: String },
    #[error(
        "there is no vault \"{vault}\"\ncheck its name, and that it is shared with this machine's account"
    )]
    VaultNotFound { vault: String },
    #[error("there is no item \"{item}\" in vault \"{vault}\"\ncheck its title, and that it is not archived")]
    ItemNotFound { vault: String, item: String },
    #[error(
        "item \"{item}\" has no section \"{section}\"\ncheck the reference against the item in 1Password"
    )]
    SectionNotFound { item: String, section: String },
    #[error("item \"{item}\" has no field \"{field}\"\ncheck the reference against the item in 1Password")]
    FieldNotFound { item: String, field: String },
    #[error("item \"{item}\" has no file \"{file}\"\ncheck the reference against the item in 1Password")]
    FileNotFound { item: String, file: String },
    #[error("{what} \"{name}\" is ambiguous\nuse one of the ids {}", candidates.join(", "))]
    Ambiguous { what: Named, name: String, candidates: Vec<String> },
    #[error(
        "the value of {reference} is empty\nfill the field in, or remove the secret from the configuration"
    )]
    Empty { reference: String },
    #[error("{reference}: {what}")]
    Unsupported { reference: String, what: String },
    #[error("{reference}: {what}")]
    Malformed { reference: String, what: String },
    #[error("1Password's limit on requests is reached{}\nfewer machines or a Connect server help: docs/scale.md", Until(*.until))]
    RateLimited { until: Option<SystemTime> },
    #[error(
        "1Password cannot be reached: {why}\ncheck the network of this machine, then start the unit again"
    )]
    Unreachable { why: String },
    #[error(
        "1Password is out of order: {why}\nsee whether it reports an outage, and start the unit again when it is over"
    )]
    Unavailable { why: String },
    #[error("1Password did not answer within {0:?}\nif it is only slow, raise \"deadline\" in secrets.json")]
    TimedOut(Duration),
    /// An answer that makes no sense, or a core that crashed: a fault of the provider's, or of ours.
    #[error("the provider broke its contract: {why}\nplease report this to the makers of opnix")]
    Broken { why: String },
    #[error("{why}")]
    Core { why: String },
    #[error("the vault file {path} cannot be used: {why}")]
    VaultFile { path: String, why: String },
}

/// What can have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Named {
    Vault,
    Item,
    Section,
    Field,
    File,
}

impl fmt::Display for Named {
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

struct Until(Option<SystemTime>);

/// The first second, since 1970, whose year has five digits: RFC 3339 knows none such.
const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The time may come from the other end, and `to_string` panics where Display fails, as does humantime itself
        // before 1970. What is not written as a date tells nobody anything.
        let date = |until: &SystemTime| {
            until.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since < YEAR_10000)
        };
        self.0
            .filter(date)
            .map_or(Ok(()), |until| write!(f, " until {}", humantime::format_rfc3339_seconds(until)))
    }
}

/// What was asked for when it failed, by the names that the user gave.
pub enum Asked<'a> {
    Account,
    Vault { vault: &'a str },
    Item { vault: &'a str, item: &'a str },
}

impl Asked<'_> {
    pub fn vault_not_found(&self) -> FetchError {
        match self {
            Self::Account => FetchError::Broken { why: "a vault is missing that was not asked for".into() },
            Self::Vault { vault } | Self::Item { vault, .. } => {
                FetchError::VaultNotFound { vault: (*vault).to_owned() }
            }
        }
    }

    /// Also for the core's words about a vault that is not there when its items are listed.
    pub fn item_not_found(&self) -> FetchError {
        match self {
            Self::Item { vault, item } => {
                FetchError::ItemNotFound { vault: (*vault).to_owned(), item: (*item).to_owned() }
            }
            Self::Account | Self::Vault { .. } => self.vault_not_found(),
        }
    }
}

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account => f.write_str("the account's vaults"),
            Self::Vault { vault } => write!(f, "vault \"{vault}\""),
            Self::Item { vault, item } => write!(f, "item \"{item}\" of vault \"{vault}\""),
        }
    }
}

/// What an error means for what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The same request can succeed a moment later.
    pub retry: bool,
    /// A value that was fetched earlier may be served in the place of this one.
    pub cached_may_stand_in: bool,
    /// Requests that no unit waits for make it worse.
    pub stop_background: bool,
}

impl FetchError {
    /// How long to wait before another try, if one makes sense: `pause`, or for as long as the other end said.
    pub fn retry_in(&self, pause: Duration) -> Option<Duration> {
        match self {
            Self::RateLimited { until: Some(until) } => {
                let rest = until.duration_since(SystemTime::now()).unwrap_or_default();
                Some(rest.min(LONGEST_LIMIT).saturating_add(pause))
            }
            _ => self.policy().retry.then_some(pause),
        }
    }

    pub fn policy(&self) -> Policy {
        let policy = |retry, cached_may_stand_in, stop_background| Policy {
            retry,
            cached_may_stand_in,
            stop_background,
        };
        match self {
            // Passing troubles of the way or of the other end.
            Self::Unreachable { .. } | Self::Unavailable { .. } | Self::TimedOut(_) => {
                policy(true, true, false)
            }
            Self::RateLimited { .. } => policy(false, true, true),
            // A person must act; until then the machine keeps running on what it had.
            Self::TokenMissing { .. } | Self::TokenMalformed { .. } | Self::TokenRejected => {
                policy(false, true, true)
            }
            Self::Core { .. } | Self::Broken { .. } | Self::VaultFile { .. } => policy(false, true, false),
            // 1Password says what it says: revoking and removing must mean something.
            Self::Forbidden { .. }
            | Self::VaultNotFound { .. }
            | Self::ItemNotFound { .. }
            | Self::SectionNotFound { .. }
            | Self::FieldNotFound { .. }
            | Self::FileNotFound { .. }
            | Self::Ambiguous { .. }
            | Self::Empty { .. }
            | Self::Unsupported { .. }
            | Self::Malformed { .. } => policy(false, false, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again_and_what_1password_says_for_good_is_not() {
        let unreachable = FetchError::Unreachable { why: "down".into() };
        assert_eq!(
            unreachable.policy(),
            Policy { retry: true, cached_may_stand_in: true, stop_background: false }
        );
        let limited = FetchError::RateLimited { until: None };
        assert_eq!(
            limited.policy(),
            Policy { retry: false, cached_may_stand_in: true, stop_background: true }
        );
        let gone = FetchError::ItemNotFound { vault: "v".into(), item: "i".into() };
        assert_eq!(
            gone.policy(),
            Policy { retry: false, cached_may_stand_in: false, stop_background: false }
        );
        assert_eq!(gone.retry_in(Duration::ZERO), None);
    }

    #[test]
    fn the_end_of_a_limit_is_told_if_it_is_a_date_and_waited_for_a_day_at_most() {
        let text = |until| FetchError::RateLimited { until: Some(until) }.to_string();
        let epoch = SystemTime::UNIX_EPOCH;
        assert!(text(epoch).contains("is reached until 1970-01-01T00:00:00Z\n"));
        assert!(text(epoch + Duration::from_secs(253_402_300_799)).contains("until 9999-12-31T23:59:59Z\n"));
        // What the last that a time can say is depends on the system.
        let last = (0..63)
            .rev()
            .fold(epoch, |time, bit| time.checked_add(Duration::from_secs(1 << bit)).unwrap_or(time));
        for until in [epoch - Duration::from_secs(1), epoch + Duration::from_secs(253_402_300_800), last] {
            assert!(text(until).contains("is reached\n"), "{}", text(until));
            let wait = FetchError::RateLimited { until: Some(until) }.retry_in(Duration::MAX);
            assert_eq!(wait, Some(Duration::MAX));
            let wait = FetchError::RateLimited { until: Some(until) }.retry_in(Duration::ZERO).unwrap();
            assert!(wait <= Duration::from_secs(24 * 60 * 60), "{wait:?}");
        }
    }

    #[test]
    fn a_limit_is_tried_again_when_it_is_over() {
        assert_eq!(FetchError::RateLimited { until: None }.retry_in(Duration::ZERO), None);
        let until = SystemTime::now() + Duration::from_secs(60);
        let wait = FetchError::RateLimited { until: Some(until) }.retry_in(Duration::from_secs(1)).unwrap();
        assert!(wait > Duration::from_secs(59) && wait <= Duration::from_secs(61), "{wait:?}");
    }
}
