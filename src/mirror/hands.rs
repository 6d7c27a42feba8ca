//! Work on files that lie in directories of others. Whoever owns one can have it answer nobody: by a file system of his own, or by
//! a server that hangs. So what is done in one directory is done beside the others, and waited for only so long.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the work in one directory may take until nobody waits for it any more.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long that in all of them may take, as a multiple.
const TOGETHER: u32 = 3;
/// In how many directories work is done at the same time, besides those that nobody waits for.
const AT_ONCE: usize = 16;
/// How often to look whether anything is left to wait for.
const MOMENT: Duration = Duration::from_millis(20);
/// In bytes.
const STACK: usize = 256 << 10;

type Work<T> = Box<dyn FnOnce() -> T + Send>;

pub struct Hands<T> {
    say: Sender<T>,
    hear: Receiver<T>,
    tasks: Arc<Mutex<Tasks<T>>>,
    patience: Duration,
    /// When nobody waits any more, in this turn.
    end: Option<Instant>,
}

struct Tasks<T> {
    directories: BTreeMap<PathBuf, Directory<T>>,
    turn: u64,
}

struct Directory<T> {
    waiting: VecDeque<Work<T>>,
    is_busy: bool,
    /// The turn in which something was begun last, and when the first of that turn was.
    begun: Option<(u64, Instant)>,
}

impl<T: Send + 'static> Hands<T> {
    pub fn new() -> Self {
        Self::with_patience(PATIENCE)
    }

    fn with_patience(patience: Duration) -> Self {
        let (say, hear) = channel();
        let tasks = Arc::new(Mutex::new(Tasks { directories: BTreeMap::new(), turn: 0 }));
        Self { say, hear, tasks, patience, end: None }
    }

    /// Has something done in this directory, after what was given for it before.
    pub fn give(&mut self, directory: &Path, work: impl FnOnce() -> T + Send + 'static) {
        self.tasks().of(directory).waiting.push_back(Box::new(work));
        self.begin();
    }

    /// What was done by now.
    pub fn done(&mut self) -> Option<T> {
        self.begin();
        self.hear.try_recv().ok()
    }

    /// What is done next; `None` if nothing is left that is worth waiting for.
    pub fn next(&mut self) -> Option<T> {
        let end = *self.end.get_or_insert_with(|| Instant::now() + self.patience * TOGETHER);
        loop {
            if let Some(done) = self.done() {
                return Some(done);
            }
            let Some(wake) = self.tasks().awaited(self.patience) else { return self.done() };
            let wake = wake.min(end);
            let left = wake.saturating_duration_since(Instant::now());
            // One that has said all may be over meanwhile: it says nothing more.
            if let Ok(done) = self.hear.recv_timeout(left.min(MOMENT)) {
                return Some(done);
            }
            if Instant::now() >= end {
                return None;
            }
        }
    }

    /// Forgets what was not begun. The end of what was is heard all the same, when it comes.
    pub fn give_up(&mut self) {
        let mut tasks = self.tasks();
        tasks.turn += 1;
        tasks.directories.retain(|_, directory| {
            directory.waiting.clear();
            directory.is_busy
        });
        drop(tasks);
        self.end = None;
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks<T>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&mut self) {
        let mut tasks = self.tasks();
        while tasks.busy(self.patience) < AT_ONCE
            && let Some((directory, work)) = tasks.next(None)
        {
            let (say, shared) = (self.say.clone(), self.tasks.clone());
            let run = move || go_on(&say, &shared, directory, work);
            if thread::Builder::new().name("hands".into()).stack_size(STACK).spawn(run).is_err() {
                return;
            }
        }
    }
}

fn go_on<T>(say: &Sender<T>, tasks: &Mutex<Tasks<T>>, mut directory: PathBuf, mut work: Work<T>) {
    loop {
        let done = work();
        // Together with what follows, so that nobody waits for what was said already.
        let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if say.send(done).is_err() {
            return;
        }
        tasks.of(&directory).is_busy = false;
        let Some(next) = tasks.next(Some(&directory)) else {
            tasks.directories.remove(&directory);
            return;
        };
        (directory, work) = next;
    }
}

