//! `opnix setup`: the key of the sealed cache.

mod aside;
pub mod creds;
mod words;

use std::cell::Cell;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use chacha20poly1305::aead::Generate;
use zeroize::Zeroizing;

use super::{Exit, fail};
use crate::cli::output::{complain, say};
use crate::files::StateDirectory;
use crate::store::disk::KEY_CREDENTIAL;
use crate::store::sealed::KEY_LENGTH;
use aside::{KEPT, Pairs, Paths};
use creds::{Creds, Opened};

/// Where systemd looks for encrypted credentials that a unit names without a path.
pub const STORE: &str = "/etc/credstore.encrypted";
/// `StateDirectory=` of opnix.service: a link to /var/lib/private/opnix, as it has `DynamicUser=`.
const STATE: &str = "/var/lib/opnix";
const RESTART: &str =
    "opnix.service seals its cache with it once it is restarted: systemctl restart opnix.service";
/// Is there while opnix.service has an opened key: it may write its cache at any moment.
const IN_USE: &str = "/run/credentials/opnix-key.service";

/// Make the key that the cache on disk is sealed with
///
/// The key is drawn at random and given to systemd-creds, which seals it with this machine's TPM2, or its host key, or
/// both; only systemd can open it then, and hands it to opnix.service alone. A key that is there already stays. If it does
/// not open, it is tried for some seconds; then the command fails and changes nothing, because the key may open later: the TPM
/// is busy, say. Only a key that cannot open any more is set aside, together with its cache, under names that end in
/// .aside-1 and so on, and a new one is made. If one that was set aside opens again, it is put back with its cache.
/// opnix-setup.service runs this at each boot.
#[derive(clap::Args)]
pub struct Arguments {
    /// What systemd-creds seals the key with: auto, host, tpm2 or host+tpm2
    #[arg(long, value_name = "KEY", default_value = "auto")]
    with_key: String,
    /// Set the present key and its cache aside, and make a new key
    #[arg(long)]
    new_key: bool,
    /// Where the sealed key goes
    #[arg(long, value_name = "DIR", default_value = STORE)]
    store: PathBuf,
    /// Where opnix.service has its cache
    #[arg(long, value_name = "DIR", default_value = STATE)]
    state: PathBuf,
}

pub fn run(arguments: Arguments) -> Exit {
    let tried = StateDirectory::of_runtime();
    let was_tried = tried.as_ref().is_some_and(|of| matches!(of.read(TRIED), Ok(Some(_))));
    let times = if was_tried { Times::AGAIN } else { Times::USUAL };
    let setup = Setup {
        creds: Creds { program: "systemd-creds".into(), until: Instant::now() + times.all },
        in_use: IN_USE.into(),
        times,
        was_in_vain: Cell::new(false),
        arguments,
    };
    let done = setup.run(&mut |line| say!("{line}"));
    let noted = match &tried {
        Some(tried) if setup.was_in_vain.get() => tried.replace(TRIED, &[]),
        Some(tried) if done.is_ok() => tried.remove(TRIED),
        _ => Ok(()),
    };
    if let Err(error) = noted {
        complain!("opnix: that the key was tried cannot be remembered: {error}");
    }
    done.map_or_else(|why| fail(Exit::System, why), |()| Exit::Ok)
}

/// In the runtime directory of opnix-setup.service: in this boot it was tried for long, in vain. Each start of opnix.service waits
/// for the next try.
const TRIED: &str = "tried";

/// How long what may take. All of it stays below `TimeoutStartSec=` of opnix-setup.service.
struct Times {
    /// For the key in force to open, all tries and pauses together.
    patience: Duration,
    pause: Duration,
    /// For systemd-creds, each time.
    limit: Duration,
    /// For it to open a key that was set aside.
    quick: Duration,
    all: Duration,
}

impl Times {
    const USUAL: Self = Self {
        patience: Duration::from_secs(10),
        pause: Duration::from_secs(1),
        limit: Duration::from_secs(5),
        quick: Duration::from_secs(2),
        all: Duration::from_secs(25),
    };

    /// When it has not opened before in this boot.
    const AGAIN: Self = Self { patience: Duration::from_secs(2), ..Self::USUAL };
}

