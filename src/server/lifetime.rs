//! The service from its start to its end: what the runtime listens to, reload, watchdog, and what becomes of requests at
//! the end.

use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{UnixAddr, getsockname};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{error, info};

use super::accept::Accepting;
use super::keeper::{Channel, Heard, KEEPER_GONE};
use super::{Service, request};
use crate::counted::counted;
use crate::process::Leftovers;
use crate::records;

/// How long requests may go on after SIGTERM before they are left to the next instance, or refused.
const GRACE: Duration = Duration::from_secs(2);
/// How long the refusals at the end may take. `TimeoutStopSec=` in `systemd/opnix.service` is longer than all together.
const REFUSAL_LIMIT: Duration = Duration::from_secs(5);
/// How often the counts of repeated records are looked at.
const REPEATS: Duration = Duration::from_secs(5);
/// How often memory is given back.
const LEFTOVERS: Duration = Duration::from_secs(10);

/// What systemd and the keeper have for the worker.
pub struct Work {
    /// What units connect to.
    pub listeners: Vec<UnixListener>,
    /// Requests that an earlier instance left in systemd's store, by name.
    pub stored: Vec<(String, OwnedFd)>,
    pub channel: Arc<Channel>,
    /// Where we listen, if systemd did not give us the sockets: logged once we do listen.
    pub path: Option<PathBuf>,
    /// How often systemd expects a heartbeat, if it expects any.
    pub heartbeat: Option<Duration>,
}

/// Serves until SIGTERM or SIGINT. `administrators` serves administrators on the sockets whose addresses are `control`,
/// and does not end. To be run within a [`tokio::task::LocalSet`].
pub async fn run(
    work: Work,
    service: Arc<Service>,
    administrators: impl Future<Output = io::Result<()>> + 'static,
    control: &[UnixAddr],
) -> io::Result<()> {
    let Work { listeners, stored, channel, path, heartbeat } = work;
    let mut keeper_gone = signal(SignalKind::from_raw(KEEPER_GONE as i32))?;
    let commands = channel.watched()?;
    let beat = heartbeat.map_or(Duration::from_secs(3600), |period| period / 3);
    let mut heartbeat = interval(beat);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut restarting = false;

    adopt(stored, control, &service);
    let accepting = Accepting::begin(listeners, &service, beat / 2)?;
    let mut administrators = spawn_local(administrators);
    spawn_local(async {
        loop {
            sleep(REPEATS).await;
            records::tell_repeated(false);
        }
    });
    spawn_local(async {
        let mut leftovers = Leftovers::default();
        loop {
            sleep(LEFTOVERS).await;
            leftovers.give_back();
        }
    });
    spawn_local(service.missed.clone().keep_saved());
    spawn_local(service.given.clone().keep_saved());
    spawn_local(service.clone().keep_looking());
    spawn_local(service.clone().keep_told());
    service.notifier.ready(&service.status());
    if let Some(path) = path {
        info!("listening on {}", path.display());
    }
    // The keeper may have ended before we listened for that.
    let mut orphaned = !channel.keeper_lives();
    while !orphaned {
        select! {
            biased;
            _ = keeper_gone.recv() => orphaned = !channel.keeper_lives(),
            heard = listen(&channel, &commands) => match heard {
                Heard::Stored(message) => service.places.confirm(message),
                Heard::Signal(Signal::SIGHUP) => drop(spawn_local(service.clone().reload())),
                // SIGTERM does not say whether an instance follows; `ExecStop=` in `systemd/opnix.service` does, with this.
                Heard::Signal(Signal::SIGUSR1) => restarting = true,
                Heard::Signal(_) => break,
            },
            // When this thread hangs, or one of those, systemd misses it.
            _ = heartbeat.tick() => if accepting.live() { service.notifier.heartbeat() },
            ended = &mut administrators => return ended?,
        }
    }
    accepting.end().await;
    if orphaned {
        error!(
            "the keeper was killed: what waits is left to systemd's store or refused, and the service begins anew"
        );
        give_up(&service).await;
    } else {
        drain(&service, restarting).await;
    }
    service.missed.save().await;
    service.given.save().await;
    if let Some(store) = service.configuration().store()
        && timeout(REFUSAL_LIMIT, store.save()).await.is_err()
    {
        error!("the sealed cache could not be written in time: the disk does not answer");
    }
    records::tell_repeated(true);
    Ok(())
}

async fn listen(channel: &Channel, commands: &UnixDatagram) -> Heard {
    loop {
        if let Ok(heard) = commands.async_io(Interest::READABLE, || Ok(channel.heard()?)).await {
            return heard;
        }
        // The runtime cannot watch the channel for now.
        sleep(GRACE).await;
    }
}

/// Takes on what the last instance left in the store.
fn adopt(stored: Vec<(String, OwnedFd)>, control: &[UnixAddr], service: &Arc<Service>) {
    if !stored.is_empty() {
        records::found(stored.len());
    }
    for (stored_as, connection) in stored {
        let name = getsockname::<UnixAddr>(connection.as_raw_fd());
        let misdirected = name.is_ok_and(|name| control.contains(&name));
        request::take_up(UnixStream::from(connection), Some(stored_as), misdirected, service);
    }
}

/// Without the keeper nobody speaks to systemd, and when we end, connections that systemd does not have are closed.
/// systemd waits for our end (`KillMode=control-group`) before it starts the next instance.
async fn give_up(service: &Service) {
    service.orphaned.cancel();
    service.unanswered.close();
    if timeout(REFUSAL_LIMIT, service.unanswered.wait()).await.is_err() {
        error!("{} peers did not read their answer", service.waiting());
    }
}

/// Finishes what it can. The rest stays in systemd's store if an instance follows, and is refused if none does: the
/// store goes with the unit, and its connections would end without a byte, which systemd takes for an empty secret.
async fn drain(service: &Service, restarting: bool) {
    service.notifier.stopping(&format!("Finishing {}.", counted(service.waiting(), "request")));
    service.unanswered.close();
    let all_answered = async |limit: Duration| timeout(limit, service.unanswered.wait()).await.is_ok();
    let beats = async {
        loop {
            service.notifier.heartbeat();
            sleep(GRACE / 4).await;
        }
    };
    let finish = async {
        if all_answered(GRACE).await {
            return;
        }
        if service.places.is_backed() && restarting {
            records::left(service.waiting());
            return;
        }
        service.refusing.cancel();
        if !all_answered(REFUSAL_LIMIT).await {
            error!("{} peers did not read their refusal", service.waiting());
        }
    };
    select! {
        () = finish => {}
        () = beats => {}
    }
}
