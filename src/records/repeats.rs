//! Counts what would fill the journal: the same record again and again, because somebody asks in a loop.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long repeated records are counted before the count is told.
const PERIOD: Duration = Duration::from_secs(60);
/// How many groups of peers that are not units are told apart.
const GROUPS: usize = 1000;
const OTHERS: &str = "elsewhere";

#[derive(Default)]
pub struct Repeats(HashMap<(String, &'static str), Count>);

struct Count {
    since: Instant,
    told: u64,
    more: u64,
}

impl Repeats {
    /// Whether one more record of this kind is to be told: at most `most` are within a minute.
    ///
    /// `many`: there may be any number of such groups, because those who are counted make them up.
    pub fn is_told(&mut self, now: Instant, group: &str, kind: &'static str, most: u64, many: bool) -> bool {
        let known = || self.0.contains_key(&(group.to_owned(), kind));
        let group = if many && self.0.len() >= GROUPS && !known() { OTHERS } else { group };
        let new = Count { since: now, told: 0, more: 0 };
        let count = self.0.entry((group.to_owned(), kind)).or_insert(new);
        if count.told < most {
            count.told += 1;
            return true;
        }
        count.more += 1;
        false
    }

    /// What was counted and not told, for the counts whose minute is over, or for `all`. These counts begin anew.
    pub fn due(&mut self, now: Instant, all: bool) -> Vec<(String, &'static str, u64)> {
        let mut due = Vec::new();
        self.0.retain(|(group, kind), count| {
            let over = all || now.duration_since(count.since) >= PERIOD;
            if over && count.more > 0 {
                due.push((group.clone(), *kind, count.more));
            }
            !over
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_told_once_a_minute_with_its_count() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let told = (0..5000).filter(|_| repeats.is_told(start, "forger.service", "peer", 1, true)).count();
        assert_eq!(told, 1);
        assert!(repeats.is_told(start, "forger.service", "policy", 1, true));
        assert!(repeats.is_told(start, "other.service", "peer", 1, true));
        assert_eq!(repeats.due(start + PERIOD / 2, false), []);
        assert_eq!(repeats.due(start + PERIOD, false), [("forger.service".to_owned(), "peer", 4999)]);
        assert_eq!(repeats.due(start + PERIOD, true), []);
        assert!(repeats.is_told(start + PERIOD, "forger.service", "peer", 1, true));
    }

    #[test]
    fn nobody_fills_the_memory_with_groups() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        for number in 0..5000 {
            repeats.is_told(now, &format!("group-{number}"), "peer", 1, true);
        }
        assert!(repeats.0.len() <= GROUPS + 1);
    }
}
