//! Time spans as systemd writes them: systemd.time(7).

use std::time::Duration;

/// Each unit of time by its names, in seconds.
const UNITS: [(&[&str], f64); 9] = [
    (&["usec", "us", "µs", "μs"], 1e-6),
    (&["msec", "ms"], 1e-3),
    (&["seconds", "second", "sec", "s", ""], 1.0),
    (&["minutes", "minute", "min", "m"], 60.0),
    (&["hours", "hour", "hr", "h"], 3600.0),
    (&["days", "day", "d"], 86400.0),
    (&["weeks", "week", "w"], 604_800.0),
    (&["months", "month", "M"], 2_629_800.0),
    (&["years", "year", "y"], 31_557_600.0),
];

/// Several numbers with units count together, and one without counts seconds. `infinity` is [`Duration::MAX`].
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "infinity" {
        return Some(Duration::MAX);
    }
    let mut seconds = 0.0;
    loop {
        let (number, after) = split(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, after) = split(after.trim_start(), |c| c.is_alphabetic());
        let (_, unit) = UNITS.iter().find(|(names, _)| names.contains(&unit))?;
        seconds += number.parse::<f64>().ok()? * unit;
        rest = after.trim_start();
        if rest.is_empty() {
            return Duration::try_from_secs_f64(seconds).ok();
        }
    }
}

fn split(text: &str, of: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !of(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_are_read_as_systemd_reads_them() {
        for (text, seconds) in [
            ("90", 90.0),
            ("0", 0.0),
            ("5min 20s", 320.0),
            ("5min20s", 320.0),
            (" 2 h ", 7200.0),
            ("1.5h", 5400.0),
            (".5", 0.5),
            ("1min 30", 90.0),
            ("300ms", 0.3),
            ("1y 12month", 63_115_200.0),
            ("2M", 5_259_600.0),
            ("2m", 120.0),
            ("55s500ms", 55.5),
        ] {
            assert_eq!(parse(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        assert_eq!(parse("infinity"), Some(Duration::MAX));
        for wrong in ["", " ", "-1", "1 fortnight", "s", "1..5", "min", "infinity 1", "1e3", "9e99y"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_time_span_or_not(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
