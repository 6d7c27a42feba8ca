//! The record: who asked for what, and what became of it; never with a value in it.
//!
//! A record is queued and nobody waits for it: units start although the journal is down. A record about a request says
//! what has happened: `granted`, that a unit has its value; `refused`, that this was decided. Records that find no room
//! are counted, and the count is on record ([`queue`], [`writer`]).
//!
//! Each kind has its own MESSAGE_ID ([`id`]), explained in `systemd/opnix.catalog` (`journalctl -x`).

mod entry;
mod id;
mod queue;
mod repeats;
mod requests;
mod service;
mod units;
mod writer;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::os::linux::fs::MetadataExt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber, warn};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::counted::counted;

pub use self::queue::Dropped;
use self::queue::{Class, Queue};
pub use self::requests::*;
pub use self::service::*;
pub use self::units::*;
use self::writer::Target;

/// The name of the queue in systemd's descriptor store.
pub const STORED_AS: &str = "records";
/// How long the last records have to be written when a process ends.
const LAST_RECORDS: Duration = Duration::from_secs(2);

static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// From here on every event of `tracing` is on record: in the journal with its fields where standard error is the
/// journal, else as text. `found` is what an earlier instance left.
pub fn init(found: Option<File>) -> io::Result<()> {
    let left = found.and_then(Queue::found);
    let count = left.as_ref().map_or(0, |queue| queue.counts().0);
    let queue = Arc::new(left.map_or_else(Queue::new, Ok)?);
    let target = if stderr_is_the_journal() { Target::journal().ok() } else { None };
    let registry = tracing_subscriber::registry().with(LevelFilter::INFO).with(filter_fn(is_of_use));
    let ours = queue.clone();
    match &target {
        Some(_) => registry.with(ToJournal(ours)).init(),
        None => {
            let text = tracing_subscriber::fmt::layer()
                .with_writer(ToText(ours))
                .with_ansi(io::stderr().is_terminal())
                .with_target(false)
                .without_time()
                .fmt_fields(tracing_subscriber::fmt::format::debug_fn(|writer, field, value| {
                    match field.name() {
                        "message" => write!(writer, "{value:?}"),
                        _ => Ok(()),
                    }
                }));
            registry.with(text).init();
        }
    }
    std::thread::Builder::new().name("records".into()).spawn({
        let queue = queue.clone();
        move || writer::run(&queue, &target.unwrap_or(Target::Stderr))
    })?;
    let _ = QUEUE.set(queue);
    if count > 0 {
        warn!(
            message_id = id::LEFT_BEHIND,
            opnix_records = count,
            "what the last instance could not write stands before this one: {}",
            counted(count, "record")
        );
    }
    Ok(())
}

/// That a client of the control socket went away before it had its answer (`opnix status | head -1`) is nobody's trouble, and
/// zlink warns of it.
fn is_of_use(metadata: &Metadata<'_>) -> bool {
    *metadata.level() == Level::ERROR || !metadata.target().starts_with("zlink")
}

/// systemd names the device and inode of the journal's stream in `$JOURNAL_STREAM`; standard error may have been
/// redirected since.
fn stderr_is_the_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let stderr = std::fs::metadata("/proc/self/fd/2").ok();
    match (stream, stderr) {
        (Some(stream), Some(stderr)) => stream == format!("{}:{}", stderr.st_dev(), stderr.st_ino()),
        _ => false,
    }
}

/// The queue, for systemd's store: what is in it outlives us.
pub fn to_store() -> Option<(String, OwnedFd)> {
    let copy = QUEUE.get()?.file().try_clone().ok()?;
    Some((format!("FDSTORE=1\nFDNAME={STORED_AS}\nFDPOLL=0"), copy.into()))
}

/// How many records wait to be written, and how many were dropped.
pub fn counts() -> (u64, Dropped) {
    QUEUE.get().map(|queue| queue.counts()).unwrap_or_default()
}

/// Waits a while for the last records to be written.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(LAST_RECORDS);
    }
}

struct ToJournal(Arc<Queue>);

impl<S: Subscriber> Layer<S> for ToJournal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.0.push(entry::class(event.metadata()), &entry::of(event));
    }
}

struct ToText(Arc<Queue>);

struct Text<'a>(&'a Queue, Class);

impl<'a> MakeWriter<'a> for ToText {
    type Writer = Text<'a>;

    fn make_writer(&'a self) -> Text<'a> {
        Text(&self.0, Class::Fault)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Text<'a> {
        Text(&self.0, entry::class(metadata))
    }
}

impl io::Write for Text<'_> {
    /// An event comes in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(self.1, &line[..line.len().min(queue::RECORD_MAX)]);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
