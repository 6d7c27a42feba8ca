//! What units were refused for want of a value: a list of its own, because journals are turned over. The mirror reads it over
//! the control socket, and starts those units again when their values are there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::files::StateDirectory;
use crate::peer::Claim;

const FILE: &str = "missed.json";
/// How many are remembered. It is more than there are places for requests that wait.
const MOST: usize = 4096;

pub struct Missed {
    /// In memory, and kept through restarts of the service, not through a reboot: a boot starts every unit anyway.
    directory: Option<StateDirectory>,
    list: Mutex<BTreeMap<Claim, Miss>>,
    unsaved: Notify,
}

/// What became of the first and of the last request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    /// When the unit was first refused.
    pub since: SystemTime,
    /// Why it was last.
    pub reason: String,
}

/// The same in the file.
#[derive(Serialize, Deserialize)]
struct Line {
    unit: String,
    credential: String,
    since: SystemTime,
    reason: String,
}

impl Missed {
    pub fn load(directory: Option<StateDirectory>) -> Self {
        let list = directory.as_ref().map(read).unwrap_or_default();
        Self { directory, list: Mutex::new(list), unsaved: Notify::new() }
    }

    /// The unit was refused.
    pub fn note(&self, claim: &Claim, reason: String) {
        let mut list = self.list();
        match list.get_mut(claim) {
            Some(miss) if miss.reason == reason => return,
            Some(miss) => miss.reason = reason,
            None => drop(list.insert(claim.clone(), Miss { since: SystemTime::now(), reason })),
        }
        if list.len() > MOST {
            let oldest = list.iter().min_by_key(|(_, miss)| miss.since).map(|(claim, _)| claim.clone());
            oldest.map(|oldest| list.remove(&oldest));
        }
        self.unsaved.notify_one();
    }

    /// The unit has its value, or no right to it.
    pub fn settle(&self, claim: &Claim) {
        if self.list().remove(claim).is_some() {
            self.unsaved.notify_one();
        }
    }

    pub fn retain(&self, keep: impl Fn(&Claim) -> bool) {
        self.list().retain(|claim, _| keep(claim));
        self.unsaved.notify_one();
    }

    pub fn all(&self) -> BTreeMap<Claim, Miss> {
        self.list().clone()
    }

    /// Writes it whenever it changes. Does not end.
    pub async fn keep_saved(self: Arc<Self>) {
        loop {
            self.unsaved.notified().await;
            self.save().await;
        }
    }

    pub async fn save(&self) {
        let Some(directory) = self.directory.clone() else { return };
        let lines: Vec<Line> = self.all().into_iter().map(Line::from).collect();
        let saved = spawn_blocking(move || directory.replace(FILE, &serde_json::to_vec(&lines)?)).await;
        if let Ok(Err(error)) = saved {
            warn!("which units were refused cannot be remembered through a restart of the service: {error}");
        }
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<Claim, Miss>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(directory: &StateDirectory) -> BTreeMap<Claim, Miss> {
    let lines = directory.read(FILE).and_then(|text| match text {
        Some(text) => serde_json::from_slice::<Vec<Line>>(&text).map_err(std::io::Error::from),
        None => Ok(Vec::new()),
    });
    let lines = lines.unwrap_or_else(|error| {
        warn!("which units were refused before is not known: {}: {error}", directory.path(FILE).display());
        Vec::new()
    });
    lines.into_iter().filter_map(Line::parsed).collect()
}

impl From<(Claim, Miss)> for Line {
    fn from((claim, miss): (Claim, Miss)) -> Self {
        let Miss { since, reason } = miss;
        Self { unit: claim.unit.to_string(), credential: claim.credential.to_string(), since, reason }
    }
}

impl Line {
    fn parsed(self) -> Option<(Claim, Miss)> {
        let claim = Claim { unit: self.unit.parse().ok()?, credential: self.credential.parse().ok()? };
        Some((claim, Miss { since: self.since, reason: self.reason }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(unit: &str) -> Claim {
        Claim { unit: unit.parse().unwrap(), credential: "key".parse().unwrap() }
    }

    #[test]
    fn a_miss_is_remembered_from_the_first_to_the_last_until_it_is_settled() {
        let place = std::env::temp_dir().join(format!("opnix-missed-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let directory = StateDirectory::new(&place);
        let missed = Missed::load(Some(directory.clone()));
        missed.note(&claim("a.service"), "down".into());
        let first = missed.all()[&claim("a.service")].since;
        missed.note(&claim("a.service"), "no such item".into());
        missed.note(&claim("b.service"), "down".into());
        missed.settle(&claim("b.service"));
        let expected =
            BTreeMap::from([(claim("a.service"), Miss { since: first, reason: "no such item".into() })]);
        assert_eq!(missed.all(), expected);
        let runtime = crate::process::runtime().unwrap();
        let missed = Arc::new(missed);
        runtime.block_on(async {
            let saving = tokio::spawn(missed.keep_saved());
            while !place.join(FILE).exists() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            saving.abort();
        });
        assert_eq!(Missed::load(Some(directory.clone())).all(), expected);
        std::fs::write(place.join(FILE), "[{").unwrap();
        assert!(Missed::load(Some(directory)).all().is_empty());
        std::fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let missed = Missed::load(None);
        for number in 0..=MOST {
            missed.note(&claim(&format!("u{number}.service")), "down".into());
        }
        assert_eq!(missed.all().len(), MOST);
        assert!(missed.all().contains_key(&claim(&format!("u{MOST}.service"))), "the oldest goes");
    }
}
