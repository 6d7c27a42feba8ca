//! One request, top to bottom: identify, decide, record, get, answer. (Accepting is the loop's, in `mod.rs`.)
//!
//! Each step yields the only type that the next one takes: a stream becomes a `Peer`, a `Peer` a `Grant`, a `Grant` a
//! `Permit`, and only a `Permit` opens the store. A value for a peer that was not identified, allowed and recorded
//! does not compile.

use std::io;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::Arc;

use tokio::select;

use super::answer;
use super::park::Place;
use super::refusal::Refusal;
use super::{Configuration, Service};
use crate::audit::{self, Permit};
use crate::peer::{self, Claim};
use crate::store::Served;

/// A connection that wants an answer: just accepted, or found in the store, where it then has its place.
pub struct Request {
    pub stream: UnixStream,
    /// Whose end the other one is. Read it only to be told who claims to ask.
    pub address: io::Result<SocketAddr>,
    pub place: Option<Place>,
}

pub fn handle(request: Request, service: &Arc<Service>) {
    let configuration = service.configuration();
    let permit = match permit(&request, &configuration, service) {
        Ok(permit) => permit,
        Err((claim, refusal)) => return refuse(request, claim, refusal, service),
    };
    // From memory: answered here and now, so that it needs no protection from our death.
    if request.place.is_none() && answered_at_once(&request.stream, &permit, &configuration) {
        // The peer waits for the end of the connection; all else can be tidied up after it.
        return drop(request);
    }
    // All else takes time, and so is parked first: if we die, the next instance answers it.
    let place = match request.place.map_or_else(|| service.park.wait(&request.stream), Ok) {
        Ok(place) => place,
        Err(full) => {
            let request = Request { place: None, ..request };
            return refuse(request, Some(permit.claim()), Refusal::Park(full), service);
        }
    };
    let service = service.clone();
    service.base.runtime.clone().spawn(async move {
        let claim = permit.claim();
        let Some(stream) = watched(request.stream) else { return };
        let value = select! {
            value = configuration.get(&permit) => value,
            () = answer::hung_up(&stream) => {
                audit::abandoned(Some(&claim));
                return place.leave();
            }
            () = service.refusing() => Err(Refusal::Stopping),
        };
        match value {
            // The peer may hang up while it is answered; there is nobody left to tell then.
            Ok(served) => {
                stand_in_on_record(&claim, &served);
                drop(answer::whole(&stream, &served.value).await);
            }
            Err(refusal) => {
                audit::refused(Some(&claim), refusal.check(), &refusal);
                drop(answer::refuse(&stream).await);
            }
        }
        place.leave();
    });
}

/// Who asks, may it, and the record of that.
fn permit(
    request: &Request,
    configuration: &Configuration,
    service: &Service,
) -> Result<Permit, (Option<Claim>, Refusal)> {
    let Request { stream, address, place } = request;
    let peer = peer::identify(stream, address.as_ref().ok(), &service.trust)
        .map_err(|(claim, why)| (claim, Refusal::Peer(why)))?;
    if place.is_some() && answer::begun(stream) {
        return Err((Some(peer.into()), Refusal::Interrupted));
    }
    let grant = configuration.decide(peer).map_err(|(claim, refusal)| (Some(claim), refusal))?;
    Ok(audit::granted(grant))
}

fn answered_at_once(stream: &UnixStream, permit: &Permit, configuration: &Configuration) -> bool {
    let Some(served) = configuration.ready(permit) else { return false };
    // An error means that the peer is gone; the connection closes here either way.
    let answered = answer::at_once(stream, &served.value).unwrap_or(true);
    if answered {
        stand_in_on_record(&permit.claim(), &served);
    }
    answered
}

fn stand_in_on_record(claim: &Claim, served: &Served) {
    if let Some(caveat) = &served.caveat {
        audit::stood_in(claim, caveat);
    }
}

/// Says no, on record. Takes time too, as the peer must read all of the refusal, and so is parked as well.
fn refuse(request: Request, claim: Option<Claim>, refusal: Refusal, service: &Arc<Service>) {
    audit::refused(claim.as_ref(), refusal.check(), &refusal);
    let place = request.place.map_or_else(|| service.park.hold(&request.stream), Ok);
    service.base.runtime.spawn(async move {
        let Some(stream) = watched(request.stream) else { return };
        drop(answer::refuse(&stream).await);
        place
            .map(Place::leave)
            .unwrap_or_else(|error| tracing::error!("a refusal went out unprotected: {error}"));
    });
}

/// Fails when the kernel is out of memory. The request then stays in the store for the next instance: closing it would
/// be an empty answer.
fn watched(stream: UnixStream) -> Option<tokio::net::UnixStream> {
    answer::watched(stream).inspect_err(|error| tracing::error!("cannot watch a connection: {error}")).ok()
}