struct Setup {
    arguments: Arguments,
    creds: Creds,
    in_use: PathBuf,
    times: Times,
    /// The key was tried for all the time there is, and did not open.
    was_in_vain: Cell<bool>,
}

type Say<'a> = &'a mut dyn FnMut(String);

impl Setup {
    /// Says what it does, and at last why there is no key that opens.
    fn run(&self, say: Say) -> Result<(), String> {
        let pairs = Pairs::open(&self.arguments.store, &self.arguments.state)
            .map_err(|why| format!("nothing was done about the key of the cache: {why}"))?;
        let key = pairs.key();
        // What runs writes a cache itself.
        let finished = if self.in_use.exists() { None } else { pairs.finish().map_err(described)? };
        if let Some(from) = finished {
            say(format!(
                "put the cache back in place, which goes with the key: {}, until now {}",
                pairs.cache().display(),
                from.display()
            ));
        }
        if self.arguments.new_key {
            return self.renew(&pairs, say);
        }
        if !pairs.has_key().map_err(described)? {
            return if self.put_back(&pairs, false, say)? { Ok(()) } else { self.renew(&pairs, say) };
        }
        match self.open_patiently(&key, say) {
            Opened::Yes => {
                // Nothing is lost by another key then.
                let has_cache = pairs.has_cache().map_err(described)?;
                if has_cache || !self.put_back(&pairs, true, say)? {
                    say(format!("the key of the cache is in place: {}", key.display()));
                }
                Ok(())
            }
            Opened::NotNow(why) => {
                self.was_in_vain.set(true);
                Err(not_now(&key, &why))
            }
            Opened::Never(why) => {
                say(format!("the key {} cannot be opened any more: {why}", key.display()));
                if self.put_back(&pairs, false, say)? { Ok(()) } else { self.renew(&pairs, say) }
            }
        }
    }

