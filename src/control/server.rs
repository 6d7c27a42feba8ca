//! The service's end of the control socket. Each connection is served by itself, so that one that waits holds up no
//! other.

use std::cell::Cell;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::try_join_all;
use futures_util::stream::{iter, unfold};
use nix::unistd::Uid;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_local;
use tokio::time::sleep;
use tracing::{debug, warn};
use zlink::{Reply, Server, service};

use super::answers;
use super::connection::{self, End};
use super::counts::{Bucket, Call, Counts, Durations, Tally};
use super::interface::{
    Budget, Cache, Changes, Error, Explanation, Fetching, Health, Held, MirroredFile, Missed, Outcome,
    Outdated, Progress, Provider, Records, Refreshed, Refusal, Rejected, Renewal, Request, Rule, Secret,
    State, Status, TokenTaken, UnitState, Window,
};
use super::unserved::{Delay, Unserved};
use crate::counters;
use crate::peer::is_named;
use crate::server::{Feed, Service, request};

/// How many connections there can be at a time; each has a few descriptors.
const CONNECTIONS: usize = 1024;
/// How many secrets an answer tells of, to who asks for several: zlink begins a message anew each time that its buffer has to grow,
/// by 256 bytes.
const PAGE: usize = 64;
/// How often it is looked how far a fetch is, while somebody hears of it.
const PROGRESS: Duration = Duration::from_millis(200);
/// How many there can be besides that only hear of changes, for as long as they like.
const WATCHERS: usize = 64;

/// Serves until it is dropped. To be run within a [`tokio::task::LocalSet`].
pub async fn serve(listeners: Vec<UnixListener>, service: Arc<Service>) -> io::Result<()> {
    if listeners.is_empty() {
        return pending().await;
    }
    let room = Room {
        connections: Arc::new(Semaphore::new(CONNECTIONS)),
        watchers: Arc::new(Semaphore::new(WATCHERS)),
    };
    let serving = listeners.into_iter().map(|listener| serve_one(listener, room.clone(), &service));
    try_join_all(serving).await.map(drop)
}

#[derive(Clone)]
struct Room {
    connections: Arc<Semaphore>,
    watchers: Arc<Semaphore>,
}

async fn serve_one(listener: UnixListener, room: Room, service: &Arc<Service>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    loop {
        let Ok(place) = room.connections.clone().acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("cannot accept a connection to the control socket for now: {error}");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // The socket's mode says the same. Whoever runs the service may ask it, too.
        let peer = stream.peer_cred().map(|peer| peer.uid());
        let is_named = is_named(&stream);
        // A unit whose LoadCredential= names this socket, or a crypttab that does: the end of its connection would be
        // an empty secret.
        if is_named {
            refuse(stream, service);
            continue;
        }
        if !peer.as_ref().is_ok_and(|uid| *uid == 0 || *uid == Uid::effective().as_raw()) {
            warn!("refused a connection to the control socket by user {peer:?}");
            continue;
        }
        let (service, watchers) = (service.clone(), room.watchers.clone());
        spawn_local(async move {
            let control = Control { service: service.clone(), place: Cell::new(Some(place)), watchers };
            let end = connection::limited(&stream, |ready| Server::new(ready, control).run()).await;
            match end {
                Ok(End::Over) => {}
                Ok(End::OnlyReads) => refuse(stream, &service),
                Err(error) => debug!("a connection to the control socket ended: {error}"),
            }
        });
    }
}

/// Who asks for a secret gets none here, and no end that it could take for one.
fn refuse(stream: UnixStream, service: &Arc<Service>) {
    match stream.into_std() {
        Ok(stream) => request::take_up(stream, None, true, service),
        Err(error) => warn!("a unit that asked on the control socket could not be refused: {error}"),
    }
}

struct Control {
    service: Arc<Service>,
    /// Among the connections or the watchers.
    place: Cell<Option<OwnedSemaphorePermit>>,
    watchers: Arc<Semaphore>,
}

/// The service that gives systemd units their secrets from 1Password. Times are seconds since 1970 (UTC), ages are seconds.
/// No value of a secret ever goes through here. A connection on which nothing is said for ten seconds ends.
#[service(
    interface = "io.opnix",
    types = [Provider, Health, Cache, Budget, Window, Secret, State, Missed, Refusal, MirroredFile, Delay, Held, Records, Rejected, Request, Rule, Renewal, Outcome, Fetching, Tally, Call, Durations, Bucket],
    vendor = "opnix",
    product = "opnix",
    version = env!("CARGO_PKG_VERSION"),
)]
impl Control {
    /// The state of the service: its provider, cache, budget and secrets. Who asks for more than one answer gets some of many secrets,
    /// files and refusals with each, which takes less time; what else is a list is in the first.
    #[zlink(more)]
    async fn status(&self, more: bool) -> impl Stream<Item = Reply<Status>> + Unpin {
        let most = if more { PAGE } else { usize::MAX };
        iter(answers::status(&self.service).pages(most).map(move |(status, continues)| {
            Reply::new(Some(status)).set_continues(more.then_some(continues))
        }))
    }

