//! A disk that remembers every write and every flush, in their order: a file that this process serves by FUSE, for a loop
//! device to be made of. What a power cut leaves of it is known exactly: what was flushed, and any of what was written since.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use nix::libc::{EAGAIN, ENOSYS};
use nix::mount::{MsFlags, mount};

/// At most so many bytes come with one write.
const WRITE_MAX: u32 = 128 << 10;
const HEADER: usize = 40;
/// Of `linux/fuse.h`.
mod operation {
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const INTERRUPT: u32 = 36;
    pub const BATCH_FORGET: u32 = 42;
}
const VERSION: (u32, u32) = (7, 31);
const BIG_WRITES: u32 = 1 << 5;
/// Every read and write comes here at once.
const DIRECT_IO: u32 = 1 << 0;

#[derive(Clone)]
pub enum Event {
    Write {
        at: u64,
        bytes: Vec<u8>,
    },
    /// All that was written before is on disk.
    Flush,
    /// Somebody was promised that this number is on disk.
    Acknowledged(u64),
}

#[derive(Clone)]
pub struct Disk(Arc<Mutex<Content>>);

struct Content {
    bytes: Vec<u8>,
    events: Vec<Event>,
}

impl Disk {
    /// With this content at first; it is at `path` until that is unmounted, or this process ends.
    pub fn serve(bytes: Vec<u8>, path: &Path) -> Self {
        File::create(path).expect("where the disk is to be");
        let fuse = File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
        let options = format!("fd={},rootmode=100600,user_id=0,group_id=0", fuse.as_raw_fd());
        mount(Some("disk"), path, Some("fuse"), MsFlags::empty(), Some(options.as_str()))
            .expect("a file of FUSE");
        let disk = Self(Arc::new(Mutex::new(Content { bytes, events: Vec::new() })));
        let served = disk.clone();
        thread::spawn(move || served.answer_all(fuse));
        disk
    }

    pub fn acknowledge(&self, number: u64) {
        self.content().events.push(Event::Acknowledged(number));
    }

    /// What has happened so far.
    pub fn events(&self) -> Vec<Event> {
        self.content().events.clone()
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().expect("nobody panics with it")
    }

    fn answer_all(&self, mut fuse: File) {
        let mut buffer = vec![0; WRITE_MAX as usize + (8 << 10)];
        loop {
            let length = match fuse.read(&mut buffer) {
                Ok(length) => length,
                // A request was taken back.
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::NotFound) => {
                    continue;
                }
                Err(error) if error.raw_os_error() == Some(EAGAIN) => continue,
                // It is unmounted.
                Err(_) => return,
            };
            let request = &buffer[..length];
            let Some(answer) = self.answer(request) else { continue };
            let (error, body) = answer.map_or_else(|error| (-error, Vec::new()), |body| (0, body));
            let length = u32::try_from(16 + body.len()).expect("a short answer");
            let head = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &request[8..16]].concat();
            let _ = fuse.write(&[head, body].concat());
        }
    }

    /// `None` for what has no answer.
    fn answer(&self, request: &[u8]) -> Option<Result<Vec<u8>, i32>> {
        let small = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().expect("four bytes"));
        let large = |at: usize| {
            let number = u64::from_ne_bytes(request[at..at + 8].try_into().expect("eight bytes"));
            usize::try_from(number).expect("as large as memory at most")
        };
        let mut content = self.content();
        Some(Ok(match small(4) {
            operation::FORGET | operation::INTERRUPT | operation::BATCH_FORGET => return None,
            operation::INIT => {
                let mut body = [VERSION.0, VERSION.1, WRITE_MAX, BIG_WRITES, 0, WRITE_MAX, 1]
                    .map(u32::to_ne_bytes)
                    .concat();
                body.resize(64, 0);
                body
            }
            operation::GETATTR => attributes(content.bytes.len()),
            operation::OPEN => [0, 0, DIRECT_IO, 0].map(u32::to_ne_bytes).concat(),
            operation::READ => {
                let start = large(HEADER + 8).min(content.bytes.len());
                let end = (start + small(HEADER + 16) as usize).min(content.bytes.len());
                content.bytes[start..end].to_vec()
            }
            operation::WRITE => {
                let (at, size) = (large(HEADER + 8), small(HEADER + 16));
                let bytes = request[HEADER + 40..][..size as usize].to_vec();
                content.bytes[at..at + bytes.len()].copy_from_slice(&bytes);
                content.events.push(Event::Write { at: at as u64, bytes });
                [size, 0].map(u32::to_ne_bytes).concat()
            }
            operation::FSYNC => {
                content.events.push(Event::Flush);
                Vec::new()
            }
            operation::FLUSH | operation::RELEASE => Vec::new(),
            _ => return Some(Err(ENOSYS)),
        }))
    }
}

/// Of a file that this user alone reads and writes.
fn attributes(size: usize) -> Vec<u8> {
    let size = size as u64;
    // How long they hold; then the number of the file, its size, its blocks, and three times.
    let head = [0, 0, 1, size, size.div_ceil(512), 0, 0, 0].map(u64::to_ne_bytes).concat();
    let tail = [0, 0, 0, 0o100_600, 1, 0, 0, 0, 4096, 0].map(u32::to_ne_bytes).concat();
    [head, tail].concat()
}
