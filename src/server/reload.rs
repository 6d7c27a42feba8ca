//! Another configuration comes into force: at SIGHUP, and when a look at the files finds other ones. One that is not valid as a
//! whole changes nothing.

use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

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

/// What became of the last try.
#[derive(Debug, Default)]
pub struct Last {
    /// What was read.
    identity: Identity,
    /// Why the configuration in force is an older one.
    rejected: Option<Rejected>,
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
    pub(super) fn load_first(&self) {
        let mut last = self.last();
        let (identity, config) = read(&self.sources.files);
        last.identity = identity;
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
    pub fn reload(&self) {
        self.notifier.reloading();
        self.take(&mut self.last());
        self.notifier.ready(&self.status());
    }

    /// Why the configuration in force is an older one than that of the files, as far as was looked.
    pub fn rejected(&self) -> Option<Rejected> {
        self.last().rejected.clone()
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, last: &mut Last) {
        let (identity, config) = read(&self.sources.files);
        last.identity = identity;
        match config {
            Ok(config) => {
                let old = self.configuration();
                let new = Configuration::new(config, &self.sources.token, &self.base, Some(&old));
                last.rejected = None;
                self.put_in_force(new);
                records::reloaded();
                self.base.changes.send_modify(|count| *count += 1);
            }
            Err(faults) => {
                records::faults(&faults);
                if matches!(*self.configuration(), Configuration::Faulty(_)) {
                    self.put_in_force(Configuration::Faulty(faults));
                    return;
                }
                let since = last.rejected.as_ref().map_or_else(Moment::now, |rejected| rejected.since);
                let rejected = Rejected { faults, since };
                records::kept_old_configuration(&rejected.line());
                last.rejected = Some(rejected);
            }
        }
    }

    fn put_in_force(&self, configuration: Configuration) {
        look_for(&self.missed, &configuration);
        *self.configuration.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(configuration);
    }

    /// Returns when the files have been looked at since it was called, and other ones, if they are valid, are in force.
    pub(super) async fn look(self: &Arc<Self>) {
        let called = Moment::now();
        let mut began = self.looked.lock().await;
        if began.is_some_and(|began| began > called) {
            return;
        }
        if let Some(began) = *began {
            sleep((began + PAUSE).since(Moment::now())).await;
        }
        *began = Some(Moment::now());
        let service = self.clone();
        let look = move || {
            let mut last = service.last();
            if Identity::of(&service.sources.files) != last.identity {
                service.take(&mut last);
                drop(last);
                service.notifier.status(&service.status());
            }
        };
        // If it panics, the process ends.
        let _ = spawn_blocking(look).await;
    }

    /// While the files are faulty, looks whether they were mended.
    pub(super) async fn keep_looking(self: Arc<Self>) {
        loop {
            sleep(PAUSE).await;
            let is_faulty = || matches!(*self.configuration(), Configuration::Faulty(_));
            if self.rejected().is_some() || is_faulty() {
                self.look().await;
            }
        }
    }
}
