//! The service with a vault of one numbered value.

use std::fs;
use std::path::{Path, PathBuf};

use opnix::internals::{KEY_CREDENTIAL, Now, sealed};
use serde_json::json;

use crate::daemon::{Daemon, UNIT, new_directory};

const KEY: [u8; 32] = [7; 32];
/// Many blocks of a disk: half of it is not the whole.
const SIZE: usize = 40_000;

pub struct Service {
    /// Has a directory for each thing that systemd gives.
    directory: PathBuf,
    pub state: PathBuf,
}

/// As long for each number.
fn value(number: u64) -> String {
    let mut value = format!("canary-{number:06}|").repeat(SIZE / 14);
    value.push_str("end");
    value
}

/// The number of a whole value.
pub fn number_of(text: &str) -> Option<u64> {
    let number = text.strip_prefix("canary-")?.split('|').next()?.parse().ok()?;
    (text == value(number)).then_some(number)
}

/// The number of the value in a cache that opens, and the cache's name.
pub fn judge(cache: &[u8]) -> Result<(u64, String), String> {
    let key = sealed::Key::new(&KEY).expect("it has the length of a key");
    let opened = sealed::open(&key, cache, Now::read(), None);
    let contents = opened.map_err(|why| format!("{} bytes: {why}", cache.len()))?;
    let [(_, kept)] = &contents.entries[..] else { return Err("it has not one value".to_owned()) };
    let text = str::from_utf8(kept.value.expose()).map_err(|why| why.to_string())?;
    let number = number_of(text).ok_or_else(|| "the value is not whole".to_owned())?;
    Ok((number, contents.name))
}

impl Service {
    pub fn new(name: &str) -> Self {
        let directory = fs::canonicalize(new_directory(name)).expect("it was just made");
        let state = directory.join("state");
        fs::create_dir(&state).expect("the state directory");
        Self::with_state(directory, state)
    }

    /// The same with a state directory that is elsewhere.
    pub fn with_state(directory: PathBuf, state: PathBuf) -> Self {
        fs::create_dir_all(directory.join("runtime")).expect("the runtime directory");
        fs::write(directory.join(KEY_CREDENTIAL), KEY).expect("the key");
        Self { directory, state }
    }

    pub fn runtime(&self) -> PathBuf {
        self.directory.join("runtime")
    }

    pub fn cache(&self) -> PathBuf {
        self.state.join("cache")
    }

    pub fn start(&self) -> Daemon {
        let environment: [(&str, &Path); 3] = [
            ("STATE_DIRECTORY", &self.state),
            ("CREDENTIALS_DIRECTORY", &self.directory),
            ("RUNTIME_DIRECTORY", &self.runtime()),
        ];
        // Nothing is asked for but what the test asks for.
        let config = json!({"provider": {"kind": "local", "path": self.directory.join("vault.json")},
            "deadline": "2s", "refresh": "never", "budget": {"daily": 100_000},
            "secrets": [{"name": "key", "reference": "op://Vault/key/value", "units": [UNIT]}]});
        Daemon::configured(&environment, &config, "none")
    }

    pub fn set(&self, number: u64) {
        let fields = json!([{"label": "value", "value": value(number)}]);
        let vault = json!({"vaults": [{"name": "Vault", "items": [{"title": "key", "fields": fields}]}]});
        let new = self.directory.join("vault.new");
        fs::write(&new, vault.to_string()).expect("the vault");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&new, private).expect("the vault's mode");
        fs::rename(new, self.directory.join("vault.json")).expect("the vault");
    }

    /// From now on nothing but the cache can have the value.
    pub fn lose_the_vault(&self) {
        let _ = fs::remove_file(self.directory.join("vault.json"));
    }

    /// A reboot empties it.
    pub fn lose_the_runtime(&self) {
        let _ = fs::remove_dir_all(self.runtime());
        fs::create_dir(self.runtime()).expect("the runtime directory");
    }

    /// Starts it with that value, which is on disk when this returns.
    pub fn start_with(&self, number: u64) -> Daemon {
        self.set(number);
        let daemon = self.start();
        assert_eq!(refresh(&daemon), Ok(()));
        daemon
    }

    /// What it has after its death, from the cache alone. The second is its log.
    pub fn start_from_the_cache(&self) -> (u64, String) {
        self.lose_the_vault();
        let daemon = self.start();
        let given = daemon.ask("key").unwrap_or_else(|| panic!("nothing is served: {}", daemon.log()));
        let number = number_of(&given).unwrap_or_else(|| panic!("half a value: {}", daemon.log()));
        let log = daemon.stop();
        assert!(!log.contains("is not used") && !log.contains("cannot be read"), "{log}");
        let left: Vec<_> = fs::read_dir(&self.state)
            .expect("the state directory")
            .map(|entry| entry.expect("its name").file_name())
            .filter(|name| name.to_string_lossy().contains("opnix-new"))
            .collect();
        assert!(left.is_empty(), "{left:?} {log}");
        (number, log)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Or what the command says.
pub fn refresh(daemon: &Daemon) -> Result<(), String> {
    let (said, code) = daemon.command(&["refresh"]);
    if code == 0 { Ok(()) } else { Err(said) }
}
