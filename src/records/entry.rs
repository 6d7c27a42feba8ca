//! One record in the journal's native form: fields with their values, as systemd.journal-fields(7) and the native
//! protocol of journald have them.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};

use super::id::{self, GRANT, REFUSAL};
use super::queue::{Class, Dropped, RECORD_MAX};
use crate::counted::counted;
use crate::scope;

/// The longest value of a field, in bytes: a longer one is cut, because the rest says nothing more.
const VALUE_MAX: usize = 8 << 10;
const IDENTIFIER: &str = "opnix";

/// What kind of record this is: those about requests say so by their target.
pub fn class(metadata: &Metadata<'_>) -> Class {
    match metadata.target() {
        GRANT => Class::Grant,
        REFUSAL => Class::Refusal,
        _ => Class::Fault,
    }
}

/// An event as a record.
pub fn of(event: &Event<'_>) -> Vec<u8> {
    let mut record = Record::new(match *event.metadata().level() {
        Level::ERROR => '3',
        Level::WARN => '4',
        Level::INFO => '6',
        Level::DEBUG | Level::TRACE => '7',
    });
    event.record(&mut record);
    record.0
}

/// A record that says that records were dropped.
pub fn dropped(dropped: Dropped) -> Vec<u8> {
    let mut record = Record::new('4');
    record.put("MESSAGE_ID", id::DROPPED);
    record.put("MESSAGE", &describe_dropped(dropped));
    let names = ["OPNIX_DROPPED_GRANTS", "OPNIX_DROPPED_REFUSALS", "OPNIX_DROPPED_FAULTS"];
    for (name, count) in names.iter().zip(dropped) {
        record.put(name, &count.to_string());
    }
    record.0
}

pub fn describe_dropped([grants, refusals, faults]: Dropped) -> String {
    format!(
        "missing here, because the journal took none: {}, {grants} of grants, {refusals} of refusals, {faults} others",
        counted(grants + refusals + faults, "record")
    )
}

struct Record(Vec<u8>);

impl Record {
    fn new(priority: char) -> Self {
        let mut record = Self(Vec::with_capacity(512));
        record.put("PRIORITY", priority.encode_utf8(&mut [0; 4]));
        record.put("SYSLOG_IDENTIFIER", IDENTIFIER);
        record
    }

    fn put(&mut self, name: &str, value: &str) {
        let mut end =
            value.len().min(VALUE_MAX).min(RECORD_MAX.saturating_sub(self.0.len() + name.len() + 16));
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        let value = &value.as_bytes()[..end];
        self.0.extend_from_slice(name.as_bytes());
        if value.contains(&b'\n') {
            self.0.push(b'\n');
            self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        let name = field.name().to_ascii_uppercase();
        let value = if name == "MESSAGE" { scope::commands(value) } else { value.into() };
        self.put(&name, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        if write!(text, "{value:?}").is_ok() {
            self.record_str(field, &text);
        }
    }
}
