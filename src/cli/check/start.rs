//! What becomes of a start, by the unit file and drop-ins: how long systemd lets it take, and whether it is tried again.

use std::time::Duration;

use crate::config::Fault;
use crate::names::UnitPattern;
use crate::remedy::Problem;
use crate::systemd::time_span;
use crate::systemd::unit_files::Effective;
use crate::systemd::unit_lines::Line;

/// `DefaultTimeoutStartSec=`, if the administrator has not changed it.
const DEFAULT: Duration = Duration::from_secs(90);

/// [`Duration::MAX`]: for ever.
pub fn limit(unit: &Effective) -> Duration {
    let (mut timeout, mut is_oneshot) = (None, false);
    for line in &unit.lines {
        match line.key.as_str() {
            // What systemd cannot read it ignores; and 0 means no limit.
            "TimeoutStartSec" | "TimeoutSec" => {
                let said = time_span::parse(&line.value);
                timeout = said.map(|time| if time.is_zero() { Duration::MAX } else { time }).or(timeout);
            }
            "Type" => is_oneshot = line.value == "oneshot",
            _ => {}
        }
    }
    timeout.unwrap_or(if is_oneshot { Duration::MAX } else { DEFAULT })
}

/// What keeps systemd from trying a start again that was refused, where it tries others again.
pub fn not_again(units: &UnitPattern, unit: &Effective) -> Option<Fault> {
    let lines = unit.in_effect();
    let of_it =
        |key: &'static str| lines.iter().filter(move |line| line.section == "Service" && line.key == key);
    let has =
        |line: &&&Line| line.value.split_whitespace().any(|word| ["243", "CREDENTIALS"].contains(&word));
    let is_rare = |line: &&&Line| ["on-abnormal", "on-abort", "on-watchdog"].contains(&line.value.as_str());
    let is_forced = of_it("RestartForceExitStatus").any(|line| has(&line));
    let restart = of_it("Restart").next_back().filter(|line| is_rare(line) && !is_forced);
    let line = of_it("RestartPreventExitStatus").find(has).or(restart)?;
    let what = format!(
        "with {}={} systemd does not try {units} again after a refusal (243): only opnix-mirror.service does",
        line.key, line.value
    );
    Some(Fault::new(&line.place, &Problem::new(what, "Restart=on-failure, with RestartSec=5s or more")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Place;

    fn limit_of(text: &str) -> Option<u64> {
        let line = |assignment: &str| {
            let (key, value) = assignment.split_once('=')?;
            let place = Place { file: std::path::Path::new("x").into(), position: None };
            Some(Line { section: "Service".into(), key: key.into(), value: value.into(), place })
        };
        let lines = text.split(' ').filter_map(line).collect();
        let limit = limit(&Effective { name: "a.service".into(), lines, ..Effective::default() });
        (limit < Duration::MAX).then_some(limit.as_secs())
    }

    #[test]
    fn the_last_assignment_counts() {
        assert_eq!(limit_of(""), Some(90));
        assert_eq!(limit_of("TimeoutStartSec=5 TimeoutSec=2min"), Some(120));
        assert_eq!(limit_of("TimeoutSec=2min TimeoutStartSec=5 TimeoutStartSec=soon"), Some(5));
        assert_eq!(limit_of("TimeoutStartSec=0"), None);
        assert_eq!(limit_of("TimeoutStartSec=infinity"), None);
        assert_eq!(limit_of("Type=oneshot"), None);
        assert_eq!(limit_of("Type=oneshot Type=exec"), Some(90));
        assert_eq!(limit_of("Type=oneshot TimeoutSec=7"), Some(7));
    }
}
