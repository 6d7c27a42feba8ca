//! One request, top to bottom: identify, decide, get, answer, record. (Accepting is the loop's, in `accept.rs`.)
//!
//! Each step yields the only type that the next one takes: a stream becomes a `Peer`, a `Peer` a `Grant`, and only a
//! `Grant` opens the store. Code that gives a value to a peer that was not identified and allowed does not compile.
//!
//! [`handle`] runs on the accept thread and waits for nothing. What cannot be answered at once goes to the runtime.

use std::future::Future;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use tokio::select;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::answer::{self, AtOnce, End};
use super::places::{Full, Kind};
use super::refusal::Refusal;
use super::waiting::Wait;
use super::{Service, in_force};
use crate::counters::{self, Client};
use crate::moment::Moment;
use crate::peer::{self, Claim, Identity, Peer, Pretender, Stranger, Unidentified};
use crate::policy::{Grant, MIRROR};
use crate::records;
use crate::remedy::Remedy;
use crate::store::{Served, Store};
use crate::systemd::store;

/// How long to wait before the kernel is asked again who a peer is, when it is short of something.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a peer that sits in another unit than it claims has to read its refusal.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that wants an answer.
pub struct Request {
    pub stream: UnixStream,
    /// When the peer began to wait.
    pub since: Moment,
    /// Its name in the store, if an earlier instance left it there.
    pub found: Option<String>,
    /// It came over the control socket, where no unit gets anything.
    pub misdirected: bool,
}

pub fn handle(request: Request, address: SocketAddr, service: &Arc<Service>) {
    match peer::identify(&request.stream, &address, &service.trust) {
        Ok(Identity::Unit(peer)) => {
            // An instance that died may have begun to answer.
            let interrupted = request.found.is_some() && answer::may_be_begun(&request.stream);
            match (interrupted, request.misdirected) {
                (true, _) => refuse_unit(request, peer, Refusal::Interrupted, service),
                (_, true) => refuse_unit(request, peer, Refusal::WrongSocket, service),
                _ => decide(request, peer, service),
            }
        }
        Ok(Identity::Pretender(pretender)) => {
            go_on(service, turn_away(request, pretender, service.clone()));
        }
        Ok(Identity::Stranger(stranger)) => {
            // The end of the service does not wait for it: it has no end of its own.
            service.base.runtime.spawn(hold(request, stranger, service.clone()));
        }
        Err(errno) => go_on(service, identify_again(request, address, errno, service.clone())),
    }
}

/// A connection whose address is not known yet: one that an earlier instance left, or that did not come through the
/// accept loop.
pub fn take_up(stream: UnixStream, found: Option<String>, misdirected: bool, service: &Arc<Service>) {
    let service = service.clone();
    go_on(&service.clone(), async move {
        let address = loop {
            match stream.peer_addr() {
                Ok(address) => break address,
                Err(_) => sleep(PAUSE).await,
            }
        };
        match found {
            // The peer has its whole answer, or has given up: that both sides have ended counts as a hang-up, too.
            Some(name) if answer::is_gone(&stream) => {
                service.places.found(Kind::Waiting, "", name, None).leave();
                records::abandoned(peer::claim_of(&address).as_ref());
            }
            found => {
                let now = Moment::now();
                let since = found.as_deref().and_then(store::moment_of).map_or(now, |since| since.min(now));
                handle(Request { stream, since, found, misdirected }, address, &service);
            }
        }
    });
}

/// Runs a task on the runtime; the end of the service waits for it.
fn go_on(service: &Arc<Service>, task: impl Future<Output = ()> + Send + 'static) {
    service.unanswered.spawn_on(task, &service.base.runtime);
}

fn refuse_unit(request: Request, peer: Peer, refusal: Refusal, service: &Arc<Service>) {
    go_on(service, refuse(request, peer.claim(), refusal, service.clone()));
}

