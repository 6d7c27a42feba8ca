//! What the core's failures mean. One of them has a type; the others have only a message, which is looked up in the table
//! here (`tests/simulated/providers/service_account` checks it against the real library).

use crate::providers::ask::{Target, reaching};
use crate::providers::error::{FetchError, Step};

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
    /// Of an item or a file.
    NotFound,
    RateLimited,
    Unreachable(&'static str, Step),
    Unavailable(&'static str),
    NotTaken(&'static str),
    Broken(&'static str),
}

/// The name under which the core reports that it could not sign in.
const SIGN_IN: &str = "Auth";
/// The one kind of failure that has a type.
const RATE_LIMIT: &str = "RateLimitExceeded";
/// The second of one that is archived.
const ITEM_NOT_FOUND: [&str; 2] = ["item couldn't be found", "item is not in an active state"];

const NOT_SENT: &str = "error sending request";

/// Parts of messages, and what they mean.
const WORDS: [(&str, Meaning); 24] = [
    ("rate limit exceeded", Meaning::RateLimited),
    ("you are not authenticated", Meaning::Rejected),
    ("failed to authenticate", Meaning::Rejected),
    ("bad service account token", Meaning::Rejected),
    ("the right permissions", Meaning::Forbidden),
    (ITEM_NOT_FOUND[0], Meaning::NotFound),
    (ITEM_NOT_FOUND[1], Meaning::NotFound),
    ("file couldn't be found", Meaning::NotFound),
    ("vault couldn't be found", Meaning::VaultNotFound),
    // It does not say what the cause was. Without a proxy, a connection could be made a moment before (`child/process.rs`).
    (
        NOT_SENT,
        Meaning::Unreachable(
            "a request cannot be sent, and 1Password's core does not say why (TLS, a certificate, the clock, a proxy)",
            Step::Tls,
        ),
    ),
    (
        "error when retrieving response contents",
        Meaning::Unreachable("the connection broke off", Step::Unknown),
    ),
    ("request timeout", Meaning::Unreachable("it did not answer in time", Step::Answer)),
    ("request timed out", Meaning::Unreachable("it did not answer in time", Step::Answer)),
    ("internal server error", Meaning::Unavailable("it reports an internal error")),
    ("unexpected status code in response: 5", Meaning::Unavailable("it answers with a server error")),
    ("unexpected status code in response: 4", Meaning::NotTaken("it rejects the request")),
    ("bad request", Meaning::NotTaken("it rejects the request")),
    ("not in a valid format", Meaning::NotTaken("its core takes an id for none")),
    ("data conflict occurred", Meaning::NotTaken("it reports a conflict")),
    // At sign-in.
    ("a conflict occurred", Meaning::NotTaken("it reports a conflict")),
    ("resource not found", Meaning::NotTaken("there is nothing where it is asked")),
    (
        "error decrypting item overview",
        Meaning::Broken(
            "1Password's core cannot decrypt the title of one of its items, and lists none of them; by their ids they are had",
        ),
    ),
    ("error decrypting item", Meaning::Broken("1Password's core cannot decrypt it")),
    ("error decrypting file", Meaning::Broken("1Password's core cannot decrypt it")),
];

/// What the core says when it resolves a reference by ids and any request for it fails, whatever the reason.
const NOT_RESOLVED: [&str; 2] = ["no vault matched", "no item matched"];

impl Failure {
    pub fn is_item_not_found(&self) -> bool {
        let Self::Reported { message, .. } = self else { return false };
        ITEM_NOT_FOUND.iter().any(|words| message.contains(words))
    }

    /// Whether the request did not get to 1Password, as far as the core tells.
    pub fn is_of_the_way(&self) -> bool {
        matches!(self, Self::Reported { message, .. } if message.contains(NOT_SENT))
    }

    pub fn explain(self, target: &Target<'_>) -> FetchError {
        match self {
            Self::Late => {
                FetchError::Unreachable { why: "it did not answer in time".into(), at: Step::Answer }
            }
            Self::Broken(why) => FetchError::Broken { why: format!("1Password's core gave {why}") },
            Self::Reported { name, message } => {
                let unknown = || FetchError::Broken {
                    why: format!("asked for {target}, 1Password's core reports {name}: {message}"),
                };
                known(&name, &message, target).unwrap_or_else(unknown)
            }
        }
    }

    /// The same of what the core's own resolver reports for an item that was read a moment ago.
    pub fn explain_resolver(self, target: &Target<'_>) -> FetchError {
        let Self::Reported { name, message } = self else { return self.explain(target) };
        if NOT_RESOLVED.iter().any(|words| message.contains(words)) {
            let why = "its core could not read the item once more, and does not say why".into();
            return FetchError::Unavailable { why };
        }
        // What is not known may pass: it denies nothing.
        let unknown =
            || FetchError::Broken { why: format!("1Password's core makes nothing of it: {message}") };
        known(&name, &message, target).unwrap_or_else(unknown)
    }
}

fn known(name: &str, message: &str, target: &Target<'_>) -> Option<FetchError> {
    if name == RATE_LIMIT {
        return Some(FetchError::RateLimited { until: None });
    }
    let (_, meaning) = WORDS.iter().find(|(words, _)| message.contains(words))?;
    Some(match meaning {
        Meaning::RateLimited => FetchError::RateLimited { until: None },
        Meaning::Rejected => FetchError::TokenRejected,
        // An account that is not allowed to sign in was suspended.
        Meaning::Forbidden if name == SIGN_IN => FetchError::TokenRejected,
        Meaning::Forbidden => target.forbidden(),
        Meaning::VaultNotFound => target.vault_not_found(),
        Meaning::NotFound => target.not_found(),
        Meaning::Unreachable(why, Step::Tls) if reaching::proxy().is_some() => {
            FetchError::Unreachable { why: (*why).into(), at: Step::Proxy }
        }
        Meaning::Unreachable(why, at) => FetchError::Unreachable { why: (*why).into(), at: *at },
        Meaning::Unavailable(why) => FetchError::Unavailable { why: (*why).into() },
        Meaning::NotTaken(why) => FetchError::NotTaken { why: (*why).into() },
        Meaning::Broken(why) => FetchError::Broken { why: (*why).into() },
    })
}
