//! What becomes of a value with time: fresh, stale, refused. The ages are the defaults of the code, and what is said of each is what
//! `store::decide` decides at that age.

use std::time::Duration;

use opnix::internals::config::{SETTINGS, TIMING};
use opnix::internals::{Decision, Health, Known, decide};

use super::theme::{Face, Picture, Theme};

const LEFT: f64 = 180.0;
/// Where the ages end: fresh, stale, and all.
const ENDS: [f64; 4] = [LEFT, 400.0, 690.0, 940.0];

pub fn draw(theme: &'static Theme) -> String {
    let title = format!(
        "A value is fresh for {}, served while 1Password cannot be asked until it is {} old, and refused when it is older; one that 1Password says is gone is served for {}",
        words(SETTINGS.fresh_for),
        words(SETTINGS.stale_for),
        words(SETTINGS.grace)
    );
    let mut picture = Picture::new(theme, 960, 330, &title);
    let p = &mut picture;
    axis(
        p,
        40.0,
        "age of the value",
        &[
            (ENDS[1], format!("fresh_for {}", words(SETTINGS.fresh_for))),
            (ENDS[2], format!("stale_for {}", words(SETTINGS.stale_for))),
        ],
    );
    lane(p, 62.0, ["1Password", "works"], Health::Up);
    lane(p, 128.0, ["1Password", "is down"], Health::Down);
    gone(p);
    picture.done()
}

fn words(duration: Duration) -> String {
    const UNITS: [(u64, &str); 3] = [(24 * 60 * 60, "d"), (60 * 60, "h"), (60, "min")];
    let seconds = duration.as_secs();
    let unit = UNITS.iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{seconds} s"), |(unit, name)| format!("{} {name}", seconds / unit))
}

/// Not to scale.
fn axis(p: &mut Picture, y: f64, name: &str, marks: &[(f64, String)]) {
    let theme = p.theme;
    p.arrow((LEFT, y), (ENDS[3], y), theme.faint);
    p.text((LEFT - 12.0, y + 4.0), "end", theme.text, (Face::Plain, 12.0), name, LEFT - 20.0);
    for (x, mark) in marks {
        p.line(&format!("<path d=\"M{x} {}V{}\" stroke=\"{}\"/>", y - 6.0, y + 6.0, theme.faint));
        p.text((*x, y - 12.0), "middle", theme.text, (Face::Mono, 12.0), mark, 200.0);
    }
}

fn name(p: &mut Picture, y: f64, lines: [&str; 2]) {
    let theme = p.theme;
    for (number, line) in lines.into_iter().enumerate() {
        let at = (LEFT - 12.0, y + 24.0 + 18.0 * number as f64);
        p.text(at, "end", theme.text, (Face::Plain, 12.0), line, LEFT - 16.0);
    }
}

fn band(p: &mut Picture, (from, to): (f64, f64), y: f64, colour: &str, lines: [&str; 2]) {
    let theme = p.theme;
    p.rect((from + 2.0, y, to - from - 4.0, 54.0), theme.fill, colour);
    for (number, line) in lines.into_iter().enumerate() {
        let (face, colour) = if number == 0 { (Face::Bold, colour) } else { (Face::Plain, theme.faint) };
        let at = ((from + to) / 2.0, y + 23.0 + 18.0 * number as f64);
        p.text(at, "middle", colour, (face, 12.0), line, to - from - 8.0);
    }
}

fn lane(p: &mut Picture, y: f64, of: [&str; 2], health: Health) {
    name(p, y, of);
    let ages =
        [SETTINGS.fresh_for / 2, (SETTINGS.fresh_for + SETTINGS.stale_for) / 2, SETTINGS.stale_for * 2];
    for (place, age) in ages.into_iter().enumerate() {
        let known = Known { age: Some(age), denied_for: None, doubtful: false };
        let decision = decide(Some(known), &SETTINGS, health);
        let theme = p.theme;
        let waits = |limit, key| format!("waits up to {} ({key})", words(limit));
        let (colour, first, second) = match decision {
            Decision::Serve => (theme.good, "served at once", "nobody is asked".to_owned()),
            Decision::Fetch { fall_back: true } => {
                (theme.good, "asked for, else with a warning", waits(TIMING.short_deadline, "short_deadline"))
            }
            Decision::ServeAndRefresh => (theme.doubtful, "served at once", "with a warning".to_owned()),
            Decision::Fetch { fall_back: false } => {
                (theme.bad, "asked for, or refused", waits(TIMING.deadline, "deadline"))
            }
            Decision::Refuse => (theme.bad, "refused", "at once".to_owned()),
        };
        band(p, (ENDS[place], ENDS[place + 1]), y, colour, [first, &second]);
    }
}

/// The grace has a beginning of its own.
fn gone(p: &mut Picture) {
    let y = 262.0;
    let known = |denied_for| Known {
        age: Some(SETTINGS.fresh_for * 2),
        denied_for: Some(denied_for),
        doubtful: false,
    };
    let is_kept =
        |denied_for| decide(Some(known(denied_for)), &SETTINGS, Health::Down) == Decision::ServeAndRefresh;
    assert!(
        is_kept(SETTINGS.grace / 2) && !is_kept(SETTINGS.grace * 2),
        "what the picture says of the grace"
    );
    axis(p, 238.0, "since it said so", &[(ENDS[1], format!("grace {}", words(SETTINGS.grace)))]);
    name(p, y, ["1Password says", "that it is gone"]);
    let theme = p.theme;
    band(p, (ENDS[0], ENDS[1]), y, theme.doubtful, ["the old one is served", "with a warning"]);
    band(p, (ENDS[1], ENDS[3]), y, theme.bad, ["refused", "the value is dropped, from the disk as well"]);
}
