//! Records on their way to the journal, in a file in memory that outlives the process: systemd's descriptor store has it,
//! so that the next instance writes what this one could not.
//!
//! Whoever makes a record appends it and goes on. A thread of its own ([`super::writer`]) takes the records from the
//! front, and waits for the journal as long as it must.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// How many bytes may wait. A record has a few hundred.
const CAPACITY: u64 = 4 << 20;
/// Five numbers: a word that says that the file is one of ours, where the first record that is not written yet begins,
/// and, by class, how many were dropped since the journal was last told.
const HEADER: u64 = 5 * 8;
const MAGIC: u64 = u64::from_le_bytes(*b"records1");
/// The longest record, in bytes; a longer one is cut where it is made.
pub const RECORD_MAX: usize = 48 << 10;
/// How many bytes are read at a time: more than one record has.
const READ: u64 = 64 << 10;

/// What is dropped first when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Grant,
    Refusal,
    Fault,
}

impl Class {
    /// How many bytes may wait when one of these is added.
    fn share(self) -> u64 {
        match self {
            Self::Grant => CAPACITY / 2,
            Self::Refusal => CAPACITY / 4 * 3,
            Self::Fault => CAPACITY,
        }
    }
}

/// How many records were dropped, by class.
pub type Dropped = [u64; 3];

pub struct Queue {
    file: File,
    state: Mutex<State>,
    news: Condvar,
    emptied: Condvar,
}

#[derive(Default)]
struct State {
    /// Where the first record that is not written yet begins, and where the last one ends.
    begin: u64,
    end: u64,
    waiting: u64,
    dropped: Dropped,
    untold: Dropped,
    /// The writer has nothing to do.
    idle: bool,
}

/// Records from the front.
pub struct Batch {
    pub records: Vec<Vec<u8>>,
    /// There were no others.
    pub are_all: bool,
    /// Dropped since the journal was last told.
    pub untold: Dropped,
}

impl Queue {
    pub fn new() -> io::Result<Self> {
        let file = File::from(memfd_create("opnix-records", MFdFlags::MFD_CLOEXEC)?);
        let queue = Self::of(file, State { begin: HEADER, end: HEADER, ..State::default() });
        queue.note(&queue.state())?;
        Ok(queue)
    }

    /// The one that an earlier instance left, with what is in it. `None`: it is not one of ours.
    pub fn found(file: File) -> Option<Self> {
        let mut header = [0; HEADER as usize];
        file.read_exact_at(&mut header, 0).ok()?;
        let mut numbers =
            header.chunks_exact(8).map(|number| u64::from_le_bytes(number.try_into().unwrap_or_default()));
        let mut next = || numbers.next().unwrap_or_default();
        let (magic, begin, untold) = (next(), next(), [next(), next(), next()]);
        if magic != MAGIC || begin < HEADER {
            return None;
        }
        // The instance may have died after it emptied the file, and before it noted that.
        let begin = if file.metadata().is_ok_and(|file| begin <= file.len()) { begin } else { HEADER };
        let queue = Self::of(file, State { begin, end: begin, untold, dropped: untold, ..State::default() });
        let mut state = queue.state();
        // A record that was cut off when the instance died is the last, and ends the count.
        while let Some(length) = queue.record_at(state.end) {
            state.end += 4 + length;
            state.waiting += 1;
        }
        drop(state);
        Some(queue)
    }

    fn of(file: File, state: State) -> Self {
        Self { file, state: Mutex::new(state), news: Condvar::new(), emptied: Condvar::new() }
    }

    /// What systemd is to store.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Appends a record, or drops and counts it. Waits for nothing.
    pub fn push(&self, class: Class, record: &[u8]) {
        let mut state = self.state();
        let length = record.len() as u64;
        let room = state.end - state.begin + length <= class.share() && record.len() <= RECORD_MAX;
        let mut bytes = Vec::with_capacity(4 + record.len());
        bytes.extend_from_slice(&(record.len() as u32).to_le_bytes());
        bytes.extend_from_slice(record);
        if !room || self.file.write_all_at(&bytes, state.end).is_err() {
            state.dropped[class as usize] += 1;
            state.untold[class as usize] += 1;
            // If memory is short, the count is right in this process at least.
            let _ = self.note(&state);
        } else {
            state.end += bytes.len() as u64;
            state.waiting += 1;
        }
        if std::mem::take(&mut state.idle) {
            self.news.notify_one();
        }
    }

    /// How many records wait, and how many were dropped.
    pub fn counts(&self) -> (u64, Dropped) {
        let state = self.state();
        (state.waiting, state.dropped)
    }

