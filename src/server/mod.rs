//! The service, on two threads: the accept loop, which answers from memory, and the runtime, where everything runs that
//! takes time: waiting requests, fetches, reload and drain. So nothing that takes time holds up an answer from memory.

mod accept;
mod answer;
pub mod keeper;
pub mod places;
mod refusal;
pub(crate) mod request;

use std::future::pending;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{UnixAddr, getsockname};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::runtime::Handle;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

pub use answer::{CREDENTIALS_MAX, size_limit};
use keeper::{Channel, Heard, KEEPER_GONE};
use places::Places;
use refusal::Refusal;

use crate::config::{self, Faults};
use crate::control;
use crate::peer::{Claim, Peer, Trust};
use crate::policy::{Entry, Grant, Policy};
use crate::providers::Provider;
use crate::providers::ledger::Meter;
use crate::records;
use crate::secret::Secret;
use crate::store::disk::Disk;
use crate::store::{Base, Heritage, Rules, Served, Store};
use crate::systemd::notify::Notifier;

/// How long requests may go on after SIGTERM before they are left to the next instance, or refused.
const GRACE: Duration = Duration::from_secs(2);
/// How long the refusals at the end may take. `TimeoutStopSec=` in `systemd/opnix.service` is longer than all together.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How often counts of what repeats are looked at.
const REPEATS: Duration = Duration::from_secs(5);

/// What the configuration is loaded from.
pub struct Sources {
    pub files: Vec<PathBuf>,
    /// The file with the provider's token, if it is not where it is found by itself.
    pub token: Option<PathBuf>,
}

/// What requests need.
pub struct Service {
    trust: Trust,
    notifier: Notifier,
    places: Arc<Places>,
    configuration: Mutex<Arc<Configuration>>,
    base: Base,
    /// Requests that have no answer yet, but for those that get none.
    unanswered: TaskTracker,
    /// Cancelled once everything that still waits is to be refused.
    refusing: CancellationToken,
    /// Cancelled when the keeper is gone: what systemd has is left to the next instance, all else is to be refused.
    orphaned: CancellationToken,
}

/// The configuration in force. A request keeps the one that it began with.
pub(crate) enum Configuration {
    Valid {
        policy: Policy,
        entries: Vec<Arc<Entry>>,
        /// Where the store's values come from.
        provider: config::Provider,
        store: Store,
    },
    /// The service came up with a faulty configuration: it refuses every request and says why, until a reload mends it.
    Faulty(String),
}

impl Configuration {
    /// `old` is the one that this is to take the place of.
    fn load(sources: &Sources, base: &Base, old: Option<&Self>) -> Result<Self, Faults> {
        let config = config::load(&sources.files)?;
        let config::Config { provider, timing, budget, settings, policy, entries, .. } = config;
        let rules = Rules { timing, budget, settings };
        let old = match old {
            Some(Self::Valid { provider: same, store, .. }) if *same == provider => Some(store),
            _ => None,
        };
        let asked =
            old.filter(|store| store.deadline() == timing.deadline).map(|store| store.provider().clone());
        let asked = asked.unwrap_or_else(|| {
            let token = sources.token.as_deref();
            Arc::new(Provider::new(provider.clone(), token, timing.deadline, base.meter.clone()))
        });
        let heritage =
            old.map_or_else(|| Heritage::load(&base.disk, asked.account()), |store| store.hand_over());
        let store = Store::new(asked, rules, heritage, base);
        Ok(Self::Valid { policy, entries, provider, store })
    }

    fn decide(&self, peer: Peer) -> Result<Grant, (Claim, Refusal)> {
        match self {
            Self::Valid { policy, .. } => {
                policy.decide(peer).map_err(|(peer, why)| (peer.into(), Refusal::Policy(why)))
            }
            Self::Faulty(why) => Err((peer.into(), Refusal::Configuration(why.clone()))),
        }
    }

