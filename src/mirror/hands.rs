//! Work on files that lie in directories of others. Whoever owns one can have it answer nobody: by a file system of his own, or by
//! a server that hangs. So what is done in one directory is done beside the others, and waited for only so long.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a piece of work may take until nobody waits for it any more.
const PATIENCE: Duration = Duration::from_secs(5);
/// In how many directories work is done at the same time, besides those that nobody waits for.
const AT_ONCE: usize = 16;
/// In bytes.
const STACK: usize = 256 << 10;

type Work<T> = Box<dyn FnOnce() -> T + Send>;

pub struct Hands<T> {
    say: Sender<(PathBuf, u64, T)>,
    hear: Receiver<(PathBuf, u64, T)>,
    waiting: BTreeMap<PathBuf, VecDeque<Work<T>>>,
    /// The directories where something is being done, and since when.
    busy: BTreeMap<PathBuf, (u64, Instant)>,
    /// What was given before the last [`Self::give_up`] tells nobody anything.
    turn: u64,
    patience: Duration,
}

impl<T: Send + 'static> Hands<T> {
    pub fn new() -> Self {
        Self::with_patience(PATIENCE)
    }

    fn with_patience(patience: Duration) -> Self {
        let (say, hear) = channel();
        Self { say, hear, waiting: BTreeMap::new(), busy: BTreeMap::new(), turn: 0, patience }
    }

    /// Has something done in this directory, after what was given for it before.
    pub fn give(&mut self, directory: &Path, work: impl FnOnce() -> T + Send + 'static) {
        self.waiting.entry(directory.to_owned()).or_default().push_back(Box::new(work));
        self.start();
    }

    /// What was done by now.
    pub fn done(&mut self) -> Option<T> {
        while let Ok(outcome) = self.hear.try_recv() {
            if let Some(done) = self.heard(outcome) {
                return Some(done);
            }
        }
        None
    }

    /// What is done next; `None` if nothing is left that is worth waiting for.
    pub fn next(&mut self) -> Option<T> {
        loop {
            if let Some(done) = self.done() {
                return Some(done);
            }
            self.start();
            let ends = self.busy.values().filter(|(turn, _)| *turn == self.turn);
            let next =
                ends.map(|(_, since)| *since + self.patience).filter(|end| *end > Instant::now()).min()?;
            match self.hear.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(outcome) => {
                    if let Some(done) = self.heard(outcome) {
                        return Some(done);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Forgets what was not begun, and does not hear the end of what was.
    pub fn give_up(&mut self) {
        self.waiting.clear();
        self.turn += 1;
    }

    fn heard(&mut self, (directory, turn, done): (PathBuf, u64, T)) -> Option<T> {
        self.busy.remove(&directory);
        self.start();
        (turn == self.turn).then_some(done)
    }

    fn start(&mut self) {
        let is_awaited =
            |(turn, since): &&(u64, Instant)| *turn == self.turn && since.elapsed() < self.patience;
        let mut free = AT_ONCE.saturating_sub(self.busy.values().filter(is_awaited).count());
        let busy = &mut self.busy;
        self.waiting.retain(|directory, queue| {
            if free > 0
                && !busy.contains_key(directory)
                && let Some(work) = queue.pop_front()
            {
                let (say, named, turn) = (self.say.clone(), directory.clone(), self.turn);
                let run = move || drop(say.send((named, turn, work())));
                if thread::Builder::new().name("hands".into()).stack_size(STACK).spawn(run).is_ok() {
                    busy.insert(directory.clone(), (self.turn, Instant::now()));
                    free -= 1;
                }
            }
            !queue.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn one_directory_that_does_not_answer_keeps_no_other_waiting_and_is_left_alone_until_it_does() {
        let mut hands = Hands::with_patience(Duration::from_millis(200));
        let (go_on, gate) = channel::<()>();
        hands.give(Path::new("/hangs"), move || {
            let _ = gate.recv();
            "first".to_owned()
        });
        hands.give(Path::new("/hangs"), || "never begun".to_owned());
        for number in 0..2 * AT_ONCE {
            for part in ["a", "b"] {
                hands.give(Path::new(&format!("/{number}")), move || format!("{number}{part}"));
            }
        }
        let mut all = Vec::new();
        while let Some(done) = hands.next() {
            all.push(done);
        }
        assert_eq!(all.len(), 4 * AT_ONCE, "{all:?}");
        let at = |name: &str| all.iter().position(|done| done == name);
        assert!((0..2 * AT_ONCE).all(|number| at(&format!("{number}a")) < at(&format!("{number}b"))));
        hands.give_up();
        hands.give(Path::new("/hangs"), || "not begun either".to_owned());
        assert_eq!(hands.next(), None);
        hands.give_up();
        drop(go_on);
        let mut heard = None;
        while heard.is_none() {
            hands.give(Path::new("/hangs"), || "again".to_owned());
            heard = hands.next();
            hands.give_up();
        }
        assert_eq!(heard.as_deref(), Some("again"));
    }

    #[test]
    fn many_that_do_not_answer_take_no_places_from_others() {
        let mut hands = Hands::with_patience(Duration::from_millis(100));
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        for number in 0..3 * AT_ONCE {
            let gate = gate.clone();
            hands.give(Path::new(&format!("/{number:03}")), move || drop(gate.lock()));
        }
        hands.give(Path::new("/last"), || ());
        assert_eq!(hands.next(), Some(()));
        drop(closed);
    }
}
