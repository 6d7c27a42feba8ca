//! The units of the chaos, what 1Password has for them at each time, and what is wrong with what they got.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::opnix::{set_up_with, stop};
use crate::simulators::account::{Account, FieldValue};
use crate::simulators::connect::{self, Connect};

const VAULT: &str = "Vault";
/// Younger than this, a value is served without asking.
const FRESH: Duration = Duration::from_secs(1);
/// Younger than this, it is served when 1Password cannot be asked.
const STALE: Duration = Duration::from_secs(3);
/// How much older a value may be than the settings say: what was read from 1Password may be on its way when its reader is
/// stopped.
const SLACK: Duration = Duration::from_millis(1500);
/// How often the field of an oversized text is in it.
const OVERSIZED: usize = 30;
/// How long a unit waits for 1Password before it is refused.
pub const DEADLINE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Kept on disk, and fresh for a second.
    Cached,
    /// Kept in memory.
    Memory,
    /// Asked for at each start.
    Cold,
    /// A text with two fields of one item.
    Template,
    /// More than a socket takes at once.
    Large,
    /// More than systemd takes: a text with one field many times.
    Oversized,
    /// Nobody says that it may have anything.
    Unmapped,
}

impl Kind {
    /// Each with how many units there are of it: sixty.
    pub const ALL: [(Kind, usize); 7] = [
        (Kind::Cached, 15),
        (Kind::Memory, 8),
        (Kind::Cold, 11),
        (Kind::Template, 11),
        (Kind::Large, 3),
        (Kind::Oversized, 6),
        (Kind::Unmapped, 6),
    ];

    pub fn starts(self) -> bool {
        !matches!(self, Kind::Oversized | Kind::Unmapped)
    }

    fn lines(self) -> usize {
        match self {
            Kind::Large => 10_000,
            Kind::Oversized => 2_000,
            _ => 60,
        }
    }

    /// How long after it was replaced a value may still be given to a unit that then starts.
    fn age_limit(self) -> Duration {
        if self == Kind::Cold { SLACK } else { STALE + SLACK }
    }
}

/// A unit, and what is known of its starts. Who holds this starts it.
pub struct Unit {
    pub kind: Kind,
    /// As in `cached-3`; the unit is `chaos@cached-3.service`.
    pub name: String,
    /// The newest version that it got.
    last: Mutex<usize>,
}

impl Unit {
    pub fn all() -> Vec<Unit> {
        let named = |kind: Kind, number| format!("{kind:?}-{number}").to_lowercase();
        let of = |(kind, count): (Kind, usize)| {
            (0..count).map(move |number| Unit { kind, name: named(kind, number), last: Mutex::new(0) })
        };
        Kind::ALL.into_iter().flat_map(of).collect()
    }

    pub fn service(&self) -> String {
        format!("chaos@{}.service", self.name)
    }

    /// `None`: somebody else starts it.
    pub fn claim(&self) -> Option<MutexGuard<'_, usize>> {
        self.last.try_lock().ok()
    }
}

/// What is wrong with what a unit got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    Empty,
    /// Cut off, or of several versions.
    Partial,
    /// Of another unit, or of one that may have nothing.
    Foreign,
    /// Whole, and more behind it.
    Double,
    /// Replaced for longer than the settings allow when the start began.
    TooOld,
    /// Older than what an earlier start got, of a unit whose value is asked for at each start.
    Older,
}

/// A version of a unit's value. Each line says whose it is, of which version, and its number.
fn value(name: &str, version: usize, lines: std::ops::Range<usize>) -> String {
    lines.map(|line| format!("{name} version {version} line {line}\n")).collect()
}

/// Unit and version of a line, if it is whole.
fn read_line(line: &[u8]) -> Option<(&str, usize)> {
    let words: Vec<&str> = std::str::from_utf8(line).ok()?.split(' ').collect();
    let [name, "version", version, "line", _] = words[..] else { return None };
    Some((name, version.parse().ok()?))
}