impl<T> Tasks<T> {
    fn of(&mut self, directory: &Path) -> &mut Directory<T> {
        let new = || Directory { waiting: VecDeque::new(), is_busy: false, begun: None };
        self.directories.entry(directory.to_owned()).or_insert_with(new)
    }

    /// What is to be done next, first of all in this directory.
    fn next(&mut self, first: Option<&Path>) -> Option<(PathBuf, Work<T>)> {
        let turn = self.turn;
        let free = |directory: &Directory<T>| !directory.is_busy && !directory.waiting.is_empty();
        let path = match first.filter(|first| self.directories.get(*first).is_some_and(free)) {
            Some(first) => first.to_owned(),
            None => self.directories.iter().find(|(_, directory)| free(directory))?.0.clone(),
        };
        let directory = self.of(&path);
        let work = directory.waiting.pop_front()?;
        directory.is_busy = true;
        if directory.begun.is_none_or(|(begun, _)| begun != turn) {
            directory.begun = Some((turn, Instant::now()));
        }
        Some((path, work))
    }

    /// In how many directories somebody waits for what is done there.
    fn busy(&self, patience: Duration) -> usize {
        self.directories.values().filter(|directory| self.until(directory, patience).is_some()).count()
    }

    /// Until when it is waited for what is being done there.
    fn until(&self, directory: &Directory<T>, patience: Duration) -> Option<Instant> {
        let (turn, since) = directory.begun.filter(|_| directory.is_busy)?;
        let end = since + patience;
        (turn == self.turn && end > Instant::now()).then_some(end)
    }

    /// When to look again whether anything is worth waiting for.
    fn awaited(&self, patience: Duration) -> Option<Instant> {
        let begun = self.directories.values().filter_map(|directory| self.until(directory, patience));
        let is_waiting = |directory: &&Directory<T>| !directory.is_busy && !directory.waiting.is_empty();
        let waiting = self.directories.values().find(is_waiting).map(|_| Instant::now() + patience);
        begun.chain(waiting).min()
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
        // The end of what was begun is heard.
        while hands.done().is_none_or(|done| done != "first") {}
        hands.give(Path::new("/hangs"), || "again".to_owned());
        assert_eq!(hands.next().as_deref(), Some("again"));
    }

    #[test]
    fn a_directory_that_is_slow_with_each_piece_of_work_is_not_waited_for_longer() {
        let mut hands = Hands::with_patience(Duration::from_millis(200));
        let begun = Instant::now();
        for number in 0..100 {
            hands.give(Path::new("/slow"), move || {
                thread::sleep(Duration::from_millis(90));
                number
            });
        }
        let mut done = 0;
        while hands.next().is_some() {
            done += 1;
        }
        assert!((1..50).contains(&done), "{done} in {:?}", begun.elapsed());
    }

    #[test]
    fn work_goes_on_while_nobody_listens() {
        let mut hands = Hands::with_patience(Duration::from_secs(60));
        let (say, told) = channel();
        for number in 0..100 {
            let say = say.clone();
            hands.give(Path::new("/one"), move || say.send(number).unwrap());
        }
        assert!((0..100).eq(told.iter().take(100)));
        drop(hands);
    }

    #[test]
    fn what_is_done_at_once_is_heard_at_once() {
        let mut hands = Hands::with_patience(Duration::from_secs(60));
        let begun = Instant::now();
        for round in 0..500 {
            hands.give(Path::new("/one"), move || round);
            hands.give(Path::new("/other"), move || round);
            let heard = [hands.next(), hands.next(), hands.next()];
            assert_eq!(heard, [Some(round), Some(round), None]);
            hands.give_up();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it waited for nothing");
    }

    #[test]
    fn many_that_do_not_answer_take_no_places_from_others() {
        let mut hands = Hands::with_patience(Duration::from_millis(500));
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        // The last is begun when these have been waited for twice, of three times that there are.
        for number in 0..2 * AT_ONCE {
            let gate = gate.clone();
            hands.give(Path::new(&format!("/{number:03}")), move || drop(gate.lock()));
        }
        hands.give(Path::new("/last"), || ());
        assert_eq!(hands.next(), Some(()));
        drop(closed);
    }
}