/// Answers from memory here and now, or else on the runtime.
fn decide(request: Request, peer: Peer, service: &Arc<Service>) {
    let configuration = service.configuration();
    let (grant, store) = match configuration.decide(peer) {
        Ok(decided) => decided,
        Err((peer, _)) => return go_on(service, wait(request, Wanted::Undecided(peer), service.clone())),
    };
    let ready = in_force::ready(&store, &grant);
    let mut sent = 0;
    if let Some(Err(refusal)) =
        ready.as_ref().map(|served| service.goes_together(&grant, request.since, served, &configuration))
    {
        return go_on(service, refuse(request, grant.claim(), refusal, service.clone()));
    }
    if let Some(served) = ready.as_ref().filter(|_| request.found.is_none()) {
        match answer::at_once(&request.stream, &served.value) {
            AtOnce::Ended(end) => {
                let since = request.since;
                // The peer waits for the end of the connection; everything else can be done after it.
                drop(request);
                on_record(&grant, served, end, since, service);
                return service.trust.let_go(grant.into_peer());
            }
            AtOnce::Later(written) => sent = written,
        }
    }
    let wanted = match ready {
        Some(served) => Wanted::Ready(grant, Box::new(served), sent),
        None => Wanted::Value(grant, store),
    };
    go_on(service, wait(request, wanted, service.clone()));
}

/// What a request waits for.
enum Wanted {
    /// The configuration in force does not allow it; the files may be other ones by now.
    Undecided(Peer),
    Value(Grant, Store),
    /// To be written, as far as it is not: so many bytes are.
    Ready(Grant, Box<Served>, usize),
}

impl Wanted {
    fn claim(&self) -> Claim {
        match self {
            Self::Undecided(peer) => peer.claim(),
            Self::Value(grant, _) | Self::Ready(grant, ..) => grant.claim(),
        }
    }

    /// The value, with how many bytes of it are written already, when it is there.
    async fn come(self, since: Moment, service: &Arc<Service>) -> Result<(Grant, Served, usize), Refusal> {
        let (grant, store) = match self {
            Self::Ready(grant, served, sent) => return Ok((grant, *served, sent)),
            Self::Value(grant, store) => (grant, store),
            Self::Undecided(peer) => {
                service.look().await;
                service.configuration().decide(peer).map_err(|(_, refusal)| refusal)?
            }
        };
        records::waits(&grant.claim());
        let (grant, served) = value(grant, since, store, service).await?;
        service.goes_together(&grant, since, &served, &service.configuration())?;
        Ok((grant, served, 0))
    }
}

/// Answers when the value is there.
async fn wait(request: Request, wanted: Wanted, service: Arc<Service>) {
    let claim = wanted.claim();
    let places = &service.places;
    let Request { stream, since, found, .. } = request;
    let place = match found {
        Some(name) => Ok(places.found(Kind::Waiting, claim.unit.as_str(), name, None)),
        None => places.take(Kind::Waiting, claim.unit.as_str(), &stream, since, None),
    };
    let place = match place {
        Ok(place) => place,
        Err(full) => {
            // One that is not allowed is told so, although the files might say otherwise by now.
            let refusal = match wanted {
                Wanted::Undecided(peer) => service.configuration().decide(peer).err().map(|(_, why)| why),
                Wanted::Value(..) | Wanted::Ready(..) => None,
            };
            let request = Request { stream, since, found: None, misdirected: false };
            return refuse(request, claim, refusal.unwrap_or(Refusal::Places(full)), service.clone()).await;
        }
    };
    let stream = answer::watched(stream).await;
    let answered = place.keeping(stream.connection(), async {
        let value = select! {
            // What is there is written, whatever else is to be done.
            biased;
            value = wanted.come(since, &service) => value,
            () = answer::hung_up(&stream) => {
                service.abandoned(&claim);
                return true;
            }
            () = service.refusing.cancelled() => Err(Refusal::Stopping),
            () = service.orphaned.cancelled() => {
                if place.is_stored() {
                    // The next instance answers it.
                    return false;
                }
                Err(Refusal::Stopping)
            }
        };
        match value {
            Ok((grant, served, sent)) => {
                let end = answer::whole(&stream, &served.value, sent).await;
                on_record(&grant, &served, end, since, &service);
            }
            Err(refusal) => {
                on_record_refused(&claim, &refusal, since, &service);
                let _ = answer::refuse(&stream).await;
            }
        }
        true
    });
    if answered.await {
        place.leave();
    }
}