/// The version that a unit got. `put_in` says when 1Password had each version, `begun` when the start began, and `last` which
/// version an earlier start got.
pub fn judge(
    got: &[u8],
    kind: Kind,
    name: &str,
    put_in: &[Instant],
    begun: Instant,
    last: usize,
) -> Result<usize, Wrong> {
    if got.is_empty() {
        return Err(Wrong::Empty);
    }
    // What is left of a refusal.
    if got.iter().all(|byte| *byte == 0) {
        return Err(Wrong::Partial);
    }
    let is_foreign =
        |line: &[u8]| read_line(line).is_some_and(|(of, version)| of != name || version >= put_in.len());
    if !kind.starts() || got.split(|byte| *byte == b'\n').any(is_foreign) {
        return Err(Wrong::Foreign);
    }
    let first = got.split(|byte| *byte == b'\n').next().and_then(read_line);
    let version = first.ok_or(Wrong::Partial)?.1;
    match got.strip_prefix(value(name, version, 0..kind.lines()).as_bytes()) {
        None => return Err(Wrong::Partial),
        Some([]) => {}
        Some(_) => return Err(Wrong::Double),
    }
    let replaced = put_in.get(version + 1);
    if replaced.is_some_and(|replaced| begun.saturating_duration_since(*replaced) > kind.age_limit()) {
        return Err(Wrong::TooOld);
    }
    if version < last && kind == Kind::Cold { Err(Wrong::Older) } else { Ok(version) }
}

/// 1Password, and when it had which version for each unit.
pub struct Vault {
    pub simulator: Connect,
    put_in: Vec<Mutex<Vec<Instant>>>,
}

impl Vault {
    /// With the first version of everything, and opnix set up for it.
    pub fn set_up(machine: &Machine, units: &[Unit]) -> Vault {
        let mut account = Account::empty();
        for unit in units {
            let [head, tail] = fields(unit, 0).map(FieldValue::Concealed);
            account.add(VAULT, &unit.name, &[("head", head), ("tail", tail)]);
        }
        let simulator = Connect::start(machine.listen(), None, account);
        machine.write("/etc/opnix/token", connect::TOKEN, "0600");
        let vault =
            Vault { simulator, put_in: units.iter().map(|_| Mutex::new(vec![Instant::now()])).collect() };
        machine.unit(
            "chaos@.service",
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\nTimeoutStartSec=60\nStandardError=null\n\
             LoadCredential=key:/run/opnix/creds.sock\nExecStart=cp %d/key /run/chaos/%i\n",
        );
        machine.sh("rm -rf /run/chaos; mkdir /run/chaos").ok();
        set_up_with(machine, &vault.config(units));
        vault
    }

    fn config(&self, units: &[Unit]) -> Value {
        let of = |kinds: &[Kind], entry: &dyn Fn(&Unit) -> Value| -> Vec<Value> {
            let chosen = units.iter().filter(|unit| kinds.contains(&unit.kind));
            chosen
                .map(|unit| {
                    let mut entry = entry(unit);
                    entry["name"] = json!(unit.name);
                    entry["units"] = json!([{"unit": unit.service(), "credential": "key"}]);
                    entry["cache"] = json!(match unit.kind {
                        Kind::Cold => "never",
                        Kind::Memory => "memory",
                        _ => "sealed",
                    });
                    entry
                })
                .collect()
        };
        let field = |unit: &Unit, field| format!("op://{VAULT}/{}/{field}", unit.name);
        let secret = |unit: &Unit| json!({"reference": field(unit, "head")});
        let in_braces = |unit: &Unit, label| format!("{{{{ {} }}}}", field(unit, label));
        let template = |unit: &Unit| json!({"template": in_braces(unit, "head") + &in_braces(unit, "tail")});
        let oversized = |unit: &Unit| json!({"template": in_braces(unit, "head").repeat(OVERSIZED)});
        let templates = [of(&[Kind::Template], &template), of(&[Kind::Oversized], &oversized)].concat();
        let host = self.simulator.url();
        let seconds = |duration: Duration| format!("{}s", duration.as_secs());
        json!({
            "provider": {"kind": "connect", "host": host},
            "deadline": seconds(DEADLINE), "short_deadline": "300ms", "refresh": "5s",
            "fresh_for": seconds(FRESH), "stale_for": seconds(STALE),
            "secrets": of(&[Kind::Cached, Kind::Memory, Kind::Cold, Kind::Large], &secret),
            "templates": templates,
        })
    }

    /// Puts the next version in.
    pub fn change(&self, units: &[Unit], number: usize) {
        let unit = &units[number];
        let mut put_in = self.put_in(number);
        let [head, tail] = fields(unit, put_in.len());
        self.simulator.change(|account| {
            account.set(VAULT, &unit.name, "head", &head);
            account.set(VAULT, &unit.name, "tail", &tail);
        });
        put_in.push(Instant::now());
    }

