//! `opnix status`: how the service is.

mod unit;

use std::time::{Duration, SystemTime};

use super::control::ControlArguments;
use super::{Exit, fail};
use crate::cli::output::say;
use crate::control::interface::{
    Control, Health, Missed, Provider, Request, State, Status, Window, whole_status,
};
use crate::policy::MIRROR;

/// Show how the service is: provider, cache, budget of requests, and each secret's age; never a value
///
/// Exits with 0 if every secret could be served now, with 69 if the service is not there, a secret could not be
/// served, or this machine keeps it from serving any, with 78 if the configuration or the token is faulty, also where
/// the one from before is still in force.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only what concerns this unit, under any of its names: what it was given, whether that is the newest, what it waits
    /// for. Exits with 69 if it was refused something that it has not got since
    unit: Option<String>,
    /// As JSON: the answer to io.opnix.Status or io.opnix.Unit, documented in io.opnix.varlink
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: ControlArguments,
}

pub fn run(arguments: Arguments) -> Exit {
    if let Some(unit) = &arguments.unit {
        return unit::run(unit, arguments.json, &arguments.control);
    }
    let status = match arguments.control.ask(async |mut service| whole_status(&mut service).await) {
        Ok(status) => status,
        Err(why) => return arguments.control.fail(why),
    };
    if arguments.json {
        match serde_json::to_string_pretty(&status) {
            Ok(text) => say!("{text}"),
            Err(error) => return fail(Exit::Software, error),
        }
    } else {
        // An older service does not tell.
        let outdated = arguments.control.ask(async |mut service| service.outdated().await);
        let outdated = outdated.map_or_else(|_| Vec::new(), |outdated| outdated.credentials);
        let outdated = unit::what_runs(outdated, arguments.control.manager());
        crate::cli::output::to_stdout(format_args!(
            "{}{}",
            describe(&status, SystemTime::now()),
            unit::describe_outdated(&outdated, SystemTime::now())
        ));
    }
    match &status {
        Status { faults: Some(_), .. }
        | Status { rejected: Some(_), .. }
        | Status { bad_token: Some(_), .. } => Exit::Config,
        Status { obstacle: Some(_), .. } => Exit::Unavailable,
        // A missing value can still be had, unless the provider is known not to work.
        status if status.secrets.iter().all(|secret| is_servable(secret.state, status)) => Exit::Ok,
        _ => Exit::Unavailable,
    }
}

/// More records than this wait only when the journal takes none.
const RECORDS_ON_THEIR_WAY: u64 = 100;

fn is_servable(state: State, status: &Status) -> bool {
    let up = status.provider.as_ref().is_some_and(|provider| provider.health != Health::Down);
    match state {
        State::Fresh | State::Stale | State::Kept => true,
        State::Missing => up,
        State::Refused => false,
    }
}

