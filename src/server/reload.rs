//! Another configuration comes into force: at SIGHUP, and when a look at the files finds other ones. One that is not valid as a
//! whole changes nothing.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::in_force::Configuration;
use super::{Service, look_for};
use crate::config::{self, Config, Faults, Identity};
use crate::moment::Moment;
use crate::place::Place;
use crate::records;
use crate::remedy::Problem;

/// How often the files are looked at, at most.
const PAUSE: Duration = Duration::from_secs(1);
/// How often files that change while they are read are read again at once.
const TRIES: u32 = 3;

/// When the files were looked at. Whoever holds it is the only one to put another configuration in force.
#[derive(Debug, Default)]
pub struct Looked {
    /// What was read last, whatever came of it.
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
        let count = self.faults.iter().len();
        let s = if count == 1 { "" } else { "s" };
        format!("Kept the old configuration: the new one has {count} fault{s}.")
    }
}

/// Reads the configuration as it is at one time.
fn read(files: &[PathBuf]) -> (Identity, Result<Config, Faults>) {
    let mut tries = 0;
    loop {
        let before = Identity::of(files);
        let config = config::load(files);
        tries += 1;
        if Identity::of(files) == before {
            return (before, config);
        }
        if tries == TRIES {
            let mut faults = Faults::default();
            let what = Problem::plain("changes while it is read".to_owned());
            let place = files.first().map(PathBuf::as_path).unwrap_or_else(|| "the configuration".as_ref());
            faults.add(&Place { file: place.into(), position: None }, &what);
            return (before, faults.or(None));
        }
    }
}

impl Service {
    /// What the service comes up with.
    pub(super) fn load_first(&mut self) {
        let (identity, config) = read(&self.sources.files);
        self.looked = Arc::new(Mutex::new(Looked { identity, began: None }));
        let configuration = match config {
            Ok(config) => Configuration::new(config, &self.sources.token, &self.base, None),
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
        self.clone().in_the_background(looked, Self::take).await;
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

    fn take(&self, looked: &mut Looked) {
        let (identity, config) = read(&self.sources.files);
        looked.identity = identity;
        let old = self.configuration();
        let rejected = match (config, &*old) {
            (Ok(config), _) => {
                let new = Configuration::new(config, &self.sources.token, &self.base, Some(&old));
                self.put_in_force(new);
                records::reloaded();
                self.base.changes.send_modify(|count| *count += 1);
                None
            }
            (Err(faults), Configuration::Faulty(_)) => {
                records::faults(&faults);
                self.put_in_force(Configuration::Faulty(faults));
                None
            }
            (Err(faults), Configuration::Valid { .. }) => {
                records::faults(&faults);
                let since = self.rejected().map_or_else(Moment::now, |rejected| rejected.since);
                let rejected = Rejected { faults, since };
                records::kept_old_configuration(&rejected.line());
                Some(rejected)
            }
        };
        *self.rejected.lock().unwrap_or_else(PoisonError::into_inner) = rejected;
    }

    fn put_in_force(&self, configuration: Configuration) {
        look_for(&self.missed, &configuration);
        *self.configuration.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(configuration);
    }

    /// Returns when the files have been looked at since it was called, and other ones, if they are valid, are in force.
    pub(super) async fn look(self: &Arc<Self>) {
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
            if Identity::of(&service.sources.files) != looked.identity {
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
