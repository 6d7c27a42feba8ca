//! What the service counts as it happens, since it began: atomics, so that an answer waits for nobody who counts or reads.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::control::counts::{Bucket, Call, Counts, Durations, Tally};
use crate::providers::FetchError;

/// Who asked: a unit, the mirror for a file, or somebody who is not known to be what he says.
pub const CLIENTS: [&str; 3] = ["unit", "mirror", "unidentified"];
/// Where a value that was served came from.
pub const SOURCES: [&str; 4] = ["memory", "disk", "provider", "stale"];
/// The checks that refuse, as in the journal's OPNIX_CHECK; the last stands for any that is forgotten here.
pub const REASONS: [&str; 13] = [
    "policy",
    "configuration",
    "provider",
    "deadline",
    "size",
    "places",
    "version",
    "interrupted",
    "socket",
    "stopping",
    "peer",
    "hierarchy",
    "other",
];
/// What is asked of the provider.
pub const CALLS: [&str; 3] = ["sign-in", "vaults", "values"];
/// How that ends: as [`FetchError::kind`] has it; the last stands for any that is forgotten here.
pub const RESULTS: [&str; 26] = [
    "ok",
    "token-missing",
    "token-invalid",
    "token-rejected",
    "account-refused",
    "forbidden",
    "vault-not-found",
    "item-not-found",
    "field-not-found",
    "ambiguous",
    "value-empty",
    "value-unusable",
    "rate-limited",
    "name-unknown",
    "proxy-wrong",
    "clock-wrong",
    "untrusted",
    "unreachable",
    "out-of-order",
    "too-slow",
    "core-unusable",
    "certificates-unusable",
    "provider-broken",
    "machine-short",
    "vault-file-unusable",
    "other",
];
/// The upper ends of the histogram's buckets, in milliseconds: from what is answered from memory to the longest deadlines.
pub const LIMITS: [u64; 13] = [1, 5, 10, 50, 100, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000];
const OUTCOMES: [&str; 2] = ["served", "refused"];

/// One counter for each of some names.
struct Table<const N: usize> {
    names: [&'static str; N],
    counts: [AtomicU64; N],
}

impl<const N: usize> Table<N> {
    const fn new(names: [&'static str; N]) -> Self {
        Self { names, counts: [const { AtomicU64::new(0) }; N] }
    }

    fn count(&self, name: &str) {
        let place = self.names.iter().position(|known| *known == name).unwrap_or(N - 1);
        self.counts[place].fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.names.iter().zip(&self.counts).map(|(name, count)| (*name, count.load(Ordering::Relaxed)))
    }
}

/// How long answers took.
struct Histogram {
    /// Those that took no longer than each limit, and longer than the one before; the last took longer than all limits.
    counts: [AtomicU64; LIMITS.len() + 1],
    /// All together, in microseconds.
    sum: AtomicU64,
}

impl Histogram {
    const fn new() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; LIMITS.len() + 1], sum: AtomicU64::new(0) }
    }

    fn observe(&self, took: Duration) {
        let place = LIMITS.iter().position(|limit| took <= Duration::from_millis(*limit));
        self.counts[place.unwrap_or(LIMITS.len())].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn read(&self, outcome: &str) -> Durations {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let buckets =
            LIMITS.iter().zip(&counts).map(|(limit, count)| Bucket { limit: *limit, count: *count });
        Durations {
            outcome: outcome.to_owned(),
            buckets: buckets.collect(),
            longer: counts[LIMITS.len()],
            microseconds: self.sum.load(Ordering::Relaxed),
        }
    }
}

/// Who is unidentified is never served.
static SERVED: [Table<{ SOURCES.len() }>; 2] = [const { Table::new(SOURCES) }; 2];
static REFUSED: [Table<{ REASONS.len() }>; 3] = [const { Table::new(REASONS) }; 3];
static ABANDONED: AtomicU64 = AtomicU64::new(0);
static HELD: AtomicU64 = AtomicU64::new(0);
static DURATIONS: [Histogram; 2] = [const { Histogram::new() }; 2];
static ENDED: [Table<{ RESULTS.len() }>; 3] = [const { Table::new(RESULTS) }; 3];
static VALUES: Table<{ RESULTS.len() }> = Table::new(RESULTS);
static REQUESTS: AtomicU64 = AtomicU64::new(0);
/// Seconds since 1970; 0: not yet.
static ANSWERED: AtomicU64 = AtomicU64::new(0);
static BEGAN: LazyLock<u64> = LazyLock::new(seconds);

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Unit = 0,
    Mirror = 1,
    Unidentified = 2,
}

/// Where a value that is served comes from. Of a text that is made of several, the last in this order counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// It is fresh, and the provider gave it since the service began.
    Memory = 0,
    /// It is fresh, and was in the sealed cache when the service began.
    Disk = 1,
    /// The unit waited for a fetch.
    Provider = 2,
    /// It is an older one, because the provider could not be asked.
    Stale = 3,
}

