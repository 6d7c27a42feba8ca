//! What is told to systemd. Without systemd (`$NOTIFY_SOCKET` unset) all of it does nothing.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

use crate::server::keeper::Channel;

/// How long the last messages may take to be passed on.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// systemd ignores a message of more than 4,096 bytes, whatever it says.
const STATUS_MAX: usize = 3000;

/// How many descriptors may be on their way to systemd.
const WAITING_MAX: usize = 1024;

/// Tells systemd what the unit does.
#[derive(Debug, Clone)]
pub struct Notifier(Way);

#[derive(Debug, Clone)]
enum Way {
    /// From the unit's main process.
    Direct,
    /// Through the keeper, which is the main process: by a thread, because systemd may keep it waiting.
    Keeper {
        words: Sender<Word>,
        channel: Arc<Channel>,
        /// How many descriptors are on their way.
        waiting: Arc<AtomicUsize>,
    },
}

#[derive(Debug)]
enum Word {
    Message(String, Option<OwnedFd>),
    /// Answered when all before it is passed on.
    Flush(SyncSender<()>),
}

impl Notifier {
    pub fn direct() -> Self {
        Self(Way::Direct)
    }

    pub fn through(channel: Arc<Channel>) -> std::io::Result<Self> {
        let (words, said) = self::channel();
        let waiting = Arc::<AtomicUsize>::default();
        let (to, count) = (channel.clone(), waiting.clone());
        thread::Builder::new().name("notifier".into()).spawn(move || pass_on(&said, &to, &count))?;
        Ok(Self(Way::Keeper { words, channel, waiting }))
    }

    pub fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(&short(status))]);
    }

    pub fn status(&self, status: &str) {
        self.send(&[NotifyState::Status(&short(status))]);
    }

    /// The start of a reload; [`Notifier::ready`] is its end.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(error) => warn!("cannot read the clock to announce a reload: {error}"),
        }
    }

    pub fn stopping(&self, status: &str) {
        self.send(&[NotifyState::Stopping, NotifyState::Status(&short(status))]);
    }

    /// Never waits: a heartbeat that finds no room is left out.
    pub fn heartbeat(&self) {
        match &self.0 {
            Way::Direct => self.send(&[NotifyState::Watchdog]),
            Way::Keeper { channel, .. } => channel.mention(b"WATCHDOG=1"),
        }
    }

    /// Puts a descriptor into systemd's store, with the message that says how. Says whether it goes there: not when
    /// systemd is far behind, because each one that waits is a descriptor of ours.
    pub fn store(&self, message: String, descriptor: OwnedFd) -> bool {
        let Way::Keeper { words, waiting, .. } = &self.0 else { return false };
        if waiting.load(Ordering::Relaxed) >= WAITING_MAX {
            return false;
        }
        waiting.fetch_add(1, Ordering::Relaxed);
        words.send(Word::Message(message, Some(descriptor))).is_ok()
    }

    /// Takes all descriptors of that name out of systemd's store.
    pub fn unstore(&self, name: &str) {
        self.send(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
    }

    /// Waits, not for long, until everything that was said is passed on.
    pub fn flush(&self) {
        if let Way::Keeper { words, .. } = &self.0 {
            let (done, all_done) = sync_channel(1);
            let _ = words.send(Word::Flush(done));
            let _ = all_done.recv_timeout(LAST_WORDS);
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        match &self.0 {
            Way::Direct => {
                if let Err(error) = sd_notify::notify(states) {
                    warn!("cannot notify systemd: {error}");
                }
            }
            Way::Keeper { words, .. } => {
                let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
                let _ = words.send(Word::Message(lines.join("\n"), None));
            }
        }
    }
}

/// One line that systemd takes, and with it what else is told in the same message.
fn short(status: &str) -> String {
    let line = status.replace('\n', "; ");
    match line.char_indices().map(|(at, _)| at).find(|at| *at >= STATUS_MAX) {
        Some(end) => format!("{}… (the journal has all of it)", &line[..end]),
        None => line,
    }
}

fn pass_on(said: &Receiver<Word>, to: &Channel, waiting: &AtomicUsize) {
    for word in said {
        match word {
            Word::Message(message, descriptor) => {
                if descriptor.is_some() {
                    waiting.fetch_sub(1, Ordering::Relaxed);
                }
                if let Err(error) = to.pass_on(&message, descriptor) {
                    warn!("cannot notify systemd through the keeper: {error}");
                }
            }
            Word::Flush(done) => drop(done.send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_takes_any_status() {
        assert_eq!(short("All 5 files are in place."), "All 5 files are in place.");
        for long in ["x".repeat(10_000), "ü".repeat(3000), "\n".repeat(5000)] {
            let short = short(&long);
            assert!(
                short.len() < 3100 && !short.contains('\n') && short.ends_with("(the journal has all of it)")
            );
        }
    }
}