    /// Whether a unit would get a credential, and by which line of the configuration in force.
    async fn explain(&self, unit: String, credential: String) -> Result<Explanation, Error> {
        answers::explanation(&self.service, &unit, &credential)
    }

    /// The credentials of which a unit was last given an older value than the newest that is known.
    async fn outdated(&self) -> Outdated {
        answers::outdated(&self.service)
    }

    /// What a unit may have, was given and waits for.
    async fn unit(&self, unit: String) -> Result<UnitState, Error> {
        answers::unit(&self.service, &unit)
    }

    /// Asks 1Password for these secrets now, or for all of them if none is named, and answers when it is done. A dry run
    /// keeps nothing of it.
    async fn refresh(&self, names: Vec<String>, dry_run: Option<bool>) -> Result<Refreshed, Error> {
        answers::refresh(&self.service, &names, dry_run.unwrap_or(false)).await
    }

    /// Takes the token that is in the pipe that comes with the call, whose other end is closed; without a pipe there is no token,
    /// or this is why it cannot be read. A dry run only says what would come of it.
    async fn take_token(
        &self,
        trouble: Option<String>,
        dry_run: Option<bool>,
        #[zlink(fds)] pipe: Vec<OwnedFd>,
    ) -> Result<TokenTaken, Error> {
        // It is judged by the configuration that comes with it, whose reload may come later.
        self.service.look().await;
        answers::take_token(&self.service, trouble, dry_run.unwrap_or(false), pipe)
    }

    /// What was counted since the service began. An older service does not tell it.
    async fn counts(&self) -> Counts {
        counters::read()
    }

    /// How much has changed so far, and again whenever something does. When too many hear of it, the answer is the last.
    #[zlink(more)]
    async fn watch(&self, more: bool) -> impl Stream<Item = Reply<Changes>> + Unpin {
        let more = self.may_watch(more);
        let mut changes = self.service.changes();
        changes.mark_changed();
        Box::pin(unfold((changes, true), move |(mut changes, open)| async move {
            if !open {
                return None;
            }
            let last = changes.changed().await.is_err() || !more;
            let count = *changes.borrow_and_update();
            Some((Reply::new(Some(Changes { count })).set_continues(Some(!last)), (changes, !last)))
        }))
    }

    /// What units do not get: those that were refused after the refusal of this number, or all if none is named, and those that wait
    /// for some seconds; and again whenever there are more. When too many hear of it, the answer is the last. An older service does
    /// not tell it.
    #[zlink(more)]
    async fn unserved(&self, more: bool, after: Option<u64>) -> impl Stream<Item = Reply<Unserved>> + Unpin {
        let more = self.may_watch(more);
        let service = self.service.clone();
        let feed = Some(Feed::after(after, service.clone()));
        Box::pin(unfold((feed, service), move |(feed, service)| async move {
            let mut feed = feed?;
            let unserved = Unserved::of(feed.next().await, &service);
            let next = more.then_some(feed);
            Some((Reply::new(Some(unserved)).set_continues(Some(more)), (next, service)))
        }))
    }

    /// How far what is being fetched is, and again, a few times a second at most, whenever it is further. When too many hear of it,
    /// the answer is the last. An older service does not tell it.
    #[zlink(more)]
    async fn progress(&self, more: bool) -> impl Stream<Item = Reply<Progress>> + Unpin {
        let more = self.may_watch(more);
        let begin = (self.service.clone(), None, true);
        Box::pin(unfold(begin, move |(service, told, open)| async move {
            if !open {
                return None;
            }
            let mut now = answers::progress(&service);
            while told.as_ref() == Some(&now) {
                sleep(PROGRESS).await;
                now = answers::progress(&service);
            }
            Some((Reply::new(Some(now.clone())).set_continues(Some(more)), (service, Some(now), more)))
        }))
    }
}

impl Control {
    /// Whether more than one answer is to be given. The connection has a place among the watchers then.
    fn may_watch(&self, more: bool) -> bool {
        let place = self.watchers.clone().try_acquire_owned().ok().filter(|_| more);
        let more = place.is_some();
        if more {
            self.place.set(place);
        }
        more
    }
}
