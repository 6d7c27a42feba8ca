//! What a fleet of machines asks of 1Password: `cargo run --release --locked --example fleet` prints the tables of docs/scale.md,
//! `… --example fleet -- plot`, or `… plot dark`, its plot.
//!
//! The machines here decide as real ones do, by opnix's own functions: when a value is fresh (`store::decide`), when the
//! next refresh is due (`store::refresh`), and what the budget allows (`providers::budget`).

#[allow(dead_code)]
#[path = "pictures/theme.rs"]
pub mod theme;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use opnix::internals::{Budget, Ledger, Moment, Purpose};
use opnix::internals::{Decision, Health, Keep, Known, Settings, decide};
use opnix::internals::{Outlook, next_round};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use theme::Theme;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const SIZES: [u32; 5] = [1, 10, 100, 1_000, 10_000];
const SECRETS: [u32; 3] = [5, 50, 500];
/// Machines are alike but for chance: of more than these, only so many are gone through, and stand for the others.
const SAMPLE: u32 = 100;
/// 1Password's limits by plan: requests per hour and token, and per day and account.
const PLANS: [(&str, u32, u32); 3] =
    [("individual, Families", 1_000, 1_000), ("Teams", 1_000, 5_000), ("Business", 10_000, 50_000)];

/// What a fetch costs (docs/performance.md): to sign in and get the keys, to ask which vaults changed, and the items of a
/// vault with its values in batches of 50.
const SIGN_IN: u32 = 5;
const VAULTS: u32 = 1;

fn values(secrets: u32) -> u32 {
    1 + secrets.div_ceil(50)
}

/// What a machine asked for in a day.
#[derive(Clone, Copy, Default)]
struct Asked {
    in_the_day: u32,
    in_the_worst_hour: u32,
    /// How old the values became at most, since 1Password last confirmed them, in minutes.
    oldest: u32,
}

fn settings() -> Settings {
    Settings {
        keep: Keep::Sealed,
        fresh_for: Duration::from_secs(15 * 60),
        stale_for: 7 * DAY,
        always_fetch: false,
        grace: HOUR,
    }
}

/// One machine over two days, of which the second counts: each of its units starts once a day, and one value changes.
fn machine(secrets: u32, budget: Budget, chance: &mut StdRng) -> Asked {
    let began = Moment::BOOT + 10_000 * DAY;
    let mut starts: Vec<Duration> =
        (0..2 * secrets).map(|_| DAY.mul_f64(2.0 * chance.random::<f64>())).collect();
    starts.sort_unstable();
    let change = DAY.mul_f64(1.0 + chance.random::<f64>());
    let mut starts = starts.into_iter().peekable();
    let (mut ledger, mut asked, mut hours) = (Ledger::default(), Asked::default(), BTreeMap::new());
    let mut confirmed = began;
    let (mut last, mut cost, mut spread) = (None, SIGN_IN + VAULTS + values(secrets), chance.random::<f64>());
    let minutes = |duration: Duration| (duration.as_secs() / 60) as u32;
    let mut changed = false;
    let mut now = began;
    loop {
        let since = |then: Moment| now.since(then);
        let outlook = Outlook {
            now,
            last: last.map(since),
            up: since(began),
            interval: Some(2 * HOUR),
            budget,
            cost,
            missing: None,
            probe: None,
            limit: Duration::ZERO,
            spread,
        };
        let round = next_round(&outlook, &ledger).map_or(began + 3 * DAY, |wait| now + wait);
        let start = starts.peek().map_or(began + 3 * DAY, |start| began + *start);
        let is_round = round <= start;
        now = round.min(start).max(now);
        if now >= began + 2 * DAY {
            break;
        }
        let second_day = now >= began + DAY;
        let mut request = SIGN_IN + VAULTS;
        if !changed && now >= began + change {
            request += values(secrets);
        }
        if is_round {
            if !ledger.affords(now, &budget, request, Purpose::Refresh) {
                now = now + Duration::from_secs(60);
                continue;
            }
            (spread, cost) = (chance.random(), request);
        } else {
            starts.next();
            let affords = ledger.affords(now, &budget, 1, Purpose::Start);
            let health = if affords { Health::Up } else { Health::Spent };
            let age = Some(now.since(confirmed));
            let known = Known { age, denied_for: None, doubtful: false };
            if !matches!(decide(Some(known), &settings(), health), Decision::Fetch { .. }) {
                continue;
            }
        }
        changed |= request > SIGN_IN + VAULTS;
        if second_day {
            asked.oldest = asked.oldest.max(minutes(now.since(confirmed)));
        }
        // What a start asks confirms all values, as a round of the background does.
        (confirmed, last) = (now, Some(now));
        ledger.spend(now, request);
        if second_day {
            asked.in_the_day += request;
            let hour = now.since(began).as_secs() / HOUR.as_secs();
            *hours.entry(hour).or_insert(0) += request;
        }
    }
    asked.oldest = asked.oldest.max(minutes((began + 2 * DAY).since(confirmed)));
    asked.in_the_worst_hour = hours.into_values().max().unwrap_or(0);
    asked
}

/// The whole fleet, in requests per day, and of one machine in its worst hour.
fn fleet(machines: u32, secrets: u32, budget: Budget) -> (u32, Asked) {
    let mut chance = StdRng::seed_from_u64(u64::from(machines) << 32 | u64::from(secrets));
    let sample = machines.min(SAMPLE);
    let mut sum = Asked::default();
    for _ in 0..sample {
        let one = machine(secrets, budget, &mut chance);
        sum.in_the_day += one.in_the_day;
        sum.oldest = sum.oldest.max(one.oldest);
        sum.in_the_worst_hour = sum.in_the_worst_hour.max(one.in_the_worst_hour);
    }
    let whole = |part: u32| (u64::from(part) * u64::from(machines) / u64::from(sample)) as u32;
    (whole(sum.in_the_day), sum)
}

