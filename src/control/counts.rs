//! What `Counts` answers: what the service has counted.

use serde::{Deserialize, Serialize};
use zlink::introspect::{CustomType, Type};

/// What `Counts` answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Type)]
pub struct Counts {
    /// When the service began to count.
    pub since: u64,
    /// Values that were served, by who asked and where they came from.
    pub served: Vec<Tally>,
    /// Requests that were refused, by who asked and the check that failed.
    pub refused: Vec<Tally>,
    /// Requests for whose answer nobody waited any more.
    pub abandoned: u64,
    /// Connections that are not starts of units.
    pub held: u64,
    /// How long answers took.
    pub durations: Vec<Durations>,
    /// Calls of the provider that have ended.
    pub calls: Vec<Call>,
    /// What came of each reference that was fetched.
    pub values: Vec<Tally>,
    /// How many requests were sent to the provider, or tried to be.
    pub requests: u64,
    /// When the provider last answered; none: not since the service began.
    pub answered_at: Option<u64>,
}

/// How often one thing happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomType)]
pub struct Tally {
    /// unit, mirror or unidentified; empty where nobody asked.
    pub client: String,
    pub kind: String,
    pub count: u64,
}

/// How often a call of the provider ended in this way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomType)]
pub struct Call {
    pub call: String,
    pub result: String,
    pub count: u64,
}

/// How long answers of one outcome took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomType)]
pub struct Durations {
    /// served or refused.
    pub outcome: String,
    pub buckets: Vec<Bucket>,
    /// How many took longer than the last limit.
    pub longer: u64,
    /// All together.
    pub microseconds: u64,
}

/// How many answers took no longer than this, and longer than the limit before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomType)]
pub struct Bucket {
    /// In milliseconds.
    pub limit: u64,
    pub count: u64,
}
