//! The whole status as people read it.

use std::time::SystemTime;

use super::page::{Page, bad, doubtful, good, plain};
use super::verdict::{Verdict, is_servable, list};
use super::{Seen, describe_refusal, describe_request, duration, files, relative};
use crate::control::interface::{Cache, Health, Missed, Provider, Secret, State, Status, Window};
use crate::policy::MIRROR;

/// More records than this wait only when the journal takes none.
const RECORDS_ON_THEIR_WAY: u64 = 100;

pub fn describe(page: &mut Page, status: &Status, seen: &Seen, verdict: &Verdict, now: SystemTime) {
    let requests = count(status.waiting, "request", "requests");
    page.line("opnix", format_args!("{}, {requests} waiting", status.version));
    in_short(page, status, verdict);
    trouble(page, status, now);
    if status.faults.is_some() {
        return;
    }
    if let Some(it) = &status.provider {
        provider(page, it, now);
    }
    cache(page, &status.cache, now);
    budget(page, status, now);
    let (queued, dropped) = (status.records.queued, status.records.dropped);
    // A few are always on their way.
    if queued > RECORDS_ON_THEIR_WAY || dropped > 0 {
        let what = format!("{queued} wait for the journal, {dropped} were dropped");
        page.line("records", format_args!("{}: see systemctl status systemd-journald", doubtful(what)));
    }
    let mut requests: Vec<_> = status.requests.iter().collect();
    requests.sort_by_key(|request| (&request.unit, request.since));
    for request in requests {
        let what = status.asked_for(&request.unit, &request.credential, None);
        page.line("waiting", format_args!("{} for {what}: {}", request.unit, describe_request(request, now)));
    }
    secrets(page, status);
    errors(page, status, now);
    for refused in &seen.refused {
        let refusal = &refused.refusal;
        // It is told below, with whether it would get it now.
        let is_missed =
            |missed: &Missed| (&missed.unit, &missed.credential) == (&refusal.unit, &refusal.credential);
        if !status.missed.iter().any(is_missed) {
            describe_refusal(page, refused, status, now);
        }
    }
    for missed in &status.missed {
        page.line("left out", format_args!("{} {}", missed.unit, describe_missed(missed, status, now)));
        page.line("left out", format_args!("    {}", missed.reason.replace('\n', "\n    ")));
    }
    seen.mirror.describe(page, !status.files.is_empty());
    files::describe_all(page, seen.files(status), &seen.mirror, now);
}

fn in_short(page: &mut Page, status: &Status, verdict: &Verdict) {
    let needed = status.secrets.iter().filter(|secret| secret.needed.unwrap_or(true)).count();
    match (&verdict.reasons[..], needed) {
        ([], 0) => page.line("in short", "nothing is mapped to any unit"),
        ([], 1) => page.line("in short", good("the one secret would be served now")),
        ([], all) => {
            page.line("in short", good(format_args!("each of the {all} secrets would be served now")))
        }
        (reasons, _) => reasons.iter().for_each(|reason| page.line("in short", bad(reason))),
    }
}

fn trouble(page: &mut Page, status: &Status, now: SystemTime) {
    if let Some(obstacle) = &status.obstacle {
        page.line("obstacle", format_args!("every request is refused: {obstacle}"));
    }
    if let Some(bad) = &status.bad_token {
        let since = relative(bad.since, now);
        page.line("token", format_args!("the one in its file is not in force, as was first seen {since}"));
        page.line("token", &bad.faults);
    }
    if let Some(faults) = &status.faults {
        page.line("faulty", faults);
    } else if let Some(rejected) = &status.rejected {
        let since = relative(rejected.since, now);
        let what = "an older configuration is in force: the files are faulty, as was first seen";
        page.line("faulty", format_args!("{what} {since}"));
        page.line("faulty", &rejected.faults);
    }
}

fn provider(page: &mut Page, provider: &Provider, now: SystemTime) {
    let unknown = match provider.token_error {
        Some(_) => "account unknown",
        None => "account unknown: there is no token",
    };
    let account = provider.account.as_deref().unwrap_or(unknown);
    page.line("provider", format_args!("{}, {account}", provider.kind));
    page.line("provider", describe_health(provider, now));
    if let Some(until) = provider.not_before {
        let date = humantime::format_rfc3339_seconds(super::date(until));
        let until = relative(until, now);
        page.line(
            "provider",
            doubtful(format_args!("it said that it is not to be asked before {date} ({until})")),
        );
    }
    if let Some(error) = &provider.error {
        page.line("provider", error);
    }
    if let Some(error) = provider.token_error.as_ref().filter(|error| Some(*error) != provider.error.as_ref())
    {
        page.line("provider", bad(error));
    }
    let next = provider.next_refresh.map_or("not planned".to_owned(), |at| relative(at, now));
    page.line(if provider.health == Health::Down { "next try" } else { "refresh" }, next);
}

fn describe_health(provider: &Provider, now: SystemTime) -> String {
    match provider.health {
        Health::Up if provider.token_error.is_some() => {
            "is not asked: there is no token that it could take".to_owned()
        }
        Health::Up => "works, as far as the last requests tell".to_owned(),
        Health::Down => {
            let since =
                provider.down_since.map_or(String::new(), |at| format!(" since {}", relative(at, now)));
            let tried =
                provider.tried.map_or(String::new(), |at| format!(", last tried {}", relative(at, now)));
            format!("{}{since}{tried}", bad("DOES NOT WORK"))
        }
        Health::Spent => {
            doubtful("is asked only for what is not kept: the budget is used up, or a limit is reached")
                .to_string()
        }
        Health::Limited => bad("is not asked: its limit is reached").to_string(),
    }
}

