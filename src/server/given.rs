//! What each unit was given last, and when: so that it can be told which units go on with an old value. Values are remembered
//! as keyed hashes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::warn;

use crate::files::StateDirectory;
use crate::fingerprint::Key;
use crate::moment::Moment;
use crate::peer::Claim;
use crate::secret::Secret;

const FILE: &str = "given.json";
/// How many are remembered, the last ones first.
const MOST: usize = 16384;
/// What is given within this time is saved together.
const TOGETHER: Duration = Duration::from_secs(2);

/// The units that were given something in this boot, as the service remembers it in its runtime directory.
pub fn units_of(directory: &str) -> BTreeSet<String> {
    // DynamicUser= has it in `private`, and a link to it.
    let text = std::fs::read(Path::new(directory).join(FILE)).unwrap_or_default();
    let saved: Option<Saved> = serde_json::from_slice(&text).ok();
    saved.into_iter().flat_map(|saved| saved.given).map(|line| line.unit).collect()
}

pub struct Given {
    /// In memory, and kept through restarts of the service; at a boot nothing runs that has an old value.
    directory: Option<StateDirectory>,
    /// `None`: the system gives no random numbers.
    key: Option<Key>,
    list: Mutex<BTreeMap<Claim, Gift>>,
    /// What was given last, to be hashed: not by who gives it, because the next unit waits meanwhile.
    new: Mutex<BTreeMap<Claim, (Moment, Arc<Secret>)>>,
    unsaved: Notify,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gift {
    pub at: Moment,
    hash: String,
}

/// The same in the file.
#[derive(Serialize, Deserialize)]
struct Saved {
    key: Key,
    given: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    unit: String,
    credential: String,
    /// In milliseconds since the boot.
    at: u64,
    hash: String,
}

impl Gift {
    /// Whether it was this value, by its hash.
    pub fn is(&self, hash: &str) -> bool {
        self.hash == hash
    }
}

impl Given {
    pub fn load(directory: Option<StateDirectory>) -> Self {
        let (key, list) =
            directory.as_ref().and_then(read).unwrap_or_else(|| (Key::new().ok(), BTreeMap::new()));
        Self { directory, key, list: Mutex::new(list), new: Mutex::default(), unsaved: Notify::new() }
    }

    pub fn note(&self, claim: Claim, value: Arc<Secret>) {
        self.new.lock().unwrap_or_else(PoisonError::into_inner).insert(claim, (Moment::now(), value));
        self.unsaved.notify_one();
    }

    fn take_in(&self) {
        let new = std::mem::take(&mut *self.new.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(key) = &self.key else { return };
        for (claim, (at, value)) in new {
            let gift = Gift { at, hash: key.hash(value.expose()) };
            self.list().insert(claim, gift);
        }
    }

    /// As values are remembered here.
    pub fn hash(&self, value: &Secret) -> Option<String> {
        Some(self.key.as_ref()?.hash(value.expose()))
    }

    pub fn all(&self) -> BTreeMap<Claim, Gift> {
        self.take_in();
        self.list().clone()
    }

    /// Writes it whenever it changes. Does not end.
    pub async fn keep_saved(self: Arc<Self>) {
        loop {
            self.unsaved.notified().await;
            self.take_in();
            sleep(TOGETHER).await;
            self.save().await;
        }
    }

    pub async fn save(&self) {
        self.take_in();
        self.forget_the_oldest();
        let (Some(directory), Some(key)) = (self.directory.clone(), self.key.clone()) else { return };
        let given = self.all().into_iter().map(Line::from).collect();
        let saved = Saved { key, given };
        let saved = spawn_blocking(move || directory.replace(FILE, &serde_json::to_vec(&saved)?)).await;
        if let Ok(Err(error)) = saved {
            warn!("what units were given cannot be remembered through a restart of the service: {error}");
        }
    }

    fn forget_the_oldest(&self) {
        let mut list = self.list();
        let Some(surplus) = list.len().checked_sub(MOST) else { return };
        let mut dates: Vec<Moment> = list.values().map(|gift| gift.at).collect();
        dates.sort();
        let first = dates[surplus];
        list.retain(|_, gift| gift.at >= first);
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<Claim, Gift>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(directory: &StateDirectory) -> Option<(Option<Key>, BTreeMap<Claim, Gift>)> {
    let saved = directory.read(FILE).and_then(|text| match text {
        Some(text) => serde_json::from_slice::<Saved>(&text).map(Some).map_err(std::io::Error::from),
        None => Ok(None),
    });
    let saved = saved.unwrap_or_else(|error| {
        warn!("what units were given before is not known: {}: {error}", directory.path(FILE).display());
        None
    })?;
    let list = saved.given.into_iter().filter_map(Line::parsed).collect();
    saved.key.is_whole().then_some((Some(saved.key), list))
}

impl From<(Claim, Gift)> for Line {
    fn from((claim, gift): (Claim, Gift)) -> Self {
        let Gift { at, hash } = gift;
        Self { unit: claim.unit.to_string(), credential: claim.credential.to_string(), at: at.millis(), hash }
    }
}

impl Line {
    fn parsed(self) -> Option<(Claim, Gift)> {
        let claim = Claim { unit: self.unit.parse().ok()?, credential: self.credential.parse().ok()? };
        Some((claim, Gift { at: Moment::from_millis(self.at), hash: self.hash }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(unit: &str) -> Claim {
        Claim { unit: unit.parse().unwrap(), credential: "key".parse().unwrap() }
    }

    fn value(text: &str) -> Arc<Secret> {
        Arc::new(Secret::copy_from(text.as_bytes()).unwrap())
    }

    #[test]
    fn what_was_given_is_known_through_a_restart_and_not_in_plain_text() {
        let place = std::env::temp_dir().join(format!("opnix-given-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let directory = StateDirectory::new(&place);
        let given = Given::load(Some(directory.clone()));
        given.note(claim("a.service"), value("made-up-old"));
        given.note(claim("a.service"), value("made-up-new"));
        crate::process::runtime().unwrap().block_on(given.save());
        let text = std::fs::read_to_string(place.join(FILE)).unwrap();
        assert!(!text.contains("made-up"), "{text}");
        let again = Given::load(Some(directory.clone()));
        let gift = &again.all()[&claim("a.service")];
        let is = |text: &str| gift.is(&again.hash(&value(text)).unwrap());
        assert!(is("made-up-new") && !is("made-up-old"));
        for damaged in ["[", r#"{"key": "", "given": []}"#] {
            std::fs::write(place.join(FILE), damaged).unwrap();
            assert!(Given::load(Some(directory.clone())).all().is_empty(), "{damaged}");
        }
        std::fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let given = Given::load(None);
        for number in 0..MOST + 10 {
            given.note(claim(&format!("u{number}.service")), value("v"));
        }
        given.take_in();
        given.forget_the_oldest();
        let left = given.all();
        assert!(left.len() <= MOST && left.contains_key(&claim(&format!("u{}.service", MOST + 9))));
    }
}
