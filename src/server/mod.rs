//! The service, on two threads: the accept loop, which answers from memory, and the runtime, where everything runs that
//! takes time: waiting requests, fetches, reload and drain. So nothing that takes time holds up an answer from memory.

mod accept;
mod answer;
pub mod park;
mod refusal;
mod request;

use std::future::pending;
use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{error, info, warn};

pub use answer::{CREDENTIALS_MAX, size_limit};
use park::Park;
use refusal::Refusal;
use request::Request;

use crate::audit::Permit;
use crate::config::{self, Faults};
use crate::control;
use crate::peer::{Claim, Peer, Trust};
use crate::policy::{Entry, Grant, Policy};
use crate::providers::Provider;
use crate::providers::budget::Meter;
use crate::secret::Secret;
use crate::store::disk::Disk;
use crate::store::{Base, Heritage, Rules, Served, Store};
use crate::systemd::activation::Passed;
use crate::systemd::notify;

/// How long requests may go on after SIGTERM before they are left to the next instance, or refused.
const GRACE: Duration = Duration::from_secs(2);
/// How long the refusals at the end may take. `TimeoutStopSec=` in `systemd/opnix.service` is longer than all together.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// What the configuration is loaded from.
pub struct Sources {
    pub files: Vec<PathBuf>,
    /// The file with the provider's token, if it is not where it is found by itself.
    pub token: Option<PathBuf>,
}

/// What requests need.
pub struct Service {
    trust: Trust,
    park: Arc<Park>,
    configuration: Mutex<Arc<Configuration>>,
    base: Base,
    /// True once everything that still waits is to be refused.
    refusing: watch::Sender<bool>,
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

    fn ready(&self, permit: &Permit) -> Option<Served> {
        match self {
            Self::Valid { store, .. } => {
                store.ready(permit).filter(|served| within_limit(permit, &served.value).is_ok())
            }
            Self::Faulty(_) => None,
        }
    }

    async fn get(&self, permit: &Permit) -> Result<Served, Refusal> {
        match self {
            Self::Valid { store, .. } => {
                let served = store.get(permit).await.map_err(Refusal::Provider)?;
                within_limit(permit, &served.value).map(|()| served)
            }
            Self::Faulty(why) => Err(Refusal::Configuration(why.clone())),
        }
    }
}

fn within_limit(permit: &Permit, value: &Secret) -> Result<(), Refusal> {
    let name = permit.claim().credential;
    let (size, limit) = (value.len(), size_limit(&name));
    if size <= limit { Ok(()) } else { Err(Refusal::TooLarge { size, limit, name }) }
}

impl Service {
    /// Comes up even when the configuration is faulty, because not listening would leave units waiting.
    pub fn new(trust: Trust, backed: bool, runtime: Handle, sources: &Sources) -> Self {
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
        Self { trust, park: Park::new(backed), configuration, base, refusing: watch::Sender::new(false) }
    }