    pub fn put_in(&self, number: usize) -> MutexGuard<'_, Vec<Instant>> {
        self.put_in[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value of a unit, or the two halves of a text.
fn fields(unit: &Unit, version: usize) -> [String; 2] {
    let lines = unit.kind.lines();
    let half = if unit.kind == Kind::Template { lines / 2 } else { lines };
    [value(&unit.name, version, 0..half), value(&unit.name, version, half..lines)]
}

pub fn tidy(machine: &Machine) {
    stop(machine);
    machine
        .sh("rm -rf /run/chaos /run/systemd/system/chaos@.service /run/systemd/system/opnix.service.d; \
             systemctl daemon-reload; systemctl reset-failed")
        .ok();
}

/// What judges must itself be known to see each wrong answer.
pub fn the_judge_tells_each_wrong_answer_from_a_right_one(_: &Machine) {
    let now = Instant::now();
    // Version 0 was there for a second, version 1 for a minute, and version 2 is there now.
    let put_in =
        [62, 61, 1].map(|seconds| now.checked_sub(Duration::from_secs(seconds)).expect("no new machine"));
    let whole = |name: &str, version| value(name, version, 0..Kind::Cached.lines()).into_bytes();
    let cached = |got: &[u8], last| judge(got, Kind::Cached, "cached-1", &put_in, now, last);
    let right = whole("cached-1", 2);

    assert_eq!(cached(&right, 2), Ok(2));
    assert_eq!(cached(&whole("cached-1", 1), 1), Ok(1), "replaced a moment ago");
    assert_eq!(cached(b"", 0), Err(Wrong::Empty));
    for length in [1, 9, right.len() / 2, right.len() - 1] {
        assert_eq!(cached(&right[..length], 0), Err(Wrong::Partial), "{length} bytes");
    }
    let lines: Vec<&[u8]> = right.split_inclusive(|byte| *byte == b'\n').collect();
    assert_eq!(cached(&lines[..7].concat(), 0), Err(Wrong::Partial), "whole lines");
    assert_eq!(cached(&lines[7..].concat(), 0), Err(Wrong::Partial), "without its beginning");
    assert_eq!(cached(&[&right[..100], &right[150..]].concat(), 0), Err(Wrong::Partial), "with a gap");
    assert_eq!(cached(&[0; 4096], 0), Err(Wrong::Partial), "of a refusal");
    let mixed = [&lines[..30].concat()[..], value("cached-1", 1, 30..60).as_bytes()].concat();
    assert_eq!(cached(&mixed, 0), Err(Wrong::Partial), "of two versions");
    assert_eq!(cached(&whole("cached-12", 2), 0), Err(Wrong::Foreign));
    assert_eq!(cached(&[&right[..], &whole("cold-1", 2)].concat(), 0), Err(Wrong::Foreign), "behind its own");
    assert_eq!(cached(&whole("cached-1", 3), 0), Err(Wrong::Foreign), "which nobody put in");
    assert_eq!(cached(&right.repeat(2), 0), Err(Wrong::Double));
    assert_eq!(cached(&[&right[..], &whole("cached-1", 1)].concat(), 0), Err(Wrong::Double));
    assert_eq!(cached(&[&right[..], b"c"].concat(), 0), Err(Wrong::Double), "a part of a second");
    assert_eq!(cached(&whole("cached-1", 0), 0), Err(Wrong::TooOld));
    assert_eq!(
        cached(&whole("cached-1", 1), 2),
        Ok(1),
        "what a death or a reload forgot is not there to be kept"
    );

    let later = now + STALE + SLACK;
    let judged = |kind: Kind, begun| {
        let name = format!("{kind:?}-1").to_lowercase();
        judge(&value(&name, 1, 0..kind.lines()).into_bytes(), kind, &name, &put_in, begun, 2)
    };
    assert_eq!(judged(Kind::Memory, later), Err(Wrong::TooOld));
    assert_eq!(judged(Kind::Cold, now + SLACK), Err(Wrong::TooOld), "it is asked for at each start");
    assert_eq!(judged(Kind::Cold, now), Err(Wrong::Older));
    assert_eq!(judged(Kind::Large, now), Ok(1));
    let cut_off = judge(&[0; 4096], Kind::Oversized, "oversized-1", &put_in, now, 0);
    assert_eq!(cut_off, Err(Wrong::Partial), "of the refusal of a unit that may have nothing");
    assert_eq!(judged(Kind::Unmapped, now), Err(Wrong::Foreign), "it may have nothing");
    assert_eq!(judged(Kind::Oversized, now), Err(Wrong::Foreign), "it is more than systemd takes");
    assert!(value("oversized-1", 0, 0..Kind::Oversized.lines()).len() * OVERSIZED > 1 << 20);
}