/// What the provider was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    SignIn = 0,
    Vaults = 1,
    Values = 2,
}

/// From now on is counted.
pub fn begin() {
    LazyLock::force(&BEGAN);
}

/// A value was served, so long after it was asked for.
pub fn served(client: Client, origin: Origin, took: Duration) {
    if let Some(of_client) = SERVED.get(client as usize) {
        of_client.count(SOURCES[origin as usize]);
    }
    DURATIONS[0].observe(took);
}

/// It was decided to refuse, so long after the request came; the peer may take its time to read that.
pub fn refused(client: Client, check: &str, took: Duration) {
    REFUSED[client as usize].count(check);
    DURATIONS[1].observe(took);
}

/// Nobody waited any more for the answer.
pub fn abandoned() {
    ABANDONED.fetch_add(1, Ordering::Relaxed);
}

/// A connection that is not a start of a unit was held or closed.
pub fn held() {
    HELD.fetch_add(1, Ordering::Relaxed);
}

/// A call of the provider ended.
pub fn called<T>(asked: Asked, end: Result<&T, &FetchError>) {
    ENDED[asked as usize].count(end.map_or_else(FetchError::kind, |_| "ok"));
    if end.is_ok() {
        ANSWERED.store(seconds(), Ordering::Relaxed);
    }
}

/// What came of one reference in a fetch.
pub fn fetched<T>(result: Result<&T, &FetchError>) {
    VALUES.count(result.map_or_else(FetchError::kind, |_| "ok"));
}

/// So many requests are about to go out to the provider.
pub fn sent(requests: usize) {
    REQUESTS.fetch_add(requests as u64, Ordering::Relaxed);
}

/// All of it.
pub fn read() -> Counts {
    let tally = |(kind, count): (&'static str, u64), client: &str| Tally {
        client: client.to_owned(),
        kind: kind.to_owned(),
        count,
    };
    let of_clients = |tables: Vec<Vec<(&'static str, u64)>>| {
        let clients = CLIENTS.iter().zip(tables);
        clients.flat_map(|(client, table)| table.into_iter().map(move |one| tally(one, client))).collect()
    };
    let calls = CALLS.iter().zip(&ENDED).flat_map(|(call, table)| {
        table.read().map(|(result, count)| Call {
            call: (*call).to_owned(),
            result: result.to_owned(),
            count,
        })
    });
    Counts {
        since: *BEGAN,
        served: of_clients(SERVED.iter().map(|table| table.read().collect()).collect()),
        refused: of_clients(REFUSED.iter().map(|table| table.read().collect()).collect()),
        abandoned: ABANDONED.load(Ordering::Relaxed),
        held: HELD.load(Ordering::Relaxed),
        durations: OUTCOMES.iter().zip(&DURATIONS).map(|(outcome, of)| of.read(outcome)).collect(),
        calls: calls.collect(),
        values: VALUES.read().map(|one| tally(one, "")).collect(),
        requests: REQUESTS.load(Ordering::Relaxed),
        answered_at: Some(ANSWERED.load(Ordering::Relaxed)).filter(|at| *at > 0),
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_a_counter_and_what_is_unknown_counts_as_other() {
        let table = Table::new(REASONS);
        for name in ["policy", "hierarchy", "policy", "never-heard-of"] {
            table.count(name);
        }
        let counted: Vec<_> = table.read().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("policy", 2), ("hierarchy", 1), ("other", 1)]);
    }

    #[test]
    fn a_duration_is_in_the_bucket_of_the_next_limit() {
        let histogram = Histogram::new();
        for millis in [0, 1, 2, 300_000, 300_001] {
            histogram.observe(Duration::from_millis(millis));
        }
        let read = histogram.read("served");
        let of = |limit| read.buckets.iter().find(|bucket| bucket.limit == limit).map(|bucket| bucket.count);
        assert_eq!((of(1), of(5), of(300_000), read.longer), (Some(2), Some(1), Some(1), 1));
        assert_eq!(read.microseconds, 600_004_000);
    }

    #[test]
    fn the_kinds_of_errors_have_counters() {
        let source = include_str!("providers/error.rs");
        let kinds = source.split_once("pub fn kind(&self)").unwrap().1.split_once("\n    }\n").unwrap().0;
        for kind in kinds.split('"').skip(1).step_by(2) {
            assert!(RESULTS.contains(&kind), "{kind}");
        }
        let source = include_str!("server/refusal.rs");
        let checks = source.split_once("pub fn check(&self)").unwrap().1.split_once("\n    }\n").unwrap().0;
        for check in checks.split('"').skip(1).step_by(2) {
            assert!(REASONS.contains(&check), "{check}");
        }
    }
}