    /// Tries for a while, unless it opens or never will.
    fn open_patiently(&self, key: &Path, say: Say) -> Opened {
        let end = Instant::now() + self.times.patience;
        let mut is_first = true;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            // The first one has all the time that a slow TPM may take.
            let limit = if is_first { self.times.limit } else { self.times.limit.min(left) };
            let opened = self.creds.open(key, limit);
            // The last try has as much time as the pause before it at least.
            let is_last = end.saturating_duration_since(Instant::now()) < 2 * self.times.pause;
            match &opened {
                Opened::NotNow(why) if !is_last => {
                    if is_first {
                        let patience = self.times.patience.as_secs();
                        say(format!("the key {} is tried for {patience} s: {why}", key.display()));
                    }
                }
                _ => return opened,
            }
            is_first = false;
            thread::sleep(self.times.pause);
        }
    }

    /// Puts a pair that was set aside in force again if its key opens, and says so. Where the present key `opens`, it must be worth
    /// it: there is a cache, and nobody wanted to be rid of that key.
    fn put_back(&self, pairs: &Pairs, opens: bool, say: Say) -> Result<bool, String> {
        // What runs with another key would overwrite the cache that comes back.
        if self.in_use.exists() {
            return Ok(false);
        }
        let mut candidates = Vec::new();
        for number in pairs.aside().map_err(described)? {
            let paths = pairs.paths(number).map_err(described)?;
            let is_worth_it = paths.cache.is_some() && !pairs.is_on_purpose(number).map_err(described)?;
            if is_worth_it || !opens {
                candidates.push((number, paths));
            }
        }
        // The last one first, and those with a cache before the others.
        candidates.sort_by_key(|(_, paths)| paths.cache.is_none());
        let mut opening = candidates.iter().take(KEPT);
        let Some((number, before)) =
            opening.find(|(_, paths)| self.creds.open(&paths.key, self.times.quick) == Opened::Yes)
        else {
            return Ok(false);
        };
        if pairs.has_key().map_err(described)? {
            self.set_aside(pairs, false, say)?;
        }
        if let Some(stray) = pairs.put_back(*number).map_err(described)? {
            let (cache, stray) = (pairs.cache(), stray.display());
            say(format!("set a cache aside that no key goes with: {}, now {stray}", cache.display()));
        }
        let with = if before.cache.is_some() { ", with its cache" } else { "" };
        say(format!("the key that was set aside opens again and is back in force{with}"));
        for (now, before) in [(pairs.key(), Some(&before.key)), (pairs.cache(), before.cache.as_ref())] {
            if let Some(before) = before {
                say(format!("{} is {} again", before.display(), now.display()));
            }
        }
        say(RESTART.to_owned());
        Ok(true)
    }

    /// Makes a new key, and sets the present one aside for it.
    fn renew(&self, pairs: &Pairs, say: Say) -> Result<(), String> {
        let key = pairs.key();
        let has_key = pairs.has_key().map_err(described)?;
        self.not_in_use()?;
        // First of all, so that nothing has changed if it fails.
        let sealed = self.draw().map_err(|why| match has_key {
            true => {
                format!("no new key can be made: {why}\n{} and its cache are left as they are", key.display())
            }
            false => keyless(why),
        })?;
        if has_key && !self.arguments.new_key {
            // The TPM works, and has a storage root key again if there was none: maybe that was all it took.
            match self.creds.open(&key, self.times.limit) {
                Opened::Yes => {
                    say(format!("the key of the cache opens after all and stays: {}", key.display()));
                    return Ok(());
                }
                Opened::NotNow(why) => return Err(not_now(&key, &why)),
                Opened::Never(_) => {}
            }
        }
        // A unit may have started it meanwhile.
        self.not_in_use()?;
        if has_key {
            self.set_aside(pairs, self.arguments.new_key, say)?;
        }
        pairs.make_key(&sealed).map_err(|error| keyless(format!("{}: {error}", key.display())))?;
        say(format!("made the key of the cache: {}", key.display()));
        say(RESTART.to_owned());
        self.prune(pairs, say);
        Ok(())
    }

    fn not_in_use(&self) -> Result<(), String> {
        if !self.in_use.exists() {
            return Ok(());
        }
        Err("opnix.service runs with the key that it opened at its start, and would go on to write its cache with it\n\
             systemctl stop opnix.socket opnix.service, then run this again, then: systemctl start opnix.socket"
            .to_owned())
    }

    fn draw(&self) -> Result<Vec<u8>, String> {
        let key: Zeroizing<[u8; KEY_LENGTH]> = <[u8; KEY_LENGTH]>::try_generate()
            .map(Zeroizing::new)
            .map_err(|_| "the system gives no random numbers".to_owned())?;
        self.creds.seal(KEY_CREDENTIAL, &key[..], &self.arguments.with_key, self.times.limit)
    }

    fn set_aside(&self, pairs: &Pairs, is_on_purpose: bool, say: Say) -> Result<(), String> {
        let aside = pairs
            .set_aside(is_on_purpose)
            .map_err(|error| format!("{} cannot be set aside, and stays: {error}", pairs.key().display()))?;
        say(format!("set the key aside: {}, now {}", pairs.key().display(), aside.key.display()));
        if let Some(cache) = aside.cache {
            say(format!("set its cache aside: {}, now {}", pairs.cache().display(), cache.display()));
        }
        Ok(())
    }

    /// What is too much is no reason to fail.
    fn prune(&self, pairs: &Pairs, say: Say) {
        match pairs.prune() {
            Ok(removed) => {
                for Paths { key, cache } in removed {
                    let cache = cache.map(|cache| format!(" and {}", cache.display())).unwrap_or_default();
                    say(format!(
                        "removed {}{cache}: only {KEPT} keys that were set aside are kept",
                        key.display()
                    ));
                }
            }
            Err(error) => say(format!("what was set aside long ago cannot be removed: {error}")),
        }
    }
}

fn described(error: io::Error) -> String {
    format!("the key of the cache, or the cache, cannot be got at: {error}")
}

fn keyless(why: impl Display) -> String {
    format!(
        "there is no key, so values are kept in memory only: {why}\nopnix works without one, but after a reboot it needs 1Password"
    )
}

fn not_now(key: &Path, why: &str) -> String {
    format!(
        "the key {} does not open now: {why}\n\
         it and its cache are left as they are; until it opens, values are kept in memory only\n\
         it is tried again at each start of opnix.service and at each boot; to make a new one: opnix setup --new-key",
        key.display()
    )
}

#[cfg(test)]
mod tests;
