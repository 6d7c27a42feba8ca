//! Another configuration comes into force: at SIGHUP, and when a look at the files finds other ones. One that is not valid as a
//! whole changes nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::in_force::{Configuration, Sources};
use super::{Service, look_for};
use crate::config::{self, Config, Faults, Identity};
use crate::counted::counted;
use crate::files::StateDirectory;
use crate::moment::Moment;
use crate::place::Place;
use crate::records;
use crate::remedy::Problem;
use crate::store::Store;
use crate::systemd::reload;

/// How often the files are looked at, at most. What has changed within this time may be only a part of a change.
const PAUSE: Duration = Duration::from_secs(1);
/// How often files that change all the time are looked at before it is given up.
const TRIES: u32 = 3;
/// How long a refusal waits for the file system.
const PATIENCE: Duration = Duration::from_secs(10);

/// When the files were looked at. Whoever holds it is the only one to put another configuration in force.
#[derive(Debug, Default)]
pub struct Looked {
    /// What is in force was read from; nothing, if what was read last was faulty.
    identity: Identity,
    began: Option<Moment>,
}

/// A configuration that did not come into force.
#[derive(Debug, Clone)]
pub struct Rejected {
    pub faults: Faults,
    /// Since when the files are not those in force.
    pub since: Moment,
}

impl Rejected {
    pub fn line(&self) -> String {
        let count = counted(self.faults.iter().len(), "fault");
        format!("Kept the old configuration: the new one has {count}.")
    }
}

/// A configuration as it was at one time, valid or not.
pub struct Read {
    identity: Identity,
    pub config: Result<Config, Faults>,
}

impl Sources {
    pub fn read(&self) -> Read {
        let files = &self.files;
        for _ in 0..TRIES {
            let before = Identity::of(files);
            let config = config::load(files);
            if Identity::of(files) == before {
                return Read { identity: before, config };
            }
        }
        let mut faults = Faults::default();
        let what = Problem::plain("changes while it is read".to_owned());
        let place = files.first().map_or_else(|| Path::new("the configuration"), PathBuf::as_path);
        faults.add(&Place { file: place.into(), position: None }, &what);
        Read { identity: Identity::default(), config: faults.or(None) }
    }
}

/// Whether the files are other ones than those that were read, and all that is to change in them has changed.
fn differs(files: &[PathBuf], read: &Identity) -> bool {
    let mut now = Identity::of(files);
    if now == *read {
        return false;
    }
    for _ in 0..TRIES {
        thread::sleep(PAUSE);
        let before = std::mem::replace(&mut now, Identity::of(files));
        if now == before {
            return now != *read;
        }
    }
    false
}

impl Service {
    /// What the service comes up with.
    pub(super) fn begin_with(&mut self, Read { identity, config }: Read) {
        let configuration = match config {
            Ok(config) => {
                self.looked = Arc::new(Mutex::new(Looked { identity, began: None }));
                Configuration::new(config, &self.sources.token, &self.base, None)
            }
            Err(faults) => {
                records::faults(&faults);
                Configuration::Faulty(faults)
            }
        };
        self.put_in_force(configuration);
    }

    /// Takes a new configuration, and trusts no value until it is confirmed; a faulty configuration changes nothing.
    pub async fn reload(self: Arc<Self>) {
        self.notifier.reloading();
        let looked = self.looked.clone().lock_owned().await;
        self.clone().in_the_background(looked, Self::take_and_tell).await;
        self.notifier.ready(&self.status());
    }

    /// Why the configuration in force is an older one than that of the files, as far as was looked.
    pub fn rejected(&self) -> Option<Rejected> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whatever the file system does, nothing else waits for it.
    async fn in_the_background(
        self: Arc<Self>,
        mut looked: OwnedMutexGuard<Looked>,
        act: impl FnOnce(&Self, &mut Looked) + Send + 'static,
    ) {
        // If it panics, the process ends.
        let _ = spawn_blocking(move || act(&self, &mut looked)).await;
    }

    /// For whom `opnix serve --reload` waits.
    fn take_and_tell(&self, looked: &mut Looked) {
        let runtime = StateDirectory::of_runtime();
        let wanted = runtime.as_ref().map(reload::wanted);
        self.take(looked);
        if let (Some(runtime), Some(wanted)) = (runtime, wanted) {
            let is_taken = self.rejected().is_none() && self.configuration().store().is_some();
            reload::tell_done(&runtime, wanted, is_taken);
        }
    }

    fn take(&self, looked: &mut Looked) {
        let Read { identity, config } = self.sources.read();
        // What is faulty is read anew at each look: it need not be the files' fault.
        looked.identity = if config.is_ok() { identity } else { Identity::default() };
        let old = self.configuration();
        let rejected = match (config, &*old) {
            (Ok(config), _) => {
                let new = Configuration::new(config, &self.sources.token, &self.base, Some(&old));
                self.put_in_force(new);
                old.store().into_iter().for_each(Store::forget_all_but_fetched);
                records::reloaded();
                self.base.changes.send_modify(|count| *count += 1);
                None
            }
            (Err(faults), Configuration::Faulty(before)) => {
                if faults != *before {
                    records::faults(&faults);
                    self.put_in_force(Configuration::Faulty(faults));
                }
                None
            }
            (Err(faults), Configuration::Valid { .. }) => {
                let before = self.rejected();
                let since = before.as_ref().map_or_else(Moment::now, |before| before.since);
                let is_new = before.is_none_or(|before| before.faults != faults);
                let rejected = Rejected { faults, since };
                if is_new {
                    records::faults(&rejected.faults);
                    records::kept_old_configuration(&rejected.line());
                }
                Some(rejected)
            }
        };
        *self.rejected.lock().unwrap_or_else(PoisonError::into_inner) = rejected;
    }

    fn put_in_force(&self, configuration: Configuration) {
        let configuration = Arc::new(configuration);
        *self.configuration.lock().unwrap_or_else(PoisonError::into_inner) = configuration.clone();
        *self.configured_at.lock().unwrap_or_else(PoisonError::into_inner) = Moment::now();
        // Only now: who is refused meanwhile is looked for under the new one.
        look_for(&self.missed, &configuration);
        if configuration.store().is_some() {
            self.refusals.judge(|claim| configuration.entry_for(claim).is_some());
        }
    }

    /// Returns when the files have been looked at since it was called, and other ones, if they are valid, are in force. A file
    /// system that does not answer is not waited for.
    pub async fn look(self: &Arc<Self>) {
        if timeout(PATIENCE, self.look_in_turn()).await.is_err() {
            records::cannot_look(PATIENCE);
        }
    }

    async fn look_in_turn(self: &Arc<Self>) {
        let called = Moment::now();
        let mut looked = self.looked.clone().lock_owned().await;
        if looked.began.is_some_and(|began| began > called) {
            return;
        }
        if let Some(began) = looked.began {
            sleep((began + PAUSE).since(Moment::now())).await;
        }
        looked.began = Some(Moment::now());
        let look = |service: &Self, looked: &mut Looked| {
            if differs(&service.sources.files, &looked.identity) {
                service.take(looked);
                service.notifier.status(&service.status());
            }
        };
        self.clone().in_the_background(looked, look).await;
    }

    /// While the files are faulty, looks whether they were mended.
    pub(super) async fn keep_looking(self: Arc<Self>) {
        loop {
            sleep(PAUSE).await;
            if self.rejected().is_some() || self.configuration().store().is_none() {
                self.look().await;
            }
        }
    }
}
