//! Records about the service: its configuration, its cache, its provider, and what it leaves to the next instance.

use std::path::Path;
use std::time::Duration;

use tracing::{error, info, warn};

use super::id;
use crate::config::Faults;
use crate::counted::counted;
use crate::moment::Moment;
use crate::peer::Legacy;
use crate::providers::FetchError;
use crate::remedy::Remedy;
use crate::store::Progress;

/// Everything that is wrong with the configuration.
pub fn faults(faults: &Faults) {
    for fault in faults.iter() {
        error!(message_id = id::FAULT, "{}", fault.line());
    }
}

/// The service serves nobody, whatever its configuration says.
pub fn obstacle(why: &Legacy) {
    error!(message_id = id::OBSTACLE, "every request is refused: {}", why.line());
}

pub fn reloaded() {
    info!(message_id = id::RELOADED, "reloaded the configuration");
}

pub fn kept_old_configuration(why: &str) {
    error!(message_id = id::KEPT_OLD, "{why}");
}

/// Said where a unit is refused by the configuration in force.
pub fn cannot_look(limit: Duration) {
    warn!(
        "whether the files of the configuration are other ones is not known: they cannot be read within {limit:?}"
    );
}

pub fn token_taken() {
    info!(message_id = id::TOKEN_TAKEN, "took the new token");
}

/// Requests that the last instance left in systemd's store.
pub fn found(requests: usize) {
    info!(message_id = id::FOUND, "found {} in the store", counted(requests, "waiting request"));
}

pub fn left(requests: usize) {
    info!(message_id = id::LEFT, "left {} to the next instance", counted(requests, "request"));
}

pub fn cache_unreadable(path: &Path, error: &std::io::Error) {
    warn!(message_id = id::CACHE_UNUSED, "the sealed cache {} cannot be read: {error}", path.display());
}

pub fn cache_unused(path: &Path, why: &dyn std::fmt::Display) {
    warn!(
        message_id = id::CACHE_UNUSED,
        "the sealed cache {} is not used: {why}; values come from 1Password again",
        path.display()
    );
}

pub fn provider_down(why: &FetchError) {
    let why = why.line();
    warn!(message_id = id::PROVIDER_DOWN, "values come from the cache where they can: {why}");
}

/// A fetch of many values takes long.
pub fn fetching(progress: &Progress, now: Moment) {
    let (Progress { done, all, .. }, took) = (progress, took(progress, now));
    info!("fetching {all} values: {done} of them are done after {took}");
}

/// The end of such a fetch.
pub fn fetched(progress: &Progress, now: Moment) {
    let (Progress { all, failed, .. }, took) = (progress, took(progress, now));
    match failed {
        0 => info!("fetched {all} values in {took}"),
        _ => info!("fetched {} of {all} values in {took}: see `opnix status`", all - failed),
    }
}

fn took(progress: &Progress, now: Moment) -> humantime::FormattedDuration {
    let seconds = now.since(progress.since).as_secs_f64().round();
    humantime::format_duration(Duration::from_secs_f64(seconds))
}

pub fn provider_up() {
    info!(message_id = id::PROVIDER_UP, "values come from the provider again");
}
