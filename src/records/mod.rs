//! The record: who asked for what, and what became of it; never with a value in it.
//!
//! A record is queued and nobody waits for it: units start although the journal is down. Those that are about a request say
//! what has happened: `granted` that a unit has its value, `refused` that it was decided. What had no room is counted, and
//! the count is on record ([`queue`], [`writer`]).
//!
//! Each kind has its own MESSAGE_ID, explained in `systemd/opnix.catalog` (`journalctl -x`).

mod entry;
mod queue;
mod repeats;
mod writer;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::os::linux::fs::MetadataExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber, info, warn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

pub use self::queue::Dropped;
use self::queue::{Class, Queue};
use self::repeats::Repeats;
use self::writer::Target;
use crate::peer::{Claim, Stranger};
use crate::policy::Grant;

pub const GRANTED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c01";
pub const REFUSED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c02";
pub const ABANDONED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c03";
pub const STOOD_IN: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c09";
pub const WAITS: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c0e";
pub const DROPPED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c0f";
pub const LEFT_BEHIND: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c10";
pub const HELD: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c11";
pub const CLOSED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c12";

/// The name of the queue in systemd's descriptor store.
pub const STORED_AS: &str = "records";
/// The targets of events that are about requests. All others are faults, or news, of the service.
const GRANT: &str = "grant";
const REFUSAL: &str = "refusal";

/// How many refusals of one kind a unit has on record in a minute, before the rest is counted: far more than starts that
/// fail make.
const OF_A_UNIT: u64 = 1000;
/// The same of peers that are no units.
const OF_OTHERS: u64 = 1;
/// How long the last records have to be written when a process ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();
static REPEATS: Mutex<Option<Repeats>> = Mutex::new(None);

/// From here on all that is told with `tracing` is on record: in the journal with its fields where standard error is the
/// journal, else as text. `found` is what an earlier instance left.
pub fn init(found: Option<File>) -> io::Result<()> {
    let left = found.and_then(Queue::found);
    let count = left.as_ref().map_or(0, |queue| queue.counts().0);
    let queue = Arc::new(left.map_or_else(Queue::new, Ok)?);
    let target = if stderr_is_the_journal() { Target::journal().ok() } else { None };
    let registry = tracing_subscriber::registry().with(LevelFilter::INFO);
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
            message_id = LEFT_BEHIND,
            opnix_records = count,
            "found {count} records that the last instance could not write; they stand before this one"
        );
    }
    Ok(())
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
        queue.flush(LAST_WORDS);
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

/// The unit has its value.
pub fn granted(grant: &Grant) {
    let (peer, entry) = (grant.peer(), grant.entry());
    info!(
        target: GRANT,
        message_id = GRANTED,
        opnix_unit = %peer.unit,
        opnix_credential = %peer.credential,
        opnix_secret = entry.name,
        opnix_peer_pid = peer.pid,
        "granted credential \"{}\" to unit {}",
        peer.credential,
        peer.unit,
    );
}

/// The value is not at hand: the unit waits for it.
pub fn waits(claim: &Claim) {
    info!(
        target: GRANT,
        message_id = WAITS,
        opnix_unit = %claim.unit,
        opnix_credential = %claim.credential,
        "{claim} is being fetched",
    );
}

/// An older value stood in for the one that 1Password could not be asked for.
pub fn stood_in(claim: &Claim, caveat: &(dyn std::fmt::Display + Sync)) {
    warn!(
        message_id = STOOD_IN,
        opnix_unit = %claim.unit,
        opnix_credential = %claim.credential,
        opnix_reason = %caveat,
        "served {claim} from the cache: {caveat}",
    );
}

/// The peer hung up before it had its answer: its start was cancelled or ran into its own time limit.
pub fn abandoned(claim: Option<&Claim>) {
    let what = claim.map_or_else(|| "a request".to_owned(), Claim::to_string);
    info!(
        target: GRANT,
        message_id = ABANDONED,
        opnix_unit = claim.map(|claim| tracing::field::display(&claim.unit)),
        opnix_credential = claim.map(|claim| tracing::field::display(&claim.credential)),
        "nobody waits any more for {what}: the peer hung up",
    );
}

