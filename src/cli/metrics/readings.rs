//! What the metrics are now. Pure: from what was asked and looked at.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::family::Family;
use crate::cli::doctor::finding::{self, Finding, Level};
use crate::cli::status::files::{Look, Mirror};
use crate::control::counts::{Counts, Durations};
use crate::control::interface::{Health, State, Status};
use crate::mirror::report::Report;

const PROVIDER_STATES: [(&str, Health); 4] =
    [("up", Health::Up), ("down", Health::Down), ("spent", Health::Spent), ("limited", Health::Limited)];

/// What there is to read.
#[derive(Default)]
pub struct Seen {
    /// `None`: the service does not answer.
    pub status: Option<Status>,
    /// `None`: it does not answer, or is an older one.
    pub counts: Option<Counts>,
    pub mirror: Mirror,
    /// How the files of the status are, in their order.
    pub looks: Vec<Look>,
    /// `None`: nobody looked.
    pub findings: Option<Vec<Finding>>,
}

/// The value of a metric.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Number(u64),
    /// With how many each bucket has that are not in the one before.
    Histogram {
        sum: f64,
        count: u64,
        buckets: Vec<(f64, u64)>,
    },
}

/// Each metric with the values of its labels, in the order of its family's.
#[derive(Debug, Default)]
pub struct Readings(pub BTreeMap<Family, Vec<(Vec<String>, Value)>>);

impl Readings {
    pub fn of(seen: &Seen, now: SystemTime) -> Self {
        let mut readings = Self::default();
        readings.is(Family::Up, seen.status.is_some());
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        readings.set(Family::Collected, now);
        if let Some(status) = &seen.status {
            readings.service(status);
            readings.provider(status);
            readings.secrets(status);
            readings.files(status, &seen.looks);
        }
        seen.counts.iter().for_each(|counts| readings.counts(counts));
        readings.mirror(&seen.mirror);
        seen.findings.iter().for_each(|findings| readings.findings(findings));
        readings
    }

    fn put(&mut self, family: Family, labels: &[&str], value: Value) {
        debug_assert_eq!(labels.len(), family.labels().len(), "{family:?}");
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        self.0.entry(family).or_default().push((labels, value));
    }

    fn with(&mut self, family: Family, labels: &[&str], number: u64) {
        self.put(family, labels, Value::Number(number));
    }

    fn set(&mut self, family: Family, number: u64) {
        self.with(family, &[], number);
    }

    fn maybe(&mut self, family: Family, number: Option<u64>) {
        number.into_iter().for_each(|number| self.set(family, number));
    }

    fn is(&mut self, family: Family, so: bool) {
        self.set(family, so.into());
    }

    fn service(&mut self, status: &Status) {
        self.with(Family::Build, &[&status.version], 1);
        self.set(Family::Waiting, status.waiting);
        let mut refused: BTreeMap<&str, u64> = BTreeMap::new();
        for refusal in &status.refusals {
            *refused.entry(&refusal.check).or_default() += 1;
        }
        for reason in crate::counters::REASONS {
            let is_other = |check: &&str| !crate::counters::REASONS.contains(check);
            let of = |check: &str| refused.get(check).copied().unwrap_or(0);
            let others = refused.keys().copied().filter(is_other).map(of).sum::<u64>();
            self.with(Family::RefusedNow, &[reason], of(reason) + if reason == "other" { others } else { 0 });
        }
        self.set(Family::Missed, status.missed.len() as u64);
        self.is(Family::CacheSealed, status.cache.sealed);
        self.with(Family::CacheValues, &["memory"], status.cache.in_memory);
        self.with(Family::CacheValues, &["sealable"], status.cache.sealable);
        if let Some(on_disk) = status.cache.on_disk {
            self.with(Family::CacheValues, &["disk"], on_disk);
        }
        self.maybe(Family::CacheWritten, status.cache.written_at);
        self.is(Family::CacheWritable, status.cache.unwritable_since.is_none());
        self.is(Family::ConfigurationValid, status.faults.is_none() && status.obstacle.is_none());
        self.is(Family::ConfigurationCurrent, status.faults.is_none() && status.rejected.is_none());
        self.maybe(Family::ConfigurationLoaded, status.configured_at);
        self.is(Family::TokenCurrent, status.bad_token.is_none());
        self.set(Family::RecordsQueued, status.records.queued);
        self.set(Family::RecordsDropped, status.records.dropped);
    }

