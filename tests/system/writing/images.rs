//! Power cuts. The service writes to an ext4 whose disk remembers every write and flush ([`super::disk`]). So it is known
//! what a cut at any moment leaves: all that was flushed, and none, some or all of the sectors that were written since. Such
//! images are mounted and looked at; with some of them the service is started.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use super::disk::{Disk, Event};
use super::service::{Service, judge, refresh};
use crate::machine::Machine;

/// How often the value changes.
const WRITES: u64 = 40;
/// How many images are looked at, and with how many of them the service is started at least.
const IMAGES: usize = 200;
const STARTS: usize = 20;
const SIZE: u64 = 16 << 20;
const SECTOR: usize = 512;
/// A file that is renamed before it was flushed has no content for as long as possible.
const OPTIONS: &str = "loop,noauto_da_alloc";

pub fn an_image_of_the_disk_at_any_moment_has_the_old_or_the_new_cache(_: &Machine) {
    in_own_mounts(|directory| {
        let place = Place::new(directory);
        let first = place.format();
        let events = place.record(first.clone());
        let acknowledged = events.iter().filter(|event| matches!(event, Event::Acknowledged(_))).count();
        assert_eq!(acknowledged as u64, WRITES + 1);
        place.cut_everywhere(&first, events);
    });
}

/// In a directory, and in a thread, with which goes what is mounted.
fn in_own_mounts(work: impl FnOnce(PathBuf) + Send + 'static) {
    let directory = crate::daemon::new_directory("images");
    let place = directory.clone();
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("mounts of its own");
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect("private mounts");
        work(place);
    });
    let result = thread.join();
    let _ = fs::remove_dir(directory);
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// In memory.
struct Place {
    service: Service,
    directory: PathBuf,
}