/// The share of one of so many machines in a plan: nine tenths of it, so that people have something left.
fn share(machines: u32, hourly: u32, daily: u32) -> Budget {
    Budget { hourly: Some(hourly * 9 / 10), daily: Some(daily / 10 * 9 / machines) }
}

/// What machines ask for that have the budget of the configuration's default.
pub fn defaults() -> String {
    let mut text = String::from(
        "| machines | secrets | requests a day, all machines | worst hour of one machine | within a day's limit of |\n|---|---|---|---|---|\n",
    );
    for machines in SIZES {
        for secrets in SECRETS {
            let (day, one) = fleet(machines, secrets, Budget::SMALLEST_PLAN);
            let fits: Vec<&str> =
                PLANS.iter().filter(|(_, _, daily)| day <= *daily).map(|(plan, ..)| *plan).collect();
            let fits = if fits.is_empty() { "none: Connect".to_owned() } else { fits.join("; ") };
            let _ = writeln!(text, "| {machines} | {secrets} | {day} | {} | {fits} |", one.in_the_worst_hour);
        }
    }
    text
}

/// How old values become at most, in the worst of the machines that share a plan's limit among them.
pub fn shared() -> String {
    let mut text = String::from(
        "| plan | machines | `budget.daily` of each | 5 secrets | 50 secrets | 500 secrets |\n|---|---|---|---|---|---|\n",
    );
    for (plan, hourly, daily) in PLANS {
        for machines in SIZES {
            let budget = share(machines, hourly, daily);
            let cell = |secrets| {
                let (_, one) = fleet(machines, secrets, budget);
                // Not once a day for all of them: too old to be called renewed.
                match one.oldest.div_ceil(60) {
                    hours @ ..=24 => format!("{hours} h"),
                    _ => "Connect".to_owned(),
                }
            };
            let [few, some, many] = SECRETS.map(cell);
            let _ = writeln!(
                text,
                "| {plan} | {machines} | {} | {few} | {some} | {many} |",
                budget.daily.unwrap_or(0)
            );
        }
    }
    text
}

/// Requests a day by machines, both logarithmic, against the limits.
pub fn plot(theme: &Theme) -> String {
    let (left, top, width, height) = (70.0, 20.0, 520.0, 300.0);
    let x = |machines: f64| left + width * machines.log10() / 4.0;
    let y = |requests: f64| top + height * (1.0 - requests.max(1.0).log10() / 7.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 380\" width=\"760\" height=\"380\" role=\"img\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"{}\">\n\
         <title>Requests a day by machines, against the limits of the plans</title>\n\
         <rect width=\"760\" height=\"380\" rx=\"6\" fill=\"{}\"/>\n",
        theme.text, theme.page
    );
    for power in 0..=7 {
        let at = y(10f64.powi(power));
        let _ = writeln!(
            svg,
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"{}\"/>",
            left + width,
            theme.line
        );
        let _ = writeln!(svg, "<text x=\"62\" y=\"{:.1}\" text-anchor=\"end\">10^{power}</text>", at + 4.0);
    }
    for machines in SIZES {
        let at = x(f64::from(machines));
        let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"340\" text-anchor=\"middle\">{machines}</text>");
    }
    let _ = writeln!(svg, "<text x=\"330\" y=\"364\" text-anchor=\"middle\">machines</text>");
    let _ = writeln!(svg, "<text x=\"76\" y=\"14\">requests a day, all machines</text>");
    for (plan, _, daily) in PLANS {
        let at = y(f64::from(daily));
        let _ = writeln!(
            svg,
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"{bad}\" stroke-dasharray=\"5 4\"/>\n\
             <text x=\"598\" y=\"{:.1}\" fill=\"{bad}\">{plan}</text>",
            left + width,
            at + 4.0,
            bad = theme.bad
        );
    }
    for (secrets, colour) in SECRETS.into_iter().zip([theme.good, theme.blue, theme.violet]) {
        let points: Vec<String> = SIZES
            .iter()
            .map(|machines| {
                let (day, _) = fleet(*machines, secrets, Budget::SMALLEST_PLAN);
                format!("{:.1},{:.1}", x(f64::from(*machines)), y(f64::from(day)))
            })
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
    }
    for (line, (what, colour)) in [
        ("5 secrets", theme.good),
        ("50 secrets", theme.blue),
        ("500 secrets", theme.violet),
        ("through Connect: none", theme.faint),
    ]
    .into_iter()
    .enumerate()
    {
        let _ = writeln!(svg, "<text x=\"90\" y=\"{}\" fill=\"{colour}\">{what}</text>", 40 + 16 * line);
    }
    let base = y(1.0);
    let _ = writeln!(
        svg,
        "<line x1=\"{left}\" x2=\"{}\" y1=\"{base:.1}\" y2=\"{base:.1}\" stroke=\"{}\" stroke-width=\"2\"/>",
        left + width,
        theme.faint
    );
    svg + "</svg>\n"
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("plot") {
        let dark = std::env::args().nth(2).as_deref() == Some("dark");
        print!("{}", plot(if dark { &theme::DARK } else { &theme::LIGHT }));
    } else {
        print!("{}\n{}", defaults(), shared());
    }
}