/// Of a unit. `check` is the step that said no, in one word; `reason` is for people.
pub fn refused(claim: &Claim, check: &'static str, reason: &(dyn std::fmt::Display + Sync)) {
    if is_told(claim.unit.as_str(), check, OF_A_UNIT) {
        tell_refusal(Some(claim), check, reason);
    }
}

/// Of a peer that is not the unit that it claims to be, and sits in `group`.
pub fn refused_pretender(
    claim: Option<&Claim>,
    group: &str,
    check: &'static str,
    reason: &(dyn std::fmt::Display + Sync),
) {
    if is_told(group, check, OF_OTHERS) {
        tell_refusal(claim, check, reason);
    }
}

fn tell_refusal(claim: Option<&Claim>, check: &'static str, reason: &(dyn std::fmt::Display + Sync)) {
    let reason = one_line(reason);
    match claim {
        Some(claim) => warn!(
            target: REFUSAL,
            message_id = REFUSED,
            opnix_unit = %claim.unit,
            opnix_credential = %claim.credential,
            opnix_check = check,
            opnix_reason = reason,
            "refused {claim}: {reason}",
        ),
        None => warn!(
            target: REFUSAL,
            message_id = REFUSED,
            opnix_check = check,
            opnix_reason = reason,
            "refused a request: {reason}",
        ),
    }
}

/// A connection that is no start of a unit is held without an answer.
pub fn held(stranger: &Stranger) {
    if is_told(&stranger.group, "held", OF_OTHERS) {
        let advice = advice(&stranger.address);
        warn!(
            target: REFUSAL,
            message_id = HELD,
            opnix_group = stranger.group,
            "holds a connection from {} ({}), which is no start of a unit: it gets nothing, because it could take anything, \
             even the end of the connection, for its secret; {advice}",
            stranger.group,
            stranger.address,
        );
    }
}

/// What such a client usually is, and what to write instead.
fn advice(address: &str) -> &'static str {
    if address.contains("/cryptsetup/") {
        "it looks like the key field of a crypttab: take the socket out of it, and give the credential to \
         systemd-cryptsetup@VOLUME.service (LoadCredential=cryptsetup.passphrase:/run/opnix/creds.sock)"
    } else {
        "if it is systemd-nspawn --load-credential=ID:PATH, give the credential to the unit that starts the container \
         (LoadCredential=ID:/run/opnix/creds.sock), and pass it on by name: --load-credential=ID:ID"
    }
}

/// A connection was closed without a whole answer.
pub fn closed(claim: Option<&Claim>, group: &str, reason: &(dyn std::fmt::Display + Sync)) {
    if is_told(group, "closed", OF_OTHERS) {
        let what =
            claim.map_or_else(|| "a connection".to_owned(), |claim| format!("the request for {claim}"));
        let reason = one_line(reason);
        warn!(
            target: REFUSAL,
            message_id = CLOSED,
            opnix_unit = claim.map(|claim| tracing::field::display(&claim.unit)),
            opnix_credential = claim.map(|claim| tracing::field::display(&claim.credential)),
            opnix_group = group,
            opnix_reason = reason,
            "closed {what}, which came from {group}: {reason}",
        );
    }
}

/// Whether one more of this kind is written now; if not, it is counted.
fn is_told(group: &str, kind: &'static str, most: u64) -> bool {
    let mut repeats = REPEATS.lock().unwrap_or_else(PoisonError::into_inner);
    // A unit has one name, which the kernel vouches for.
    repeats.get_or_insert_default().is_told(Instant::now(), group, kind, most, most == OF_OTHERS)
}

/// Tells what was counted and not written, each a minute after its first; at the `end`, all of it. To be called from time
/// to time.
pub fn tell_repeated(end: bool) {
    let mut repeats = REPEATS.lock().unwrap_or_else(PoisonError::into_inner);
    let due = repeats.as_mut().map(|repeats| repeats.due(Instant::now(), end));
    drop(repeats);
    for (group, kind, more) in due.into_iter().flatten() {
        warn!(
            target: REFUSAL,
            message_id = REFUSED,
            opnix_group = group,
            opnix_check = kind,
            opnix_repeated = more,
            "{more} more of the same within a minute: requests from {group} ({kind})",
        );
    }
}

fn one_line(text: &(dyn std::fmt::Display + Sync)) -> String {
    text.to_string().replace('\n', "; ")
}
