//! The service's end of the control socket. Each connection is served by itself, so that one that waits holds up no
//! other.

use std::future::pending;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::future::try_join_all;
use futures_util::stream::unfold;
use nix::unistd::Uid;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tracing::{debug, warn};
use zlink::tokio::unix;
use zlink::{ReadyListener, Reply, Server, service};

use super::answers;
use super::interface::{
    Budget, Cache, Changes, Error, Explanation, Health, Missed, Outcome, Provider, Records, Refreshed,
    Rejected, Renewal, Request, Rule, Secret, State, Status, TokenTaken, Window,
};
use crate::peer::is_named;
use crate::server::{Service, request};

/// How many connections there can be at a time.
const CONNECTIONS: usize = 64;

/// Serves until it is dropped. To be run within a [`tokio::task::LocalSet`].
pub async fn serve(listeners: Vec<UnixListener>, service: Arc<Service>) -> io::Result<()> {
    if listeners.is_empty() {
        return pending().await;
    }
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let serving = listeners.into_iter().map(|listener| serve_one(listener, &room, &service));
    try_join_all(serving).await.map(drop)
}

async fn serve_one(listener: UnixListener, room: &Arc<Semaphore>, service: &Arc<Service>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("cannot accept a connection to the control socket for now: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        // A unit whose LoadCredential= names this socket, or a crypttab that does: the end of its connection would be
        // an empty secret.
        if is_named(&stream) {
            match stream.as_fd().try_clone_to_owned() {
                Ok(copy) => request::take_up(copy.into(), None, true, service),
                Err(error) => {
                    warn!("holds a unit that asks on the control socket: it cannot be refused: {error}");
                    std::mem::forget(stream);
                }
            }
            continue;
        }
        // The socket's mode says the same. Whoever runs the service may ask it, too.
        let peer = stream.peer_cred().map(|peer| peer.uid());
        if !peer.as_ref().is_ok_and(|uid| *uid == 0 || *uid == Uid::effective().as_raw()) {
            warn!("refused a connection to the control socket by user {peer:?}");
            continue;
        }
        let control = Control(service.clone());
        spawn_local(async move {
            let _place = place;
            let Ok(stream) = unix::Stream::try_from(stream) else { return };
            if let Err(error) = Server::new(ReadyListener::new(stream), control).run().await {
                debug!("a connection to the control socket ended: {error}");
            }
        });
    }
}

struct Control(Arc<Service>);

/// The service that gives systemd units their secrets from 1Password. Times are seconds since 1970 (UTC), ages are seconds.
/// No value of a secret ever goes through here.
#[service(
    interface = "io.opnix",
    types = [Provider, Health, Cache, Budget, Window, Secret, State, Missed, Records, Rejected, Request, Rule, Renewal, Outcome],
    vendor = "opnix",
    product = "opnix",
    version = env!("CARGO_PKG_VERSION"),
)]
impl Control {
    /// The state of the service: its provider, cache, budget and secrets.
    async fn status(&self) -> Status {
        answers::status(&self.0)
    }

    /// Whether a unit would get a credential, and by which line of the configuration in force.
    async fn explain(&self, unit: String, credential: String) -> Result<Explanation, Error> {
        answers::explanation(&self.0, &unit, &credential)
    }

    /// Asks 1Password for these secrets now, or for all of them if none is named, and answers when it is done. A dry run
    /// keeps nothing of it.
    async fn refresh(&self, names: Vec<String>, dry_run: Option<bool>) -> Result<Refreshed, Error> {
        answers::refresh(&self.0, &names, dry_run.unwrap_or(false)).await
    }

    /// Takes the token that is in the pipe that comes with the call, whose other end is closed; without a pipe there is no token,
    /// or this is why it cannot be read.
    async fn take_token(
        &self,
        trouble: Option<String>,
        #[zlink(fds)] pipe: Vec<OwnedFd>,
    ) -> Result<TokenTaken, Error> {
        // It is judged by the configuration that comes with it, whose reload may come later.
        self.0.look().await;
        answers::take_token(&self.0, trouble, pipe)
    }

    /// How much has changed so far, and again whenever something does.
    #[zlink(more)]
    async fn watch(&self, more: bool) -> impl Stream<Item = Reply<Changes>> + Unpin {
        let mut changes = self.0.changes();
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
}
