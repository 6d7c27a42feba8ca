//! When the mirror looks again: whenever the service says that something changed, at SIGHUP, when a start of a unit ends,
//! and from time to time.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, sleep_until, timeout, timeout_at};
use tracing::{error, warn};
use zlink::tokio::unix::connect;

use super::{Mirror, Missed, Occasion};
use crate::control::interface::Control;
use crate::policy::MIRROR;
use crate::scope;
use crate::systemd::manager::{Ended, Manager};
use crate::systemd::notify::Notifier;

/// Changes within this time are handled together: a pair of keys is to cause one restart.
const DEBOUNCE: Duration = Duration::from_secs(2);
/// No longer than this, even if there is a change each moment.
const TOO_LONG: Duration = Duration::from_secs(10);
/// How soon to look for the service again.
pub(super) const AGAIN: Duration = Duration::from_secs(2);
/// Ends of jobs within this time are handled together.
const TOGETHER: Duration = Duration::from_millis(300);
/// How often to look when there is no control socket, and so nobody who tells us of changes.
const UNTOLD: Duration = Duration::from_secs(60);
/// The service's unit.
pub(super) const SERVICE: &str = "opnix.service";
/// How long the service has to say what units missed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often to look whether the files are there, and at units that were left behind.
const LOOK: Duration = Duration::from_secs(10);

/// The ends of jobs, for as long as somebody hears them.
pub struct Jobs(UnboundedReceiver<Ended>);

impl Jobs {
    /// To be called before anything waits for the mirror, so that none is missed.
    pub fn listen() -> io::Result<Self> {
        let (say, hear) = unbounded_channel();
        let first = Manager::connect().ok();
        thread::Builder::new().name("jobs".into()).spawn(move || tell_ended(first, &say))?;
        Ok(Self(hear))
    }
}

fn tell_ended(mut first: Option<Manager>, say: &UnboundedSender<Ended>) {
    let mut told = false;
    while !say.is_closed() {
        let result = first.take().map_or_else(Manager::connect, Ok).and_then(|mut manager| {
            told = false;
            loop {
                let ended = manager.next_ended()?;
                if say.send(ended).is_err() {
                    return Ok(());
                }
            }
        });
        // The service manager closes its connections when it executes itself anew.
        if let Err(error) = result
            && !std::mem::replace(&mut told, true)
        {
            warn!("the service manager does not tell of starts that failed for now: {error}");
        }
        thread::sleep(AGAIN);
    }
}

/// Keeps the files current until SIGTERM, and starts what was left behind. `control` is the service's control socket.
pub async fn watch(mut mirror: Mirror, control: PathBuf, mut jobs: Jobs) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (say, mut changes) = unbounded_channel();
    // Whoever sends a signal has waited for this.
    Notifier::direct().ready(&mirror.report());
    let mut telling = pin!(tell_changes(control.clone(), say));
    let (mut next_look, mut is_up) = (Instant::now(), true);
    loop {
        let next_try = mirror.next_try().filter(|_| is_up);
        let wake = next_try.map_or(next_look, |next| next.min(next_look));
        let occasion = select! {
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => Some(Occasion::Reload),
            () = &mut telling => return Ok(()),
            _ = changes.recv() => Some(Occasion::Change),
            Some(ended) = jobs.0.recv() => {
                let mut all = vec![ended];
                // Many units that fail together are looked at together.
                let end = tokio::time::Instant::now() + TOGETHER;
                while let Ok(Some(ended)) = timeout_at(end, jobs.0.recv()).await {
                    all.push(ended);
                }
                all.retain(|ended| mirror.is_concerned(ended));
                if all.is_empty() {
                    continue;
                }
                // The unit that one failed with may have been refused in this moment.
                let missed = missed(&control).await;
                mirror = spawn_blocking(move || {
                    mirror.ended(&all, missed);
                    mirror
                })
                .await?;
                None
            }
            () = sleep_until(wake.into()) => None,
        };
        is_up = service_is_up(&control).await;
        // What changed with its end is told when it is back.
        let occasion = occasion.filter(|occasion| is_up || *occasion == Occasion::Reload);
        mirror = spawn_blocking(move || {
            let wanted = mirror.wanted_reload();
            match occasion.map(|occasion| mirror.round(occasion)) {
                Some(Err(faults)) => {
                    error!("the files stay as they are: the configuration is faulty: {faults}")
                }
                Some(Ok(())) => {}
                None => {
                    mirror.catch_up();
                    if is_up {
                        mirror.mend();
                    }
                }
            }
            Notifier::direct().status(&mirror.report());
            if occasion == Some(Occasion::Reload) {
                mirror.tell_reloaded(wanted);
            }
            mirror
        })
        .await?;
        next_look = Instant::now() + LOOK;
        let missed = missed(&control).await;
        mirror = spawn_blocking(move || {
            mirror.recover(missed);
            // Which units wait may be other ones now.
            mirror.report();
            mirror
        })
        .await?;
    }
}

/// Whether the service is up, or comes up by itself. One that an administrator stopped would be started by a connection to its
/// sockets.
pub(super) async fn service_is_up(control: &Path) -> bool {
    if control != scope::control() {
        return true;
    }
    let state = spawn_blocking(|| Manager::connect()?.unit(SERVICE).map(|unit| unit.state().to_owned()));
    // Without a service manager nobody stopped it either.
    !matches!(state.await, Ok(Ok(state)) if ["inactive", "deactivating"].contains(&state.as_str()))
}

/// What units were refused; `None` if the service does not say.
async fn missed(control: &Path) -> Option<Missed> {
    if !service_is_up(control).await {
        return None;
    }
    let ask = async {
        let mut service = connect(control).await?;
        // It is all in the first of its answers.
        let mut answers = pin!(service.status().await?);
        Ok::<_, zlink::Error>(answers.next().await)
    };
    let status = timeout(PATIENCE, ask).await.ok()?.ok()??.ok()?.ok()?;
    let mut all = Missed::default();
    for missed in status.missed {
        if missed.unit == MIRROR {
            all.reasons.insert(missed.credential, missed.reason);
        }
        *all.units.entry(missed.unit).or_insert(true) &= missed.ready;
    }
    Some(all)
}

/// Says whenever something changed: the service says so, or it went away, and something may have changed meanwhile.
async fn tell_changes(control: PathBuf, say: UnboundedSender<()>) {
    let mut told = Instant::now();
    loop {
        let is_down = !service_is_up(&control).await;
        if is_down || hear_changes(&control, &say).await.is_ok() {
            told = Instant::now();
        } else if told.elapsed() >= UNTOLD {
            told = Instant::now();
            if say.send(()).is_err() {
                return;
            }
        }
        sleep(AGAIN).await;
    }
}

/// Fails if the service cannot be asked; returns when it goes away. Its first word is that it is there, which is a change.
async fn hear_changes(control: &Path, say: &UnboundedSender<()>) -> zlink::Result<()> {
    let mut service = connect(control).await?;
    let mut changes = pin!(service.watch().await?);
    // One that has more to do than it can may not answer.
    let late = |_| zlink::Error::from(io::Error::from(io::ErrorKind::TimedOut));
    let mut next = timeout(PATIENCE, changes.next()).await.map_err(late)?;
    while let Some(Ok(Ok(_))) = next {
        let end = Instant::now() + TOO_LONG;
        let pause = || DEBOUNCE.min(end.saturating_duration_since(Instant::now()));
        while let Ok(more) = timeout(pause(), changes.next()).await {
            if !matches!(more, Some(Ok(Ok(_)))) {
                break;
            }
        }
        let _ = say.send(());
        next = changes.next().await;
    }
    Ok(())
}