/// The value, when it is there. When another configuration comes into force, a request that may wait longer than others is decided
/// anew, and so is one that finds nothing in what the last one has left.
async fn value(
    mut grant: Grant,
    since: Moment,
    mut store: Store,
    service: &Service,
) -> Result<(Grant, Served), Refusal> {
    if !service.is_in_force(&store) {
        (grant, store) = service.configuration().decide(grant.into_peer()).map_err(|(_, refusal)| refusal)?;
    }
    loop {
        let deadline = store.deadline_of(&grant);
        let until = (deadline < Duration::MAX).then(|| since + deadline);
        let _listed = service.waiting.list(Wait { claim: grant.claim(), since, until });
        select! {
            served = in_force::get(&store, &grant, since) => match served {
                Ok(served) => return Ok((grant, served)),
                Err(refusal) if service.is_in_force(&store) => return Err(refusal),
                Err(_) => {}
            },
            () = service.replaced(&store), if grant.deadline().is_some() => {}
        }
        let peer = grant.into_peer();
        (grant, store) = service.configuration().decide(peer).map_err(|(_, refusal)| refusal)?;
    }
}

fn on_record(grant: &Grant, served: &Served, end: End, since: Moment, service: &Service) {
    if end == End::Gone {
        return service.abandoned(&grant.claim());
    }
    let claim = grant.claim();
    counters::served(client(&claim), served.origin, Moment::now().since(since));
    service.missed.settle(&claim);
    service.refusals.settle(&claim);
    records::granted(grant);
    if claim.unit.as_str() != MIRROR {
        service.given.note(claim, served.value.clone());
    }
    if let Some(caveat) = &served.caveat {
        records::stood_in(&grant.claim(), caveat);
    }
}

fn on_record_refused(claim: &Claim, refusal: &Refusal, since: Moment, service: &Service) {
    counters::refused(client(claim), refusal.check(), Moment::now().since(since));
    service.refused(claim, refusal);
    let mut reason = refusal.line();
    if let Refusal::Policy(_) = refusal
        && let Some(meant) = service.configuration().meant(claim)
    {
        reason = format!("{reason}; {meant}");
    }
    records::refused(claim, refusal.check(), &reason);
}

fn client(claim: &Claim) -> Client {
    if claim.unit.as_str() == MIRROR { Client::Mirror } else { Client::Unit }
}

/// Refuses a unit, on record. Takes time, because the peer must read all of the refusal.
async fn refuse(request: Request, claim: Claim, refusal: Refusal, service: Arc<Service>) {
    on_record_refused(&claim, &refusal, request.since, &service);
    let unit = claim.unit.as_str();
    let Request { stream, since, found, .. } = request;
    let place = match found {
        Some(name) => Ok(service.places.found(Kind::Refused, unit, name, None)),
        None => {
            let take = |kind| service.places.take(kind, unit, &stream, since, None);
            // When all places are taken, it is refused without one: a unit that reads is soon done.
            take(Kind::Refused).or_else(|_| take(Kind::Unstored))
        }
    };
    match place {
        Ok(place) => {
            let stream = answer::watched(stream).await;
            let _ = place.keeping(stream.connection(), answer::refuse(&stream)).await;
            place.leave();
        }
        // Only a unit that asks hundreds of times without reading comes here, and it harms nobody but itself.
        Err(full) => records::closed(Some(&claim), unit, &full.line()),
    }
}

