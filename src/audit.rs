//! The record: who asked for what, and what became of it. Written before a value is used; never with a value in it.
//!
//! Each kind of record has its own MESSAGE_ID, explained in `systemd/opnix.catalog` (`journalctl -x`).

use tracing::{info, warn};

use crate::peer::Claim;
use crate::policy::{Entry, Grant};

/// A grant that is on record. Only [`granted`] makes one, and only it opens the store.
#[derive(Debug)]
#[must_use]
pub struct Permit(Grant);

impl Permit {
    pub fn entry(&self) -> &Entry {
        self.0.entry()
    }

    pub fn claim(&self) -> Claim {
        let peer = self.0.peer();
        Claim { unit: peer.unit.clone(), credential: peer.credential.clone() }
    }
}

pub fn granted(grant: Grant) -> Permit {
    let (peer, entry) = (grant.peer(), grant.entry());
    info!(
        message_id = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c01",
        opnix_unit = %peer.unit,
        opnix_credential = %peer.credential,
        opnix_secret = entry.name,
        opnix_peer_pid = peer.pid,
        "granted credential \"{}\" to unit {}",
        peer.credential,
        peer.unit,
    );
    Permit(grant)
}

/// `check` is the step that said no, in one word; `reason` is for people.
pub fn refused(claim: Option<&Claim>, check: &'static str, reason: &dyn std::fmt::Display) {
    let reason = reason.to_string().replace('\n', "; ");
    match claim {
        Some(claim) => warn!(
            message_id = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c02",
            opnix_unit = %claim.unit,
            opnix_credential = %claim.credential,
            opnix_check = check,
            opnix_reason = reason,
            "refused {claim}: {reason}",
        ),
        None => warn!(
            message_id = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c02",
            opnix_check = check,
            opnix_reason = reason,
            "refused a request: {reason}",
        ),
    }
}

/// An older value stood in for the one that 1Password could not be asked for.
pub fn stood_in(claim: &Claim, caveat: &dyn std::fmt::Display) {
    warn!(
        message_id = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c09",
        opnix_unit = %claim.unit,
        opnix_credential = %claim.credential,
        opnix_reason = %caveat,
        "served {claim} from the cache: {caveat}",
    );
}

/// The peer hung up before there was an answer: its start was cancelled or ran into its own time limit.
pub fn abandoned(claim: Option<&Claim>) {
    let what = claim.map_or_else(|| "a request".to_owned(), Claim::to_string);
    info!(
        message_id = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c03",
        opnix_unit = claim.map(|claim| tracing::field::display(&claim.unit)),
        opnix_credential = claim.map(|claim| tracing::field::display(&claim.credential)),
        "nobody waits any more for {what}: the peer hung up",
    );
}
