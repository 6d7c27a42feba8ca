//! How long systemd lets a unit start, by its unit file and drop-ins.

use std::time::Duration;

use crate::names::UnitPattern;
use crate::systemd::time_span;

/// `DefaultTimeoutStartSec=`, if the administrator has not changed it.
const DEFAULT: Duration = Duration::from_secs(90);

/// What all unit files and drop-ins say.
#[derive(Default)]
pub struct Starts(Vec<Said>);

/// What one of them says.
struct Said {
    units: UnitPattern,
    /// The name of the drop-in, by which they are sorted.
    drop_in: Option<String>,
    timeout: Option<Duration>,
    oneshot: Option<bool>,
}

impl Starts {
    /// `drop_in` is the file's name, unless it is the unit file itself.
    pub fn add<'a>(
        &mut self,
        units: &UnitPattern,
        drop_in: Option<&str>,
        assignments: impl Iterator<Item = (&'a str, &'a str)>,
    ) {
        let mut said =
            Said { units: units.clone(), drop_in: drop_in.map(str::to_owned), timeout: None, oneshot: None };
        for (key, value) in assignments {
            match key {
                // What systemd cannot read it ignores; and 0 means no limit.
                "TimeoutStartSec" | "TimeoutSec" => {
                    let timeout = time_span::parse(value);
                    let timeout = timeout.map(|time| if time.is_zero() { Duration::MAX } else { time });
                    said.timeout = timeout.or(said.timeout);
                }
                "Type" => said.oneshot = Some(value == "oneshot"),
                _ => {}
            }
        }
        self.0.push(said);
    }

    /// [`Duration::MAX`]: for ever.
    pub fn limit(&self, units: &UnitPattern) -> Duration {
        let template = match units {
            UnitPattern::Unit(unit) => unit.template().map(UnitPattern::Instances),
            UnitPattern::Instances(_) => None,
        };
        let of = |pattern: &UnitPattern| {
            self.0.iter().find(|said| said.drop_in.is_none() && said.units == *pattern)
        };
        let file = of(units).or_else(|| of(template.as_ref()?));
        let mut drop_ins: Vec<&Said> = self
            .0
            .iter()
            .filter(|said| said.drop_in.is_some())
            .filter(|said| said.units == *units || Some(&said.units) == template.as_ref())
            .collect();
        drop_ins.sort_by_key(|said| &said.drop_in);
        let last_first = || drop_ins.iter().copied().rev().chain(file);
        let oneshot = last_first().find_map(|said| said.oneshot).unwrap_or(false);
        let default = if oneshot { Duration::MAX } else { DEFAULT };
        last_first().find_map(|said| said.timeout).unwrap_or(default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(files: &[(&str, Option<&str>, &str)], unit: &str) -> Option<u64> {
        let mut starts = Starts::default();
        for (units, drop_in, text) in files {
            let assignments = text.split(' ').filter_map(|assignment| assignment.split_once('='));
            starts.add(&units.parse().unwrap(), *drop_in, assignments);
        }
        let limit = starts.limit(&unit.parse().unwrap());
        (limit < Duration::MAX).then_some(limit.as_secs())
    }

    #[test]
    fn the_last_assignment_counts() {
        let file = |text| limit(&[("a.service", None, text)], "a.service");
        assert_eq!(file(""), Some(90));
        assert_eq!(file("TimeoutStartSec=5 TimeoutSec=2min"), Some(120));
        assert_eq!(file("TimeoutSec=2min TimeoutStartSec=5 TimeoutStartSec=soon"), Some(5));
        assert_eq!(file("TimeoutStartSec=0"), None);
        assert_eq!(file("TimeoutStartSec=infinity"), None);
        assert_eq!(file("Type=oneshot"), None);
        assert_eq!(file("Type=oneshot Type=exec"), Some(90));
        assert_eq!(file("Type=oneshot TimeoutSec=7"), Some(7));
    }

    #[test]
    fn drop_ins_count_after_the_unit_file_in_the_order_of_their_names() {
        let files = [
            ("a@*.service", Some("50-b.conf"), "TimeoutStartSec=2"),
            ("a@x.service", Some("60-c.conf"), "TimeoutStartSec=3"),
            ("a@x.service", Some("10-a.conf"), "TimeoutStartSec=1"),
            ("a@*.service", None, "TimeoutStartSec=9 Type=oneshot"),
        ];
        assert_eq!(limit(&files, "a@x.service"), Some(3));
        assert_eq!(limit(&files, "a@y.service"), Some(2));
        assert_eq!(limit(&files, "a@*.service"), Some(2));
        assert_eq!(limit(&files[3..], "a@x.service"), Some(9));
        assert_eq!(limit(&[files[3], ("a@x.service", None, "")], "a@x.service"), Some(90));
        assert_eq!(limit(&files, "b.service"), Some(90));
    }
}
