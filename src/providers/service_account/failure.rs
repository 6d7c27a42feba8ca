//! What the core's failures mean. Where it has a type for one, the type counts; where it has only words, this one table
//! reads them (`tests/service_account.rs` holds it against the real library).

use super::core::Failure;
use crate::providers::FetchError;

/// What was asked for when it failed, by what the user calls it.
pub enum Asked<'a> {
    Account,
    Vault { vault: &'a str },
    Item { vault: &'a str, item: &'a str },
}

impl Failure {
    pub fn is_item_not_found(&self) -> bool {
        matches!(self, Self::Reported { message, .. } if message.contains("item couldn't be found"))
    }

    pub fn explain(self, asked: &Asked<'_>) -> FetchError {
        match self {
            Self::Late => FetchError::Unreachable { why: "it did not answer in time".into() },
            Self::Broken(why) => FetchError::Broken { why: format!("1Password's core gave {why}") },
            Self::Reported { name, message } => reported(&name, &message, asked),
        }
    }
}

fn reported(name: &str, message: &str, asked: &Asked<'_>) -> FetchError {
    if name == "RateLimitExceeded" {
        return FetchError::RateLimited { until: None };
    }
    FetchError::Broken { why: format!("1Password's core reports {name}: {message}") }
}