    fn provider(&mut self, status: &Status) {
        for (name, window) in [("hour", &status.budget.hour), ("day", &status.budget.day)] {
            self.with(Family::Used, &[name], window.used);
            if let Some(limit) = window.limit {
                self.with(Family::Limit, &[name], limit);
            }
        }
        self.maybe(Family::LimitedUntil, status.budget.limited_until);
        let Some(provider) = &status.provider else { return };
        self.with(Family::ProviderKind, &[&provider.kind], 1);
        // What it was last asked may be long ago; a token that is no good shows without asking.
        self.is(Family::ProviderUp, provider.health == Health::Up && provider.token_error.is_none());
        for (name, state) in PROVIDER_STATES {
            self.with(Family::ProviderState, &[name], (provider.health == state).into());
        }
        if let Some(kind) = &provider.error_kind {
            self.with(Family::ProviderError, &[kind], 1);
        }
        self.maybe(Family::ProviderDown, provider.down_since);
        self.maybe(Family::NextRefresh, provider.next_refresh);
    }

    fn secrets(&mut self, status: &Status) {
        for secret in &status.secrets {
            let name = &[secret.name.as_str()];
            if let Some(ready) = secret.ready {
                self.with(Family::Available, name, ready.into());
            }
            if let Some(needed) = secret.needed {
                self.with(Family::Needed, name, needed.into());
            }
            if let Some(age) = secret.age {
                self.with(Family::Age, name, age);
            }
            let state = match secret.state {
                State::Fresh => "fresh",
                State::Stale => "stale",
                State::Kept => "kept",
                State::Missing => "missing",
                State::Refused => "refused",
            };
            self.with(Family::SecretState, &[&secret.name, state], 1);
        }
    }

    fn files(&mut self, status: &Status, looks: &[Look]) {
        let mut states: BTreeMap<&str, u64> =
            ["in_place", "differs", "missing", "left_out", "unknown"].map(|state| (state, 0)).into();
        for (file, look) in status.files.iter().zip(looks) {
            let state = match look {
                Look::Fine(_) => "in_place",
                Look::Other(_) => "differs",
                Look::Missing if file.optional => "left_out",
                Look::Missing => "missing",
                Look::Unknown(_) => "unknown",
            };
            *states.entry(state).or_default() += 1;
        }
        states.into_iter().for_each(|(state, count)| self.with(Family::Files, &[state], count));
    }

    /// Of one that does not run nothing is told that it wrote before.
    fn mirror(&mut self, mirror: &Mirror) {
        let report: &Report = match mirror {
            Mirror::Unknown => return,
            Mirror::Down(_) => return self.is(Family::MirrorUp, false),
            Mirror::Up(None) => return self.is(Family::MirrorUp, true),
            Mirror::Up(Some(report)) => report,
        };
        self.is(Family::MirrorUp, true);
        self.set(Family::FilesStuck, report.stuck.len() as u64);
        self.set(Family::NotTold, report.failures.len() as u64);
        self.is(Family::MirrorCurrent, report.faults.is_none());
    }

    fn counts(&mut self, counts: &Counts) {
        self.set(Family::Started, counts.since);
        for served in &counts.served {
            self.with(Family::Served, &[&served.client, &served.kind], served.count);
        }
        for refused in &counts.refused {
            self.with(Family::Refused, &[&refused.client, &refused.kind], refused.count);
        }
        self.set(Family::Abandoned, counts.abandoned);
        self.set(Family::Held, counts.held);
        for durations in &counts.durations {
            self.put(Family::Took, &[&durations.outcome], histogram(durations));
        }
        // What never happened is left out, but not that nothing succeeded: there are some hundred kinds.
        let is_told = |count: u64, result: &str| count > 0 || result == "ok";
        for call in counts.calls.iter().filter(|call| is_told(call.count, &call.result)) {
            self.with(Family::Calls, &[&call.call, &call.result], call.count);
        }
        for values in counts.values.iter().filter(|values| is_told(values.count, &values.kind)) {
            self.with(Family::Values, &[&values.kind], values.count);
        }
        self.set(Family::Requests, counts.requests);
        self.maybe(Family::ProviderAnswered, counts.answered_at);
    }

