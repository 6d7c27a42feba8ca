//! Tells units in their own journals what the service does not give them, and that it does not start: on a thread of its own, because
//! that is to be there when somebody looks, whatever the mirror does meanwhile.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::select;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, sleep_until, timeout};
use tracing::warn;
use zlink::tokio::unix::connect;

use super::watch::{AGAIN, SERVICE, service_is_up};
use crate::control::interface::Control;
use crate::control::teller::{Heard, Teller};
use crate::files::StateDirectory;
use crate::process;
use crate::records;
use crate::scope;
use crate::systemd::manager::{Manager, Unit};

/// What was heard, through restarts of the mirror.
const FILE: &str = "heard.json";
/// How long the service has to say its first word, before it is looked whether it runs at all.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it may fail to start before that is told.
const WHILE: Duration = Duration::from_secs(2);
/// How often to look for more units that wait for it; and once that has gone on for some time.
const LOOK: Duration = Duration::from_secs(2);
const LOOK_LATER: Duration = Duration::from_secs(15);
const LATER: Duration = Duration::from_secs(60);
/// What has credentials.
const KINDS: [&str; 2] = ["*.service", "*.mount"];

/// A unit, and when it was started.
type Start = (String, i128);

struct Hearing {
    /// The service's control socket, and the one that units have their credentials from.
    control: PathBuf,
    socket: PathBuf,
    memory: Option<StateDirectory>,
    teller: Teller,
    is_saved: bool,
    /// Since when the service fails to start, and when units were last looked for.
    down: Option<(Instant, Option<Instant>)>,
    /// The units that were told so.
    told: BTreeSet<Start>,
}

/// `memory` is the mirror's runtime directory.
pub fn begin(control: PathBuf, socket: PathBuf, memory: Option<StateDirectory>) -> io::Result<()> {
    let heard = memory.as_ref().map(read).unwrap_or_default();
    let teller = Teller::new(heard);
    let (down, told) = (None, BTreeSet::new());
    let hearing = Hearing { control, socket, memory, teller, is_saved: true, down, told };
    let runtime = process::runtime()?;
    thread::Builder::new().name("unserved".into()).spawn(move || runtime.block_on(hearing.run()))?;
    Ok(())
}

fn read(memory: &StateDirectory) -> Heard {
    // What is damaged was told, or is told once more.
    let text = memory.read(FILE).ok().flatten();
    text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

impl Hearing {
    async fn run(mut self) {
        loop {
            let begun = Instant::now();
            if !service_is_up(&self.control).await || self.hear().await.is_err() {
                self.look_at_the_service(begun).await;
            }
            self.catch_up().await;
            sleep(AGAIN / 2).await;
        }
    }

    /// Fails if the service cannot be asked; returns when it goes away.
    async fn hear(&mut self) -> zlink::Result<()> {
        // A user's service tells that user's units itself.
        let tells = scope::has_systems_manager();
        let late = |_| zlink::Error::from(io::Error::from(io::ErrorKind::TimedOut));
        let mut service = timeout(PATIENCE, connect(&self.control)).await.map_err(late)??;
        let mut answers = pin!(service.unserved(self.teller.heard().number).await?);
        let mut next = timeout(PATIENCE, answers.next()).await.map_err(late)?;
        if !matches!(next, Some(Ok(Ok(_)))) {
            // Its socket was closed, or it is an older one.
            return Err(zlink::Error::UnexpectedEof);
        }
        (self.down, self.told) = (None, BTreeSet::new());
        while let Some(Ok(Ok(unserved))) = next {
            if tells && self.teller.tell(unserved) {
                self.save();
            }
            next = loop {
                let put_off = self.teller.next();
                select! {
                    next = answers.next() => break next,
                    () = async { sleep_until(put_off.unwrap_or_else(Instant::now).into()).await }, if put_off.is_some() => {
                        self.teller.catch_up();
                    }
                }
            };
        }
        Ok(())
    }

    /// What was put off is told although the service went away.
    async fn catch_up(&mut self) {
        if let Some(next) = self.teller.next() {
            sleep_until(next.into()).await;
            self.teller.catch_up();
        }
    }

    fn save(&mut self) {
        let Some(memory) = &self.memory else { return };
        let text = serde_json::to_vec(self.teller.heard()).map_err(io::Error::from);
        let saved = text.and_then(|text| memory.replace(FILE, &text));
        if let Err(error) = &saved
            && std::mem::take(&mut self.is_saved)
        {
            warn!(
                "what units were told cannot be remembered, and may be told again after a restart: {error}"
            );
        }
        self.is_saved = saved.is_ok();
    }

    /// The service says nothing. If that is because it does not start, units that wait for it are told so.
    async fn look_at_the_service(&mut self, begun: Instant) {
        let socket = self.socket.clone();
        if self.control != scope::control() && scope::has_systems_manager() {
            // Nobody's unit, or a test's.
            return;
        }
        let (since, looked) = self.down.unwrap_or((begun, None));
        let pause = if since.elapsed() < LATER { LOOK } else { LOOK_LATER };
        if looked.is_some_and(|looked| looked.elapsed() < pause) {
            return;
        }
        self.down = Some((since, Some(Instant::now())));
        if since.elapsed() < WHILE {
            return;
        }
        let known = self.told.clone();
        match spawn_blocking(move || tell_those_that_wait(&socket, known)).await {
            Ok(Ok(told)) => self.told = told,
            Ok(Err(error)) => warn!("which units wait for {SERVICE} is not known: {error}"),
            Err(_) => {}
        }
    }
}

/// If the service does not start, tells units that wait for it. `known` were told already; returns all that are told now.
fn tell_those_that_wait(socket: &Path, known: BTreeSet<Start>) -> io::Result<BTreeSet<Start>> {
    let mut manager = Manager::connect()?;
    let service = manager.unit(SERVICE)?;
    // In the moment in which it is started once more, it has not failed.
    let Some(how) = service.start_failure() else { return Ok(known) };
    let mut all = BTreeSet::new();
    for unit in who_asks(&mut manager, socket)? {
        // What was started while the service ran has what it asked for. (What it has cannot be seen from here.)
        if unit.state() != "activating" && unit.started_at() <= service.ran_until() {
            continue;
        }
        let start = (unit.id.clone(), unit.started_at());
        if !known.contains(&start) {
            records::unit_waits_for_service(&unit.id, SERVICE, &how);
        }
        all.insert(start);
    }
    Ok(all)
}

/// The units that are starting, or seem to have started, and ask this socket for a credential; those that wait for it are among them.
pub fn who_asks(manager: &mut Manager, socket: &Path) -> io::Result<Vec<Unit>> {
    // systemd 252 has some for active that wait.
    let names = manager.list(&["activating", "active", "reloading", "refreshing"], &KINDS)?;
    let units = names.iter().filter_map(|name| manager.unit(name).ok());
    let asks = |unit: &Unit| unit.loads().iter().any(|load| Path::new(&load.source) == socket);
    Ok(units.filter(|unit| !unit.waits_for_restart() && asks(unit)).collect())
}