    /// The first records, at most `most`. Waits until there are any, or some were dropped.
    pub fn front(&self, most: usize) -> Batch {
        let mut state = self.state();
        while state.begin == state.end && state.untold == Dropped::default() {
            state.idle = true;
            state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let (begin, end, untold) = (state.begin, state.end, state.untold);
        drop(state);
        // Nobody else changes what lies between.
        let mut bytes = vec![0; (end - begin).min(READ) as usize];
        let mut records = Vec::new();
        if self.file.read_exact_at(&mut bytes, begin).is_ok() {
            let mut rest = &bytes[..];
            while let (true, Some((length, after))) = (records.len() < most, rest.split_first_chunk()) {
                let Some((record, next)) = after.split_at_checked(u32::from_le_bytes(*length) as usize)
                else {
                    break;
                };
                records.push(record.to_vec());
                rest = next;
            }
        }
        let read = records.iter().map(|record| 4 + record.len() as u64).sum::<u64>();
        Batch { are_all: begin + read == end, records, untold }
    }

    /// These records, which were the first, are written, or cannot be.
    pub fn written(&self, records: &[Vec<u8>]) {
        let mut state = self.state();
        state.begin += records.iter().map(|record| 4 + record.len() as u64).sum::<u64>();
        state.waiting = state.waiting.saturating_sub(records.len() as u64);
        if state.begin == state.end && self.file.set_len(HEADER).is_ok() {
            (state.begin, state.end) = (HEADER, HEADER);
        } else {
            // The memory of what was written is given back; positions in the file only grow.
            let done = (HEADER as i64, (state.begin - HEADER) as i64);
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let _ = fallocate(&self.file, hole, done.0, done.1);
        }
        let _ = self.note(&state);
        if state.begin == state.end {
            self.emptied.notify_all();
        }
    }

    /// The journal was told of these drops.
    pub fn told(&self, dropped: Dropped) {
        let mut state = self.state();
        for (untold, told) in state.untold.iter_mut().zip(dropped) {
            *untold -= told;
        }
        let _ = self.note(&state);
    }

    /// Waits until all is written, but not longer than this.
    pub fn flush(&self, limit: Duration) {
        let state = self.state();
        drop(self.emptied.wait_timeout_while(state, limit, |state| state.begin != state.end));
    }

    fn record_at(&self, at: u64) -> Option<u64> {
        let mut length = [0; 4];
        self.file.read_exact_at(&mut length, at).ok()?;
        let length = u64::from(u32::from_le_bytes(length));
        let whole = self.file.metadata().is_ok_and(|file| at + 4 + length <= file.len());
        (whole && length as usize <= RECORD_MAX).then_some(length)
    }

    fn note(&self, state: &State) -> io::Result<()> {
        let [grants, refusals, faults] = state.untold;
        let numbers = [MAGIC, state.begin, grants, refusals, faults];
        self.file.write_all_at(&numbers.map(u64::to_le_bytes).concat(), 0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front(queue: &Queue) -> Vec<Vec<u8>> {
        queue.front(100).records
    }

    #[test]
    fn records_come_out_in_their_order_and_leave_no_room_taken() {
        let queue = Queue::new().unwrap();
        for number in 0..1000 {
            queue.push(Class::Grant, format!("{number}").as_bytes());
        }
        for number in 0..10 {
            let records = front(&queue);
            assert_eq!(records[0], format!("{}", number * 100).into_bytes());
            queue.written(&records);
        }
        assert_eq!(queue.counts(), (0, [0; 3]));
        assert_eq!(queue.file.metadata().unwrap().len(), HEADER);
    }

    #[test]
    fn what_was_not_written_is_found_by_the_next_instance() {
        let queue = Queue::new().unwrap();
        queue.push(Class::Fault, b"written");
        let batch = front(&queue);
        queue.push(Class::Refusal, b"left");
        queue.written(&batch);
        queue.push(Class::Grant, &[0; RECORD_MAX + 1]);
        // Death in mid-write.
        queue.file.write_all_at(&[9, 0, 0, 0, b'c', b'u', b't'], queue.state().end).unwrap();
        let next = Queue::found(queue.file.try_clone().unwrap()).unwrap();
        assert_eq!(next.counts(), (1, [1, 0, 0]));
        assert_eq!(front(&next), [b"left"]);
        next.push(Class::Fault, b"new");
        assert_eq!(front(&next), [&b"left"[..], b"new"]);
        assert!(Queue::found(File::from(memfd_create("other", MFdFlags::empty()).unwrap())).is_none());
    }

    #[test]
    fn when_there_is_no_room_grants_go_first_and_faults_last() {
        let queue = Queue::new().unwrap();
        let record = vec![b'x'; 1 << 10];
        let mut kept = [0; 3];
        for (class, count) in [(Class::Grant, 3000), (Class::Refusal, 2000), (Class::Fault, 2000)] {
            for _ in 0..count {
                queue.push(class, &record);
            }
            kept[class as usize] = count - queue.counts().1[class as usize];
        }
        assert!(kept[0] > 2000 && kept[1] > 1000 && kept[2] > 1000, "{kept:?}");
        assert_eq!(queue.counts().0, kept.iter().sum::<u64>());
        let dropped = queue.counts().1;
        assert_eq!(queue.front(1).untold, dropped);
        queue.told(dropped);
        assert_eq!(queue.front(1).untold, [0; 3]);
    }
}