impl Place {
    fn new(directory: PathBuf) -> Self {
        mount(Some("images"), &directory, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a tmpfs");
        let state = directory.join("state");
        fs::create_dir(&state).expect("where the disk is mounted");
        let service = Service::with_state(directory.join("service"), state);
        Self { service, directory }
    }

    /// A new ext4.
    fn format(&self) -> Vec<u8> {
        let path = self.directory.join("first");
        File::create(&path).and_then(|file| file.set_len(SIZE)).expect("an empty disk");
        let lazy = "lazy_itable_init=0,lazy_journal_init=0";
        run("mkfs.ext4", &["-q", "-E", lazy], &[&path]);
        let image = fs::read(&path).expect("the disk");
        fs::remove_file(path).expect("the disk");
        image
    }

    fn mount(&self, image: &Path) {
        run("mount", &["-t", "ext4", "-o", OPTIONS], &[image, &self.service.state]);
    }

    fn unmount(&self) {
        run("umount", &[], &[&self.service.state]);
    }

    /// What happens on the disk while the service writes again and again.
    fn record(&self, first: Vec<u8>) -> Vec<Event> {
        let path = self.directory.join("disk");
        let disk = Disk::serve(first, &path);
        self.mount(&path);
        let daemon = self.service.start_with(0);
        disk.acknowledge(0);
        let done = AtomicBool::new(false);
        let events = thread::scope(|scope| {
            scope.spawn(|| self.disturb(&done));
            for number in 1..=WRITES {
                self.service.set(number);
                let refreshed = refresh(&daemon);
                if refreshed.is_err() {
                    done.store(true, Ordering::Relaxed);
                }
                assert_eq!(refreshed, Ok(()));
                disk.acknowledge(number);
            }
            done.store(true, Ordering::Relaxed);
            disk.events()
        });
        drop(daemon);
        self.unmount();
        run("umount", &[], &[&path]);
        events
    }

    /// The file system commits what it has whenever anybody needs it, not just when the service does.
    fn disturb(&self, done: &AtomicBool) {
        let mut file = File::create(self.service.state.join("neighbour")).expect("a neighbour");
        while !done.load(Ordering::Relaxed) {
            file.write_all(b"more").and_then(|()| file.sync_all()).expect("the neighbour's line");
            thread::sleep(Duration::from_micros(rand::random_range(0..1000)));
        }
    }

    fn cut_everywhere(&self, first: &[u8], events: Vec<Event>) {
        let path = self.directory.join("flushed");
        fs::write(&path, first).expect("the disk");
        let flushed = File::options().write(true).open(&path).expect("the disk");
        let mut acknowledged = None;
        let mut distrusted = 0;
        // What was written since the last flush.
        let mut pending: Vec<(u64, Vec<u8>)> = Vec::new();
        let begin = events.iter().position(|event| matches!(event, Event::Acknowledged(_))).unwrap_or(0);
        let mut cuts = Cuts::among(begin, events.len());
        for (index, event) in events.into_iter().enumerate() {
            match event {
                Event::Write { at, bytes } => pending.push((at, bytes)),
                Event::Acknowledged(number) => acknowledged = Some(number),
                Event::Flush => {
                    pending.drain(..).for_each(|(at, bytes)| apply(&flushed, at, &bytes));
                }
            }
            let Some(number) = acknowledged else { continue };
            while let Some(with_service) = cuts.is_at(index) {
                let luck = [0.0, 0.5, 1.0][rand::random_range(0..3)];
                let image = self.directory.join("image");
                fs::copy(&path, &image).expect("an image");
                let file = File::options().write(true).open(&image).expect("an image");
                sectors(&pending)
                    .filter(|_| rand::random_bool(luck))
                    .for_each(|(at, bytes)| apply(&file, at, bytes));
                let which = format!("cut after {index}, {number} acknowledged, {luck} of {}", pending.len());
                distrusted += usize::from(self.look_at(&image, number, with_service, &which));
            }
        }
        assert!(distrusted > 0, "no cut came between the two files");
    }

    /// Whether its cache is not the one that the ledger names.
    fn look_at(&self, image: &Path, acknowledged: u64, with_service: bool, which: &str) -> bool {
        self.mount(image);
        let read = |name: &str| {
            let path = self.service.state.join(name);
            fs::read(path).unwrap_or_else(|why| panic!("{which}: no {name}: {why}"))
        };
        let (number, name) = judge(&read("cache")).unwrap_or_else(|why| panic!("{which}: {why}"));
        assert!(number == acknowledged || number == acknowledged + 1, "{which}: {number}");
        let ledger = read("requests.json");
        let ledger: Value = serde_json::from_slice(&ledger)
            .unwrap_or_else(|why| panic!("{which}: a ledger of {} bytes: {why}", ledger.len()));
        // The ledger is first: it can only name a newer one.
        let is_last = ledger["cache"] == name.as_str();
        assert!(is_last || number == acknowledged, "{which}: the ledger does not know {number}");
        if with_service || !is_last {
            self.service.lose_the_runtime();
            let (given, log) = self.service.start_from_the_cache();
            assert_eq!(given, number, "{which}: {log}");
            // What may be older than what was given does not pass for fresh.
            assert_eq!(log.contains("from the cache"), !is_last, "{which}: {log}");
        }
        self.unmount();
        !is_last
    }
}

/// At which events it is looked at what a cut leaves, and whether with the service.
struct Cuts(VecDeque<(usize, bool)>);

impl Cuts {
    fn among(begin: usize, end: usize) -> Self {
        let mut at: Vec<usize> = (0..IMAGES).map(|_| rand::random_range(begin..end)).collect();
        at.sort_unstable();
        Self(at.into_iter().enumerate().map(|(count, at)| (at, count % (IMAGES / STARTS) == 0)).collect())
    }

    fn is_at(&mut self, index: usize) -> Option<bool> {
        let (at, with_service) = *self.0.front()?;
        (at == index).then(|| {
            self.0.pop_front();
            with_service
        })
    }
}

/// A disk writes each of them whole or not at all.
fn sectors(writes: &[(u64, Vec<u8>)]) -> impl Iterator<Item = (u64, &[u8])> {
    writes.iter().flat_map(|(at, bytes)| (*at..).step_by(SECTOR).zip(bytes.chunks(SECTOR)))
}

fn apply(disk: &File, at: u64, bytes: &[u8]) {
    disk.write_all_at(bytes, at).expect("a write");
}

fn run(program: &str, options: &[&str], paths: &[&Path]) {
    let output = Command::new(program)
        .args(options)
        .args(paths)
        .env("PATH", crate::boot::SANE_PATH)
        .output()
        .unwrap_or_else(|why| panic!("{program}: {why}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}
