//! Records about requests: what became of each.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tracing::{info, warn};

use super::id::{self, GRANT, REFUSAL};
use super::repeats::Repeats;
use crate::counters;
use crate::peer::{Claim, Stranger};
use crate::policy::Grant;
use crate::providers::FetchError;
use crate::remedy::Remedy;

/// How many refusals of one kind a unit has on record in a minute, before the rest is only counted: far more than
/// failing starts cause.
const OF_A_UNIT: u64 = 1000;
/// The same for peers that are not units.
const OF_OTHERS: u64 = 1;

static REPEATS: Mutex<Option<Repeats>> = Mutex::new(None);

/// The unit has its value.
pub fn granted(grant: &Grant) {
    let (peer, entry) = (grant.peer(), grant.entry());
    info!(
        target: GRANT,
        message_id = id::GRANTED,
        opnix_unit = %peer.unit,
        opnix_credential = %peer.credential,
        opnix_secret = entry.name,
        opnix_peer_pid = peer.pid,
        "granted credential \"{}\" to unit {}",
        peer.credential,
        peer.unit,
    );
}

/// The value is not at hand: the unit waits for it.
pub fn waits(claim: &Claim) {
    info!(
        target: GRANT,
        message_id = id::WAITS,
        opnix_unit = %claim.unit,
        opnix_credential = %claim.credential,
        "{claim} is being fetched",
    );
}

/// A unit that has a deadline of its own goes on waiting, although its value cannot be had for now.
pub fn waits_on(claim: &Claim, why: &FetchError) {
    warn!(
        message_id = id::WAITS_ON,
        opnix_unit = %claim.unit,
        opnix_credential = %claim.credential,
        opnix_reason = %why,
        "{claim} cannot be had for now, and the unit goes on waiting: {}",
        why.lines(),
    );
}

/// An older value stood in for the one that 1Password could not be asked for.
pub fn stood_in(claim: &Claim, caveat: &(dyn std::fmt::Display + Sync)) {
    warn!(
        message_id = id::STOOD_IN,
        opnix_unit = %claim.unit,
        opnix_credential = %claim.credential,
        opnix_reason = %caveat,
        "served {claim} from the cache: {caveat}",
    );
}

/// The peer hung up before it had its answer: its start was cancelled or ran into its own time limit.
pub fn abandoned(claim: Option<&Claim>) {
    counters::abandoned();
    let what = claim.map_or_else(|| "a request".to_owned(), Claim::to_string);
    info!(
        target: GRANT,
        message_id = id::ABANDONED,
        opnix_unit = claim.map(|claim| tracing::field::display(&claim.unit)),
        opnix_credential = claim.map(|claim| tracing::field::display(&claim.credential)),
        "nobody waits any more for {what}: the peer hung up",
    );
}

/// A unit was refused. `check` is the step that said no, in one word; `reason` is for people.
pub fn refused(claim: &Claim, check: &'static str, reason: &str) {
    if is_told(claim.unit.as_str(), check, OF_A_UNIT) {
        tell_refusal(Some(claim), check, reason);
    }
}

/// A peer was refused that is not the unit that it claims to be, and sits in `group`.
pub fn refused_pretender(claim: Option<&Claim>, group: &str, check: &'static str, reason: &str) {
    if is_told(group, check, OF_OTHERS) {
        tell_refusal(claim, check, reason);
    }
}

fn tell_refusal(claim: Option<&Claim>, check: &'static str, reason: &str) {
    match claim {
        Some(claim) => warn!(
            target: REFUSAL,
            message_id = id::REFUSED,
            opnix_unit = %claim.unit,
            opnix_credential = %claim.credential,
            opnix_check = check,
            opnix_reason = reason,
            "refused {claim}: {reason}",
        ),
        None => warn!(
            target: REFUSAL,
            message_id = id::REFUSED,
            opnix_check = check,
            opnix_reason = reason,
            "refused a request: {reason}",
        ),
    }
}

/// A connection that is not a start of a unit is held without an answer.
pub fn held(stranger: &Stranger) {
    if is_told(&stranger.group, "held", OF_OTHERS) {
        let advice = advice(&stranger.address);
        warn!(
            target: REFUSAL,
            message_id = id::HELD,
            opnix_group = stranger.group,
            "holds a connection from {} ({}), which is not a start of a unit: it gets nothing, because it could take anything, \
             even the end of the connection, for its secret; {advice}",
            stranger.group,
            stranger.address,
        );
    }
}

/// What such a client usually is, and what to write instead.
fn advice(address: &str) -> &'static str {
    if address.contains("/cryptsetup/") {
        "it looks like the key field of a crypttab: take the socket out of it, and give the credential to \
         systemd-cryptsetup@VOLUME.service (LoadCredential=cryptsetup.passphrase:/run/opnix/creds.sock)"
    } else {
        "if it is systemd-nspawn --load-credential=ID:PATH, give the credential to the unit that starts the container \
         (LoadCredential=ID:/run/opnix/creds.sock), and pass it on by name: --load-credential=ID:ID"
    }
}

/// A connection was closed without a whole answer.
pub fn closed(claim: Option<&Claim>, group: &str, reason: &str) {
    if is_told(group, "closed", OF_OTHERS) {
        let what =
            claim.map_or_else(|| "a connection".to_owned(), |claim| format!("the request for {claim}"));
        warn!(
            target: REFUSAL,
            message_id = id::CLOSED,
            opnix_unit = claim.map(|claim| tracing::field::display(&claim.unit)),
            opnix_credential = claim.map(|claim| tracing::field::display(&claim.credential)),
            opnix_group = group,
            opnix_reason = reason,
            "closed {what}, which came from {group}: {reason}",
        );
    }
}

/// Whether one more of this kind is written now; if not, it is counted.
fn is_told(group: &str, kind: &'static str, most: u64) -> bool {
    let mut repeats = REPEATS.lock().unwrap_or_else(PoisonError::into_inner);
    // A unit has one name, which the kernel vouches for.
    repeats.get_or_insert_default().is_told(Instant::now(), group, kind, most, most == OF_OTHERS)
}

/// Tells what was counted and not written, each a minute after its first; at the `end`, all of it. To be called from time
/// to time.
pub fn tell_repeated(end: bool) {
    let mut repeats = REPEATS.lock().unwrap_or_else(PoisonError::into_inner);
    let due = repeats.as_mut().map(|repeats| repeats.due(Instant::now(), end));
    drop(repeats);
    for (group, kind, more) in due.into_iter().flatten() {
        warn!(
            target: REFUSAL,
            message_id = id::REFUSED,
            opnix_group = group,
            opnix_check = kind,
            opnix_repeated = more,
            "{more} more of the same within a minute: requests from {group} ({kind})",
        );
    }
}