fn cache(page: &mut Page, cache: &Cache, now: SystemTime) {
    let written = cache.written_at.map_or(String::new(), |at| format!(", written {}", relative(at, now)));
    let kept = match (&cache.unsealed_because, cache.on_disk) {
        (Some(why), _) => format!("in memory only: {why}"),
        (None, Some(0)) if cache.sealable > 0 => {
            format!("{} of {} sealed on disk", doubtful("none"), cache.sealable)
        }
        (None, Some(0)) => "none on disk".to_owned(),
        (None, Some(count)) if count < cache.sealable => {
            format!("{} of {} sealed on disk{written}", doubtful(count), cache.sealable)
        }
        (None, Some(count)) => format!("{count} sealed on disk{written}"),
        (None, None) if cache.written_at.is_some() => format!("how many are on disk is not known{written}"),
        (None, None) => "none on disk".to_owned(),
    };
    page.line("cache", format_args!("{}, {kept}", count(cache.in_memory, "value", "values")));
    if let (Some(why), Some(since)) = (&cache.unwritable_because, cache.unwritable_since) {
        let since = relative(since, now);
        page.line("cache", format_args!("{} to disk since {since}: {why}", bad("NOTHING CAN BE WRITTEN")));
    }
}

fn budget(page: &mut Page, status: &Status, now: SystemTime) {
    let (hour, day) = (window(&status.budget.hour), window(&status.budget.day));
    page.line("requests", format_args!("{hour} in the last hour, {day} in the last day"));
    let half = |window: &Window| window.limit.is_some_and(|limit| window.used * 2 >= limit);
    if half(&status.budget.hour) || half(&status.budget.day) {
        let what = "half of the budget is spent: the background asks less often, the rest is for starts";
        page.line("requests", doubtful(what));
    }
    if let Some(until) = status.budget.limited_until {
        let until = relative(until, now);
        page.line(
            "requests",
            format_args!("{}; the background goes on {until}", doubtful("a limit is reached")),
        );
    }
}

fn window(window: &Window) -> String {
    match window.limit {
        Some(limit) => format!("{} of {limit}", window.used),
        None => window.used.to_string(),
    }
}

fn secrets(page: &mut Page, status: &Status) {
    let width = status.secrets.iter().map(|secret| secret.name.len()).max().unwrap_or(0);
    for secret in &status.secrets {
        let state = describe_state(secret, status);
        page.line("secrets", format_args!("{:<width$}  {state}", secret.name));
    }
}

/// In a word, with the age.
pub fn describe_state(secret: &Secret, status: &Status) -> String {
    let state = match secret.state {
        State::Fresh => good("fresh"),
        State::Stale | State::Kept => doubtful("stale"),
        State::Missing => match (secret.age, is_servable(secret, status)) {
            // It is kept, and does not do: it is too old, or every start is to ask.
            (Some(_), true) => plain("to be asked for"),
            (Some(_), false) => bad("cannot be asked for"),
            (None, true) => plain("not kept"),
            (None, false) => bad("missing"),
        },
        State::Refused => bad("refused"),
    };
    let mut text = match secret.age {
        Some(age) => format!("{state:<8} {} old", duration(age)),
        None => state.to_string(),
    };
    if let Some(denied) = secret.denied_for {
        text.push_str(&format!(", denied by 1Password for {}", duration(denied)));
    }
    text
}

/// What went wrong, each error once, with the secrets that it concerns.
fn errors(page: &mut Page, status: &Status, now: SystemTime) {
    let mut errors: Vec<(&str, u64, Vec<&str>)> = Vec::new();
    for secret in &status.secrets {
        let (Some(error), Some(at)) = (&secret.error, secret.error_at) else { continue };
        match errors.iter_mut().find(|(known, ..)| known == error) {
            Some((_, last, names)) => {
                *last = at.max(*last);
                names.push(&secret.name);
            }
            None => errors.push((error, at, vec![&secret.name])),
        }
    }
    let of_the_provider = status.provider.as_ref().and_then(|provider| provider.error.as_deref());
    for (error, at, names) in errors {
        let (at, names) = (relative(at, now), list(&names));
        match of_the_provider == Some(error) {
            true => {
                page.line("errors", format_args!("{at}, as told above, for want of the provider: {names}"))
            }
            false => {
                page.line("errors", format_args!("{at}: {names}"));
                page.line("errors", format_args!("    {}", error.replace('\n', "\n    ")));
            }
        }
    }
}

pub fn describe_missed(missed: &Missed, status: &Status, now: SystemTime) -> String {
    let what = status.asked_for(&missed.unit, &missed.credential, missed.secret.as_deref());
    let (since, now) =
        (relative(missed.since, now), if missed.ready { ", which it would get now" } else { "" });
    format!("was refused {what} {since}{now}")
}

impl Status {
    /// What a unit asks for by this name. The mirror asks by names of its own, which say nothing to anybody.
    pub fn asked_for(&self, unit: &str, credential: &str, secret: Option<&str>) -> String {
        let of_mirror = unit == MIRROR;
        let file = self.files.iter().find(|file| of_mirror && file.credential == credential);
        match (file, secret.filter(|_| of_mirror)) {
            (Some(file), _) => format!("\"{}\" (the file {})", file.secret, file.path),
            (None, Some(secret)) => format!("\"{secret}\""),
            (None, None) => format!("\"{credential}\""),
        }
    }
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
