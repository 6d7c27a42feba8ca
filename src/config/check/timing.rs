//! How long things may take, and how long values may be kept.

use std::path::Path;
use std::time::Duration;

use super::state::Check;
use super::values::duration;
use crate::config::decode::At;
use crate::config::file::{self, Common, File};
use crate::config::valid::Timing;
use crate::remedy::Problem;
use crate::store::decide::{Keep, Settings};
use crate::template::Template;

const DEADLINE_MAX: Duration = Duration::from_secs(60 * 60);
pub const TIMING: Timing = Timing {
    deadline: Duration::from_secs(30),
    short_deadline: Duration::from_secs(3),
    refresh: Some(Duration::from_secs(2 * 60 * 60)),
};
pub const SETTINGS: Settings = Settings {
    keep: Keep::Sealed,
    fresh_for: Duration::from_secs(15 * 60),
    stale_for: Duration::from_secs(7 * 24 * 60 * 60),
    always_fetch: false,
    grace: Duration::from_secs(60 * 60),
};

impl Check<'_> {
    pub(super) fn timing(&mut self, files: &[(&Path, File)]) -> Timing {
        let deadline = self.only_one("deadline", files, |file| &file.deadline);
        let short = self.only_one("short_deadline", files, |file| &file.short_deadline);
        let refresh = self.only_one("refresh", files, |file| &file.refresh);
        let whole = deadline.and_then(|(_, text)| self.valid(text, deadline_of)).unwrap_or(TIMING.deadline);
        let timing = Timing {
            deadline: whole,
            short_deadline: short
                .and_then(|(_, text)| self.valid(text, duration))
                .unwrap_or(TIMING.short_deadline.min(whole)),
            refresh: match refresh {
                Some((_, text)) => self.valid(text, interval).flatten(),
                None => polling(files).or(TIMING.refresh),
            },
        };
        if let Some((_, short)) = short
            && timing.short_deadline > timing.deadline
        {
            self.fault(&short.place, "the short deadline is longer than \"deadline\"", "shorten it");
        }
        timing
    }

    /// How the files say that all values are kept.
    pub(super) fn keeping_of_all(&mut self, files: &[(&Path, File)]) -> Settings {
        let keep = files.iter().rev().find_map(|(_, file)| file.cache).map_or(SETTINGS.keep, keep);
        let fresh_for = self.only_one("fresh_for", files, |file| &file.fresh_for).map(|(_, text)| text);
        let stale_for = self.only_one("stale_for", files, |file| &file.stale_for).map(|(_, text)| text);
        let grace = self.only_one("grace", files, |file| &file.grace).map(|(_, text)| text);
        let grace = grace.and_then(|text| self.valid(text, duration)).unwrap_or(SETTINGS.grace);
        let (fresh_for, stale_for) = self.ages(fresh_for, stale_for, &SETTINGS);
        Settings { keep, fresh_for, stale_for, grace, ..SETTINGS }
    }

    /// Notes how the values in a secret or template may be kept. Where two have the same reference, the stricter counts.
    pub(super) fn keep(&mut self, content: &Template, written: &Common) {
        let of_all = self.keeping;
        let (fresh_for, stale_for) =
            self.ages(written.fresh_for.as_ref(), written.stale_for.as_ref(), &of_all);
        let own = Settings {
            keep: written.cache.map_or(of_all.keep, keep),
            fresh_for,
            stale_for,
            always_fetch: written.always_fetch.unwrap_or(of_all.always_fetch),
            grace: of_all.grace,
        };
        for reference in content.references() {
            let keep = if reference.is_momentary() { Keep::Never } else { own.keep };
            let settings = Settings { keep, ..own };
            self.settings
                .entry(reference.clone())
                .and_modify(|other| *other = other.strictest(settings))
                .or_insert(settings);
        }
    }

    /// How long a value is fresh, and how long it is good enough. If only one of them is written, the other follows it
    /// as far as it must.
    fn ages(
        &mut self,
        fresh_for: Option<&At<String>>,
        stale_for: Option<&At<String>>,
        defaults: &Settings,
    ) -> (Duration, Duration) {
        let fresh = fresh_for.and_then(|text| self.valid(text, duration));
        let stale = stale_for.and_then(|text| self.valid(text, duration));
        match (fresh, stale) {
            (Some(fresh), Some(stale)) => {
                if let (true, Some(written)) = (fresh > stale, fresh_for) {
                    self.fault(
                        &written.place,
                        "\"fresh_for\" is longer than \"stale_for\"",
                        "a value cannot be fresh that is too old: shorten it",
                    );
                }
                (fresh, stale)
            }
            (Some(fresh), None) => (fresh, defaults.stale_for.max(fresh)),
            (None, Some(stale)) => (defaults.fresh_for.min(stale), stale),
            (None, None) => (defaults.fresh_for, defaults.stale_for),
        }
    }
}

/// OpNix's interval, if it polls.
fn polling(files: &[(&Path, File)]) -> Option<Duration> {
    let integrations = files.iter().filter_map(|(_, file)| file.systemd_integration.as_ref());
    let polling = integrations.filter_map(|integration| integration.polling.as_ref());
    let mut enabled = polling.filter(|polling| polling.enable == Some(true));
    let written = enabled.find_map(|polling| polling.interval.as_ref())?;
    duration(&written.value).ok().filter(|interval| *interval > Duration::ZERO)
}

fn deadline_of(text: &str) -> Result<Duration, Problem> {
    match duration(text)? {
        Duration::ZERO => Err(Problem::new("a deadline of 0 would refuse every unit", "the default is 30s")),
        long if long > DEADLINE_MAX => {
            Err(Problem::new(format!("deadline {text:?} is too long"), "it can be 1h at the most"))
        }
        duration => Ok(duration),
    }
}

/// The deadline of one unit: as long as its owner wants.
pub(super) fn own_deadline(text: &str) -> Result<Duration, Problem> {
    match text {
        "infinity" => Ok(Duration::MAX),
        _ => match duration(text)? {
            Duration::ZERO => Err(Problem::new(
                "a deadline of 0 would refuse the unit",
                "leave it out for the one of all units",
            )),
            duration => Ok(duration),
        },
    }
}

fn interval(text: &str) -> Result<Option<Duration>, Problem> {
    match text {
        "never" => Ok(None),
        _ => match duration(text)? {
            Duration::ZERO => {
                Err(Problem::new("a refresh every 0 seconds would never end", "write \"never\" for none"))
            }
            interval => Ok(Some(interval)),
        },
    }
}

fn keep(written: file::Keep) -> Keep {
    match written {
        file::Keep::Sealed => Keep::Sealed,
        file::Keep::Memory => Keep::Memory,
        file::Keep::Never => Keep::Never,
    }
}
