//! When the mirror looks again: whenever the service says that something changed, and at SIGHUP.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};
use zlink::tokio::unix::connect;

use super::{Mirror, Round, units};
use crate::control::interface::{Changes, Control};

/// Changes within this time are handled together: a pair of keys is to cause one restart.
const DEBOUNCE: Duration = Duration::from_secs(2);
/// How often to look when there is no control socket, and so nobody who tells us of changes.
const UNTOLD: Duration = Duration::from_secs(60);

/// Keeps the files current until SIGTERM. `control` is the service's control socket.
pub async fn watch(mut mirror: Mirror, control: PathBuf) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut seen = None;
    loop {
        select! {
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => {}
            () = changed(&control, &mut seen) => {}
        }
        mirror = spawn_blocking(move || {
            match mirror.round() {
                Ok(round) => {
                    told(&round);
                    for (path, why) in &round.missing {
                        warn!("{} stays as it was: {why}", path.display());
                    }
                    units::act(&round.plan.units);
                }
                Err(faults) => error!("the files stay as they are: the configuration is faulty: {faults}"),
            }
            mirror
        })
        .await?;
    }
}

pub fn told(round: &Round) {
    let written = round.plan.write.len();
    if written > 0 {
        info!("wrote {written} files");
    }
}

/// Returns when something changed since `seen`: the service says so, or it went away, and something may have changed
/// meanwhile.
async fn changed(control: &Path, seen: &mut Option<u64>) {
    let Ok(mut service) = connect(control).await else { return sleep(UNTOLD).await };
    let Ok(changes) = service.watch().await else { return sleep(UNTOLD).await };
    let mut changes = pin!(changes);
    loop {
        let Some(Ok(Ok(Changes { count }))) = changes.next().await else {
            // It will be back in a moment.
            return sleep(DEBOUNCE).await;
        };
        if seen.replace(count) != Some(count) {
            break;
        }
    }
    while let Ok(Some(Ok(Ok(Changes { count })))) = timeout(DEBOUNCE, changes.next()).await {
        *seen = Some(count);
    }
}