    /// Each kind, so that one that is not found is told from one that is not looked for: where something could not be looked at, what
    /// is not found is left out.
    fn findings(&mut self, findings: &[Finding]) {
        let unseen = findings.iter().filter(|finding| finding.level == Level::Unseen).count() as u64;
        let count = |id: &str, level: Level| {
            findings.iter().filter(|finding| finding.id == id && finding.level == level).count() as u64
        };
        for kind in finding::Kind::ALL {
            for (name, level) in [("fault", Level::Fault), ("warning", Level::Warning)] {
                let count = count(kind.id(), level);
                if count > 0 || unseen == 0 {
                    self.with(Family::Findings, &[kind.id(), name], count);
                }
            }
        }
        self.set(Family::Unseen, unseen);
    }
}

fn histogram(durations: &Durations) -> Value {
    let mut buckets: Vec<(f64, u64)> =
        durations.buckets.iter().map(|bucket| (bucket.limit as f64 / 1e3, bucket.count)).collect();
    buckets.push((f64::INFINITY, durations.longer));
    let count = buckets.iter().map(|(_, count)| count).sum();
    Value::Histogram { sum: durations.microseconds as f64 / 1e6, count, buckets }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> Status {
        serde_json::from_value(json!({
            "version": "0.1.0", "waiting": 2,
            "provider": {"kind": "connect", "health": "down", "down_since": 7, "error_kind": "untrusted"},
            "cache": {"sealed": false, "in_memory": 1, "sealable": 0},
            "budget": {"hour": {"used": 1}, "day": {"used": 2, "left": 3, "limit": 5}},
            "secrets": [{"name": "a", "state": "kept", "age": 9}],
            "refusals": [{"unit": "u", "credential": "c", "at": 1, "times": 1, "check": "new-in-a-later-one", "reason": ""}],
            "files": [
                {"secret": "a", "credential": "m", "path": "/x", "owner": "root", "mode": "0400", "symlinks": [], "optional": true, "services": []},
                {"secret": "a", "credential": "n", "path": "/y", "owner": "root", "mode": "0400", "symlinks": [], "optional": false, "services": []},
            ],
        }))
        .unwrap()
    }

    fn number(readings: &Readings, family: Family, labels: &[&str]) -> Option<u64> {
        let metrics = readings.0.get(&family)?;
        metrics.iter().find_map(|(of, value)| match value {
            Value::Number(number) if of == labels => Some(*number),
            _ => None,
        })
    }

    /// An older service tells neither counts nor which secrets would be served: nothing is made up for it.
    #[test]
    fn of_an_older_service_what_it_does_not_tell_is_left_out() {
        let seen =
            Seen { status: Some(status()), looks: vec![Look::Missing, Look::Missing], ..Seen::default() };
        let readings = Readings::of(&seen, SystemTime::UNIX_EPOCH);
        for family in [
            Family::Served,
            Family::Took,
            Family::Started,
            Family::Available,
            Family::MirrorUp,
            Family::Findings,
        ] {
            assert!(!readings.0.contains_key(&family), "{family:?}");
        }
        for (family, labels, expected) in [
            (Family::Up, &[][..], 1),
            (Family::Waiting, &[], 2),
            (Family::ProviderUp, &[], 0),
            (Family::ProviderState, &["down"], 1),
            (Family::ProviderState, &["up"], 0),
            (Family::ProviderError, &["untrusted"], 1),
            (Family::Limit, &["day"], 5),
            (Family::SecretState, &["a", "kept"], 1),
            (Family::RefusedNow, &["other"], 1),
            (Family::Files, &["left_out"], 1),
            (Family::Files, &["missing"], 1),
        ] {
            assert_eq!(number(&readings, family, labels), Some(expected), "{family:?} {labels:?}");
        }
        assert_eq!(number(&readings, Family::Limit, &["hour"]), None);
        assert!(readings.exposition().is_ok());
    }

    #[test]
    fn what_a_mirror_wrote_that_does_not_run_any_more_is_not_told() {
        let report = Report { failures: vec!["systemctl reload x failed".into()], ..Report::default() };
        let of = |mirror| Readings::of(&Seen { mirror, ..Seen::default() }, SystemTime::UNIX_EPOCH);
        let up = of(Mirror::Up(Some(report)));
        assert_eq!(
            (number(&up, Family::MirrorUp, &[]), number(&up, Family::NotTold, &[])),
            (Some(1), Some(1))
        );
        let down = of(Mirror::Down("failed".into()));
        assert_eq!(
            (number(&down, Family::MirrorUp, &[]), number(&down, Family::NotTold, &[])),
            (Some(0), None)
        );
        assert_eq!(number(&down, Family::Up, &[]), Some(0));
    }
}
