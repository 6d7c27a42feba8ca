//! What the core's failures mean. One of them has a type; the others have only a message, which is looked up in the table
//! here (`tests/simulated/providers/service_account` checks it against the real library).

use crate::providers::ask::Target;
use crate::providers::error::FetchError;

/// What the library reports when a call fails.
#[derive(Debug)]
pub enum Failure {
    /// In its own words: the name of the kind of error, and a message.
    Reported { name: String, message: String },
    /// There was no result before the deadline; the call was cancelled.
    Late,
    /// It does not keep to its interface, or it panicked.
    Broken(String),
}

enum Meaning {
    Rejected,
    Forbidden,
    VaultNotFound,
    ItemNotFound,
    RateLimited,
    Unreachable(&'static str),
    Unavailable(&'static str),
}

/// The name under which the core reports that it could not sign in.
const SIGN_IN: &str = "Auth";
/// The one kind of failure that has a type.
const RATE_LIMIT: &str = "RateLimitExceeded";
const ITEM_NOT_FOUND: &str = "item couldn't be found";

/// Parts of messages, and what they mean.
const WORDS: [(&str, Meaning); 16] = [
    ("rate limit exceeded", Meaning::RateLimited),
    ("you are not authenticated", Meaning::Rejected),
    ("failed to authenticate", Meaning::Rejected),
    ("bad service account token", Meaning::Rejected),
    ("the right permissions", Meaning::Forbidden),
    (ITEM_NOT_FOUND, Meaning::ItemNotFound),
    ("vault couldn't be found", Meaning::VaultNotFound),
    // It does not say what the cause was.
    (
        "error sending request",
        Meaning::Unreachable("no connection (look at DNS, the network, a proxy, certificates)"),
    ),
    ("error when retrieving response contents", Meaning::Unreachable("the connection broke off")),
    ("request timeout", Meaning::Unreachable("it did not answer in time")),
    ("request timed out", Meaning::Unreachable("it did not answer in time")),
    ("internal server error", Meaning::Unavailable("it reports an internal error")),
    ("unexpected status code in response: 5", Meaning::Unavailable("it answers with a server error")),
    ("unexpected status code in response: 4", Meaning::Unavailable("it rejects the request")),
    ("bad request", Meaning::Unavailable("it rejects the request")),
    ("data conflict occurred", Meaning::Unavailable("it reports a conflict")),
];

impl Failure {
    pub fn is_item_not_found(&self) -> bool {
        matches!(self, Self::Reported { message, .. } if message.contains(ITEM_NOT_FOUND))
    }

    pub fn explain(self, target: &Target<'_>) -> FetchError {
        match self {
            Self::Late => FetchError::Unreachable { why: "it did not answer in time".into() },
            Self::Broken(why) => FetchError::Broken { why: format!("1Password's core gave {why}") },
            Self::Reported { name, message } => reported(&name, &message, target),
        }
    }
}

fn reported(name: &str, message: &str, target: &Target<'_>) -> FetchError {
    if name == RATE_LIMIT {
        return FetchError::RateLimited { until: None };
    }
    match WORDS.iter().find(|(words, _)| message.contains(words)).map(|(_, meaning)| meaning) {
        Some(Meaning::RateLimited) => FetchError::RateLimited { until: None },
        Some(Meaning::Rejected) => FetchError::TokenRejected,
        // An account that is not allowed to sign in was suspended.
        Some(Meaning::Forbidden) if name == SIGN_IN => FetchError::TokenRejected,
        Some(Meaning::Forbidden) => FetchError::Forbidden { what: target.to_string() },
        Some(Meaning::VaultNotFound) => target.vault_not_found(),
        Some(Meaning::ItemNotFound) => target.item_not_found(),
        Some(Meaning::Unreachable(why)) => FetchError::Unreachable { why: (*why).into() },
        Some(Meaning::Unavailable(why)) => FetchError::Unavailable { why: (*why).into() },
        None => FetchError::Broken { why: format!("1Password's core reports {name}: {message}") },
    }
}
