//! What `systemctl status` says of the service.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::select;
use tokio::time::sleep;

use super::{Configuration, Service};
use crate::counted::counted;
use crate::moment::Moment;
use crate::store::{Progress, Store};

/// How often systemd is told how the service is, if that is another thing by then.
const TOLD: Duration = Duration::from_secs(5);
/// How often it is told how far a fetch is, and not before it has taken so long.
const FETCHING: Duration = Duration::from_secs(1);
/// To find out how the service is may take one part in so many of the time.
const SHARE: u32 = 1000;

impl Service {
    /// Keeps true what `systemctl status` says.
    pub(super) async fn keep_told(self: Arc<Self>) {
        let mut told = String::new();
        let mut pause = TOLD;
        loop {
            select! {
                () = sleep(pause) => {}
                () = self.base.begun.notified() => sleep(FETCHING).await,
            }
            let fetching = self.fetching();
            let begun = Instant::now();
            pause = if fetching.is_some() { FETCHING } else { TOLD };
            let status = fetching.unwrap_or_else(|| self.status());
            // It looks at each secret, of which there may be many thousands.
            pause = pause.max(begun.elapsed() * SHARE);
            if status != told {
                self.notifier.status(&status);
                told = status;
            }
        }
    }

    /// How far a fetch is. An outage is told as what it is.
    fn fetching(&self) -> Option<String> {
        if self.obstacle().is_some() || self.rejected().is_some() {
            return None;
        }
        let configuration = self.configuration();
        let store = configuration.store().filter(|store| !store.is_down())?;
        let Progress { done, all, since, .. } = store.progress()?;
        let took = humantime::format_duration(Duration::from_secs(Moment::now().since(since).as_secs()));
        Some(format!("Fetching {done} of {} for {took}.", counted(all, "value")))
    }

    pub(super) fn status(&self) -> String {
        if let Some(obstacle) = self.obstacle() {
            return format!("Refusing every request: {obstacle}.");
        }
        if let Some(rejected) = self.rejected() {
            return rejected.line();
        }
        match &*self.configuration() {
            configuration @ Configuration::Valid { policy, store, entries, .. } => {
                let entries = || {
                    let entries = entries.iter().filter(|entry| configuration.needs(&entry.name));
                    entries.map(AsRef::as_ref)
                };
                match (store.unservable(entries()), policy.rules().count()) {
                    (0, all) => format!("Serving {}.", counted(all, "credential")),
                    (missing, _) => {
                        let why = why_missing(store);
                        format!("{missing} of {} secrets cannot be had: {why}.", entries().count())
                    }
                }
            }
            Configuration::Faulty(faults) if faults.is_nothing_written() => {
                format!("Refusing every request: {}.", faults.line())
            }
            Configuration::Faulty(_) => "Refusing every request: the configuration is faulty.".into(),
        }
    }
}

fn why_missing(store: &Store) -> String {
    let report = store.provider_report();
    let why = report.token_error.or(report.down.map(|down| down.error));
    why.map_or_else(|| "see `opnix status`".to_owned(), |why| why.to_string())
}