/// Refuses a peer that is not, or may not be, the unit that it claims to be.
async fn turn_away(request: Request, pretender: Pretender, service: Arc<Service>) {
    let Pretender { claim, why, group, foreign } = pretender;
    counters::refused(Client::Unidentified, why.check(), Moment::now().since(request.since));
    records::refused_pretender(claim.as_ref(), &group, why.check(), &why.line());
    let (leave, left) = oneshot::channel();
    // Only a peer that certainly sits in another unit is closed before it has read everything: what it has read so far
    // would be a valid secret.
    let leave = foreign.then_some(leave);
    let Request { stream, since, found, .. } = request;
    let place = match found {
        Some(name) => Ok(service.places.found(Kind::Pretender, &group, name, leave)),
        None => service.places.take(Kind::Pretender, &group, &stream, since, leave).or_else(|full| {
            let unstored = || service.places.take(Kind::Unstored, &group, &stream, since, None);
            if foreign { Err(full) } else { unstored() }
        }),
    };
    let place = match place {
        Ok(place) => place,
        Err(full) => return records::closed(claim.as_ref(), &group, &full.line()),
    };
    let stream = answer::watched(stream).await;
    let refused = async {
        select! {
            _ = answer::refuse(&stream) => None,
            _ = left, if foreign => Some("others needed its place, and it had not read its refusal"),
            () = sleep(PATIENCE), if foreign => Some("it did not read its refusal"),
        }
    };
    if let Some(why) = place.keeping(stream.connection(), refused).await {
        records::closed(claim.as_ref(), &group, why);
    }
    place.leave();
}

/// Gives nothing, not even the end of the connection, to a peer that is not a start of a unit, until it goes by itself. On the
/// control socket nobody waits for a secret that could still come: there it is refused.
async fn hold(request: Request, stranger: Stranger, service: Arc<Service>) {
    counters::held();
    let Request { stream, since, found, misdirected } = request;
    let group = &stranger.group;
    let place = match found {
        Some(name) => Ok(service.places.found(Kind::Stranger, group, name, None)),
        None => service.places.take(Kind::Stranger, group, &stream, since, None).or_else(|full| {
            let unstored = || service.places.take(Kind::Unstored, group, &stream, since, None);
            // A group that has not taken all of its own places still gets one.
            if matches!(full, Full::All(_)) { unstored() } else { Err(full) }
        }),
    };
    match place {
        Ok(place) if stranger.trusted => {
            let stream = answer::watched(stream).await;
            let gone = async {
                if misdirected {
                    let why = Refusal::WrongSocket;
                    records::refused_pretender(None, group, why.check(), &why.line());
                    let _ = answer::refuse(&stream).await;
                } else {
                    records::held(&stranger);
                }
                answer::hung_up(&stream).await;
            };
            place.keeping(stream.connection(), gone).await;
            place.leave();
        }
        Ok(place) => {
            let why = format!("it belongs to user {} and is not a start of a unit", stranger.uid);
            records::closed(None, group, &why);
            place.leave();
        }
        Err(full) => records::closed(None, group, &full.line()),
    }
}

/// Asks the kernel until it can say who the peer is. An answer that it is short of something says nothing about the
/// peer.
async fn identify_again(request: Request, address: SocketAddr, errno: Errno, service: Arc<Service>) {
    let pretender =
        |why| Pretender { claim: None, why, group: "a place that is not known".into(), foreign: false };
    tracing::error!("cannot find out who asks for now, trying again: {errno}");
    loop {
        select! {
            () = sleep(PAUSE) => {}
            () = service.refusing.cancelled() => {
                let why = Unidentified::Kernel(errno);
                return turn_away(request, pretender(why), service.clone()).await;
            }
        }
        if answer::is_gone(&request.stream) {
            return records::abandoned(peer::claim_of(&address).as_ref());
        }
        if peer::identify(&request.stream, &address, &service.trust).is_ok() {
            return handle(request, address, &service);
        }
    }
}
