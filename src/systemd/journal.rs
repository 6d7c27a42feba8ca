//! Where log records go: to the journal with their fields where it is at hand, else to standard error as text.

use std::io::IsTerminal;
use std::os::linux::fs::MetadataExt;

use tracing::level_filters::LevelFilter;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub fn init() {
    let registry = tracing_subscriber::registry().with(LevelFilter::INFO);
    if let Some(layer) = stderr_is_the_journal().then(tracing_journald::layer).and_then(Result::ok) {
        let priorities = PriorityMappings { info: Priority::Informational, ..PriorityMappings::new() };
        return registry.with(layer.with_field_prefix(None).with_priority_mappings(priorities)).init();
    }
    let text = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .fmt_fields(tracing_subscriber::fmt::format::debug_fn(|writer, field, value| match field.name() {
            "message" => write!(writer, "{value:?}"),
            _ => Ok(()),
        }));
    registry.with(text).init();
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