    fn ready(&self, grant: &Grant) -> Option<Served> {
        match self {
            Self::Valid { store, .. } => {
                store.ready(grant).filter(|served| within_limit(grant, &served.value).is_ok())
            }
            Self::Faulty(_) => None,
        }
    }

    async fn get(&self, grant: &Grant) -> Result<Served, Refusal> {
        match self {
            Self::Valid { store, .. } => {
                let served = store.get(grant).await.map_err(Refusal::Provider)?;
                within_limit(grant, &served.value).map(|()| served)
            }
            Self::Faulty(why) => Err(Refusal::Configuration(why.clone())),
        }
    }
}

fn within_limit(grant: &Grant, value: &Secret) -> Result<(), Refusal> {
    let name = &grant.peer().credential;
    let (size, limit) = (value.len(), size_limit(name));
    if size <= limit { Ok(()) } else { Err(Refusal::TooLarge { size, limit, name: name.clone() }) }
}

impl Service {
    /// Comes up even when the configuration is faulty, because not listening would leave units waiting.
    pub fn new(trust: Trust, backed: bool, notifier: Notifier, runtime: Handle, sources: &Sources) -> Self {
        let disk = Arc::new(Disk::find());
        let base = Base { runtime, meter: Meter::new(disk.ledger()), disk, changes: Arc::default() };
        if let Some(why) = base.disk.unsealable() {
            info!("values are kept in memory only: {why}");
        }
        let configuration = Configuration::load(sources, &base, None).unwrap_or_else(|faults| {
            report(&faults);
            Configuration::Faulty(faults.to_string())
        });
        let configuration = Mutex::new(Arc::new(configuration));
        let places = Places::new(notifier.clone(), backed);
        Self {
            trust,
            notifier,
            places,
            configuration,
            base,
            unanswered: TaskTracker::new(),
            refusing: CancellationToken::new(),
            orphaned: CancellationToken::new(),
        }
    }