/// The status as people read it.
pub fn describe(status: &Status, now: SystemTime) -> String {
    let mut text = String::new();
    let mut line = |name: &str, what: String| text.push_str(&format!("{name:<10} {what}\n"));
    line("opnix", format!("{}, {} requests waiting", status.version, status.waiting));
    if let Some(obstacle) = &status.obstacle {
        line("obstacle", format!("every request is refused: {}", obstacle.replace('\n', "\n           ")));
    }
    if let Some(bad) = &status.bad_token {
        let since = relative(bad.since, now);
        line("token", format!("the one in its file is not in force, as was first seen {since}"));
        line("", bad.faults.replace('\n', "\n           "));
    }
    if let Some(faults) = &status.faults {
        line("faulty", faults.replace('\n', "\n           "));
        return text;
    }
    if let Some(rejected) = &status.rejected {
        let since = relative(rejected.since, now);
        line(
            "faulty",
            format!("an older configuration is in force: the files are faulty, as was first seen {since}"),
        );
        line("", rejected.faults.replace('\n', "\n           "));
    }
    if let Some(provider) = &status.provider {
        let account = provider.account.as_deref().unwrap_or("account unknown: there is no token");
        line("provider", format!("{}, {account}", provider.kind));
        line("", describe_health(provider, now));
        if let Some(error) = &provider.error {
            line("", error.replace('\n', "\n           "));
        }
        let next = provider.next_refresh.map_or("not planned".to_owned(), |at| relative(at, now));
        let name = if provider.health == Health::Down { "next try" } else { "refresh" };
        line(name, next);
    }
    let cache = &status.cache;
    let written = cache.written_at.map_or(String::new(), |at| format!(", written {}", relative(at, now)));
    let kept = match (&cache.unsealed_because, &cache.unwritable_because) {
        (Some(why), _) => format!("in memory only: {why}"),
        (None, None) => format!("{} of them sealed on disk{written}", cache.sealable),
        (None, Some(_)) => format!("sealed on disk as they were before{written}"),
    };
    line("cache", format!("{} values, {kept}", cache.in_memory));
    if let (Some(why), Some(since)) = (&cache.unwritable_because, cache.unwritable_since) {
        line("", format!("NOTHING CAN BE WRITTEN to disk since {}: {why}", relative(since, now)));
    }
    let (hour, day) = (window(&status.budget.hour), window(&status.budget.day));
    line("requests", format!("{hour} in the last hour, {day} in the last day"));
    let half = |window: &Window| window.limit.is_some_and(|limit| window.used * 2 >= limit);
    if half(&status.budget.hour) || half(&status.budget.day) {
        line(
            "",
            "half of the budget is spent: the background asks less often, the rest is for starts".to_owned(),
        );
    }
    if let Some(until) = status.budget.limited_until {
        line("", format!("a limit is reached; the background goes on {}", relative(until, now)));
    }
    let (queued, dropped) = (status.records.queued, status.records.dropped);
    // A few are always on their way.
    if queued > RECORDS_ON_THEIR_WAY || dropped > 0 {
        let what = format!(
            "{queued} wait for the journal, {dropped} were dropped: see systemctl status systemd-journald"
        );
        line("records", what);
    }
    for (number, request) in status.requests.iter().enumerate() {
        let what =
            format!("{} for \"{}\": {}", request.unit, request.credential, describe_request(request, now));
        line(if number == 0 { "waiting" } else { "" }, what);
    }
    let width = status.secrets.iter().map(|secret| secret.name.len()).max().unwrap_or(0);
    for (number, secret) in status.secrets.iter().enumerate() {
        let state = match secret.state {
            State::Fresh => "fresh",
            State::Stale | State::Kept => "stale",
            State::Missing => "missing",
            State::Refused => "refused",
        };
        let age = secret.age.map_or(String::new(), |age| format!("{} old", duration(age)));
        let name = if number == 0 { "secrets" } else { "" };
        line(name, format!("{:<width$}  {state:<7}  {age}", secret.name).trim_end().to_owned());
        if let Some(denied) = secret.denied_for {
            line("", format!("    1Password has denied it for {}", duration(denied)));
        }
        if let (Some(error), Some(at)) = (&secret.error, secret.error_at) {
            line("", format!("    {}: {}", relative(at, now), error.replace('\n', "; ")));
        }
    }
    for (number, missed) in status.missed.iter().enumerate() {
        let name = if number == 0 { "left out" } else { "" };
        line(name, format!("{} {}", missed.unit, describe_missed(missed, now)));
        line("", format!("    {}", missed.reason));
    }
    text
}

fn describe_missed(missed: &Missed, now: SystemTime) -> String {
    // The mirror asks by names of its own.
    let what = missed.secret.as_ref().filter(|_| missed.unit == MIRROR).unwrap_or(&missed.credential);
    let (since, now) =
        (relative(missed.since, now), if missed.ready { ", which it would get now" } else { "" });
    format!("was refused \"{what}\" {since}{now}")
}

fn describe_request(request: &Request, now: SystemTime) -> String {
    let until = request
        .until
        .map_or("waits for ever".to_owned(), |until| format!("is refused {}", relative(until, now)));
    format!("asked {}, {until}", relative(request.since, now))
}

fn describe_health(provider: &Provider, now: SystemTime) -> String {
    match provider.health {
        Health::Up => "works, as far as the last requests tell".to_owned(),
        Health::Down => {
            let since =
                provider.down_since.map_or(String::new(), |at| format!(" since {}", relative(at, now)));
            let tried =
                provider.tried.map_or(String::new(), |at| format!(", last tried {}", relative(at, now)));
            format!("DOES NOT WORK{since}{tried}")
        }
        Health::Spent => {
            "is asked only for what is not kept: the budget is used up, or a limit is reached".to_owned()
        }
        Health::Limited => "is not asked: its limit is reached".to_owned(),
    }
}

fn window(window: &Window) -> String {
    match window.limit {
        Some(limit) => format!("{} of {limit}", window.used),
        None => window.used.to_string(),
    }
}

/// Relative to now, in seconds: "5m ago", "in 2h".
pub fn relative(at: u64, now: SystemTime) -> String {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if at > now { format!("in {}", duration(at - now)) } else { format!("{} ago", duration(now - at)) }
}

fn duration(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_that_the_service_tells_has_words() {
        let first = SystemTime::UNIX_EPOCH;
        for at in [0, 1, i64::MAX as u64, u64::MAX] {
            assert!(!duration(at).is_empty());
            for now in [first, first - Duration::from_secs(1), SystemTime::now()] {
                assert!(relative(at, now).starts_with("in ") || relative(at, now).ends_with(" ago"));
            }
        }
    }
}