    pub(crate) fn configuration(&self) -> Arc<Configuration> {
        self.configuration.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a new configuration, and trusts no value until it is confirmed; a faulty one changes nothing.
    fn reload(&self, sources: &Sources) {
        notify::reloading();
        match Configuration::load(sources, &self.base, Some(&self.configuration())) {
            Ok(configuration) => {
                *self.configuration.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(configuration);
                info!(message_id = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c05", "reloaded the configuration");
                self.base.changes.send_modify(|count| *count += 1);
                notify::ready(&self.status());
            }
            Err(faults) => {
                report(&faults);
                let status =
                    format!("Kept the old configuration: the new one has {} faults.", faults.iter().len());
                error!(message_id = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c06", "{status}");
                notify::ready(&status);
            }
        }
    }

    /// Counts what changes: values, and the configuration.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.base.changes.subscribe()
    }

    /// How many requests wait for their value, or are being refused.
    pub(crate) fn waiting(&self) -> usize {
        self.park.taken()
    }

    fn status(&self) -> String {
        match &*self.configuration() {
            Configuration::Valid { policy, .. } => format!("Serving {} credentials.", policy.rules().count()),
            Configuration::Faulty(_) => "Refusing every request: the configuration is faulty.".into(),
        }
    }

    async fn refusing(&self) {
        // The sender lives as long as `self`.
        let _ = self.refusing.subscribe().wait_for(|refusing| *refusing).await;
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

/// Serves until SIGTERM or SIGINT. `stored` is what systemd's store holds from the last instance. To be run within a
/// [`tokio::task::LocalSet`].
pub async fn run(
    listener: UnixListener,
    control: Option<UnixListener>,
    service: Arc<Service>,
    stored: Vec<Passed>,
    sources: &Sources,
) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // SIGTERM does not say whether an instance follows; `ExecStop=` in `systemd/opnix.service` does, with this signal.
    let mut restart = signal(SignalKind::user_defined1())?;
    let mut restarting = false;
    // Rung here and answered by the accept loop: when either thread hangs, the watchdog bites.
    let mut heartbeat =
        interval(sd_notify::watchdog_enabled().map_or(Duration::from_secs(3600), |period| period / 3));
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut bell, heard) = UnixStream::pair()?;

    adopt(stored, &service);
    let mut accepting = spawn_blocking({
        let service = service.clone();
        move || accept::accept(&listener, heard, &service)
    });
    let mut administrators = spawn_local({
        let service = service.clone();
        async move {
            match control {
                Some(control) => control::server::serve(control, service).await,
                None => pending().await,
            }
        }
    });
    notify::ready(&service.status());
    loop {
        select! {
            biased;
            _ = restart.recv() => restarting = true,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => service.reload(sources),
            _ = heartbeat.tick() => bell.write_all(&[0])?,
            ended = &mut accepting => return ended?,
            ended = &mut administrators => return ended?,
        }
    }
    drop(bell);
    accepting.await??;
    drain(&service, restarting).await;
    if let Configuration::Valid { store, .. } = &*service.configuration() {
        store.save().await;
    }
    Ok(())
}

/// Takes on what the last instance left in the store.
fn adopt(stored: Vec<Passed>, service: &Arc<Service>) {
    let mut requests = Vec::new();
    for Passed { name, socket } in stored {
        match socket {
            Some(socket) if name.starts_with(park::PREFIX) => requests.push((name, UnixStream::from(socket))),
            _ => {
                warn!("dropped a descriptor of unknown kind, {name:?}, from systemd's store");
                notify::unstore(&name);
            }
        }
    }
    if !requests.is_empty() {
        info!(
            message_id = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c07",
            "found {} waiting requests in the store",
            requests.len()
        );
    }
    for (name, stream) in requests {
        let place = service.park.found(name);
        request::handle(Request { address: stream.peer_addr(), stream, place: Some(place) }, service);
    }
}

/// Finishes what it can. The rest stays in systemd's store if an instance follows, and is refused if none does: the
/// store goes with the unit, and its connections would end without a byte, which systemd takes for an empty secret.
async fn drain(service: &Service, restarting: bool) {
    let waiting = || service.waiting();
    notify::stopping(&format!("Finishing {} requests.", waiting()));
    let emptied_within = async |limit: Duration| {
        let end = Instant::now() + limit;
        while waiting() > 0 && Instant::now() < end {
            notify::watchdog();
            sleep(Duration::from_millis(20)).await;
        }
        waiting() == 0
    };
    if emptied_within(GRACE).await {
        return;
    }
    if service.park.is_backed() && restarting {
        info!(
            message_id = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c08",
            "left {} requests to the next instance",
            waiting()
        );
        return;
    }
    service.refusing.send_replace(true);
    if !emptied_within(LAST_WORDS).await {
        error!("{} peers did not read their refusal", waiting());
    }
}