    pub(crate) fn configuration(&self) -> Arc<Configuration> {
        self.configuration.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a new configuration, and trusts no value until it is confirmed; a faulty one changes nothing.
    fn reload(&self, sources: &Sources) {
        self.notifier.reloading();
        match Configuration::load(sources, &self.base, Some(&self.configuration())) {
            Ok(configuration) => {
                *self.configuration.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(configuration);
                info!(message_id = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c05", "reloaded the configuration");
                self.base.changes.send_modify(|count| *count += 1);
                self.notifier.ready(&self.status());
            }
            Err(faults) => {
                report(&faults);
                let status =
                    format!("Kept the old configuration: the new one has {} faults.", faults.iter().len());
                error!(message_id = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c06", "{status}");
                self.notifier.ready(&status);
            }
        }
    }

    /// Counts what changes: values, and the configuration.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.base.changes.subscribe()
    }

    /// How many requests wait for their value, or are being refused.
    pub(crate) fn waiting(&self) -> usize {
        self.unanswered.len()
    }

    fn status(&self) -> String {
        match &*self.configuration() {
            Configuration::Valid { policy, .. } => format!("Serving {} credentials.", policy.rules().count()),
            Configuration::Faulty(_) => "Refusing every request: the configuration is faulty.".into(),
        }
    }
}

fn report(faults: &Faults) {
    for fault in faults.iter() {
        error!(
            message_id = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c04",
            "{}",
            fault.to_string().replace("\n    ", "; ")
        );
    }
}

/// What the service listens on.
pub struct Listeners {
    /// For units.
    pub credentials: Vec<UnixListener>,
    /// For administrators.
    pub control: Vec<UnixListener>,
}

/// Serves until SIGTERM or SIGINT. `stored` are requests that an earlier instance left in systemd's store, by name. To be run
/// within a [`tokio::task::LocalSet`].
pub async fn run(
    listeners: Listeners,
    channel: Arc<Channel>,
    heartbeat: Option<Duration>,
    service: Arc<Service>,
    stored: Vec<(String, OwnedFd)>,
    sources: &Sources,
) -> io::Result<()> {
    let mut keeper_gone = signal(SignalKind::from_raw(KEEPER_GONE as i32))?;
    let commands = channel.watched()?;
    // Rung here and answered by the accept loop: when either thread hangs, the watchdog bites.
    let mut heartbeat = interval(heartbeat.map_or(Duration::from_secs(3600), |period| period / 3));
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut bell, heard) = UnixStream::pair()?;
    let mut restarting = false;

    adopt(stored, &listeners.control, &service);
    let mut accepting = spawn_blocking({
        let service = service.clone();
        move || accept::accept(&listeners.credentials, heard, &service)
    });
    let mut administrators = spawn_local({
        let service = service.clone();
        async move {
            match listeners.control.is_empty() {
                false => control::server::serve(listeners.control, service).await,
                true => pending().await,
            }
        }
    });
    spawn_local(async {
        loop {
            sleep(REPEATS).await;
            records::tell_repeated(false);
        }
    });
    service.notifier.ready(&service.status());
    // It may have been gone before we listened.
    let mut orphaned = !channel.keeper_lives();
    while !orphaned {
        select! {
            biased;
            _ = keeper_gone.recv() => orphaned = !channel.keeper_lives(),
            heard = listen(&channel, &commands) => match heard {
                Heard::Stored(message) => service.places.confirm(message),
                Heard::Signal(Signal::SIGHUP) => service.reload(sources),
                // SIGTERM does not say whether an instance follows; `ExecStop=` in `systemd/opnix.service` does, with this.
                Heard::Signal(Signal::SIGUSR1) => restarting = true,
                Heard::Signal(_) => break,
            },
            _ = heartbeat.tick() => bell.write_all(&[0])?,
            ended = &mut accepting => return ended?,
            ended = &mut administrators => return ended?,
        }
    }
    drop(bell);
    accepting.await??;
    if orphaned {
        error!(
            "the keeper was killed: what waits is left to systemd's store or refused, and the service begins anew"
        );
        give_up(&service).await;
    } else {
        drain(&service, restarting).await;
    }
    if let Configuration::Valid { store, .. } = &*service.configuration() {
        store.save().await;
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
fn adopt(stored: Vec<(String, OwnedFd)>, control: &[UnixListener], service: &Arc<Service>) {
    let name = |socket: RawFd| getsockname::<UnixAddr>(socket).ok();
    let control: Vec<_> = control.iter().map(|socket| name(socket.as_raw_fd())).collect();
    if !stored.is_empty() {
        info!(
            message_id = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c07",
            "found {} waiting requests in the store",
            stored.len()
        );
    }
    for (stored_as, connection) in stored {
        let misdirected = control.contains(&name(connection.as_raw_fd()));
        request::take_up(UnixStream::from(connection), Some(stored_as), misdirected, service);
    }
}

/// Without the keeper nobody speaks to systemd, and our end closes what systemd does not have. systemd waits for it
/// (`KillMode=control-group`) before it starts the next instance.
async fn give_up(service: &Service) {
    service.orphaned.cancel();
    service.unanswered.close();
    if timeout(LAST_WORDS, service.unanswered.wait()).await.is_err() {
        error!("{} peers did not read their answer", service.waiting());
    }
}

/// Finishes what it can. The rest stays in systemd's store if an instance follows, and is refused if none does: the
/// store goes with the unit, and its connections would end without a byte, which systemd takes for an empty secret.
async fn drain(service: &Service, restarting: bool) {
    service.notifier.stopping(&format!("Finishing {} requests.", service.waiting()));
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
            info!(
                message_id = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c08",
                "left {} requests to the next instance",
                service.waiting()
            );
            return;
        }
        service.refusing.cancel();
        if !all_answered(LAST_WORDS).await {
            error!("{} peers did not read their refusal", service.waiting());
        }
    };
    select! {
        () = finish => {}
        () = beats => {}
    }
}
