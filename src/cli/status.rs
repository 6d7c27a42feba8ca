//! `opnix status`: how the service is, and what of this machine belongs to it.

pub mod files;
pub mod page;
mod service;
mod unit;
pub mod verdict;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use self::files::{Look, Mirror};
use self::page::Page;
pub use self::page::{bad, doubtful, good, heading};
pub use self::unit::{own_name, show as show_unit};
use self::verdict::{Over, Refused, judge, over};
use super::control::{ControlArguments, Unanswered};
use super::{Exit, fail};
use crate::cli::output::{self, complain, say};
use crate::control::interface::{Control, Held, MirroredFile, Refusal, Request, Status, whole_status};

/// How often to look again.
const AGAIN: Duration = Duration::from_secs(2);

/// Show how the service is: provider, cache, budget of requests, each secret's age, and the files; never a value
///
/// Whether a secret would be served is told by 1Password's last answers: it is not asked for this.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only what concerns this unit, under any of its names: what it may have, from where, and would get now; what it was given,
    /// whether that is the newest, what it was refused and waits for.
    unit: Option<String>,
    /// As JSON: the answer to io.opnix.Status or io.opnix.Unit, documented in io.opnix.varlink
    #[arg(long)]
    json: bool,
    /// Show it anew every two seconds, until Ctrl-C or nobody reads it; as JSON, one line each time
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    control: ControlArguments,
}

/// What there is to show.
pub struct View {
    text: String,
    json: Result<String, serde_json::Error>,
    exit: Exit,
}

/// What is seen of this machine beside what the service says.
#[derive(Default)]
pub struct Seen {
    /// In the order in which the service tells of them.
    looks: Vec<Look>,
    mirror: Mirror,
    refused: Vec<Refused>,
    outdated: Vec<Held>,
}

pub fn run(arguments: Arguments) -> Exit {
    let look = || match &arguments.unit {
        Some(unit) => unit::look(unit, !arguments.watch, &arguments.control),
        None => look(!arguments.watch, &arguments.control),
    };
    if arguments.watch {
        return watch(look, arguments.json, &arguments.control);
    }
    match look() {
        Ok(view) => view.show(arguments.json),
        Err(why) => arguments.control.fail(why),
    }
}

/// Until nobody reads it any more.
fn watch(look: impl Fn() -> Result<View, Unanswered>, json: bool, control: &ControlArguments) -> Exit {
    let mut exit = match look() {
        Ok(view) => view.show_anew(json),
        Err(why) => return control.fail(why),
    };
    while !output::is_closed() {
        sleep(AGAIN);
        exit = match look() {
            Ok(view) => view.show_anew(json),
            // The service may come back.
            Err(why) => {
                let (exit, message) = control.describe(&why);
                match json {
                    true => complain!("opnix: {message}"),
                    false => {
                        separate();
                        say!("{}", bad(message));
                    }
                }
                exit
            }
        };
    }
    exit
}

fn separate() {
    if std::io::stdout().is_terminal() { output::clear() } else { say!() }
}

impl View {
    fn new(page: Page, answer: &impl Serialize, pretty: bool, exit: Exit) -> Self {
        let json = if pretty { serde_json::to_string_pretty(answer) } else { serde_json::to_string(answer) };
        Self { text: page.into_text(), json, exit }
    }

    pub fn show(self, json: bool) -> Exit {
        match self.json {
            Ok(text) if json => say!("{text}"),
            Err(error) if json => return fail(Exit::Software, error),
            _ => output::to_stdout(format_args!("{}", self.text)),
        }
        self.exit
    }

    fn show_anew(self, json: bool) -> Exit {
        if !json {
            separate();
        }
        self.show(json)
    }
}

fn look(pretty: bool, control: &ControlArguments) -> Result<View, Unanswered> {
    let status = control.ask(async |mut service| whole_status(&mut service).await)?;
    let mut seen = Seen::of(&status, control);
    // An older service does not tell.
    let outdated = control.ask(async |mut service| service.outdated().await);
    let outdated = outdated.map_or_else(|_| Vec::new(), |outdated| outdated.credentials);
    seen.outdated = unit::what_runs(outdated, control.manager());
    let now = SystemTime::now();
    let mut verdict = judge(&status, &seen.refused, seen.files(&status), now);
    if let (Mirror::Down(_), false) = (&seen.mirror, status.files.is_empty()) {
        verdict.but("opnix-mirror.service does not run: files are not kept current".to_owned());
    }
    if let Some(why) = control.unheard() {
        verdict.but(why);
    }
    let mut page = Page::for_the_terminal();
    service::describe(&mut page, &status, &seen, &verdict, now);
    unit::describe_outdated(&mut page, &seen.outdated, now);
    Ok(View::new(page, &status, pretty, verdict.exit))
}

/// The status as people read it, without what is seen of the machine.
pub fn describe(status: &Status, now: SystemTime) -> String {
    let (mut page, seen) = (Page::new(), Seen::default());
    let verdict = judge(status, &[], seen.files(status), now);
    service::describe(&mut page, status, &seen, &verdict, now);
    page.into_plain()
}

impl Seen {
    fn of(status: &Status, control: &ControlArguments) -> Self {
        let mut manager = control.manager();
        let refused = refused(status, |refusal| {
            let unit = manager.as_mut()?.unit(&refusal.unit).ok()?;
            over(refusal, &status.requests, &unit, &socket(control))
        });
        Self {
            looks: files::look_at(&status.files),
            mirror: files::mirror(manager.as_mut()),
            refused,
            outdated: Vec::new(),
        }
    }

    /// Each file with how it is, as far as it was looked at.
    fn files<'s>(&'s self, status: &'s Status) -> impl Iterator<Item = (&'s MirroredFile, &'s Look)> + Clone {
        status.files.iter().zip(&self.looks)
    }
}

/// Where the service gives credentials.
fn socket(control: &ControlArguments) -> PathBuf {
    let system = std::path::Path::new(crate::systemd::SOCKET);
    control.control.with_file_name(system.file_name().unwrap_or_default())
}

/// What units were refused and have not got since, also what is known from before the service was started.
fn refused(status: &Status, mut over: impl FnMut(&Refusal) -> Option<Over>) -> Vec<Refused> {
    let mut all = status.refusals.clone();
    for missed in &status.missed {
        let is_it =
            |refusal: &Refusal| (&refusal.unit, &refusal.credential) == (&missed.unit, &missed.credential);
        if !all.iter().any(is_it) {
            all.push(Refusal {
                unit: missed.unit.clone(),
                credential: missed.credential.clone(),
                secret: missed.secret.clone(),
                at: missed.since,
                times: 1,
                check: String::new(),
                reason: missed.reason.clone(),
            });
        }
    }
    all.into_iter().map(|refusal| Refused { over: over(&refusal), refusal }).collect()
}

fn describe_refusal(page: &mut Page, refused: &Refused, status: &Status, now: SystemTime) {
    let Refused { refusal, over } = refused;
    let what = status.asked_for(&refusal.unit, &refusal.credential, refusal.secret.as_deref());
    let times = if refusal.times > 1 { format!(" ({} times)", refusal.times) } else { String::new() };
    let at = relative(refusal.at, now);
    match over {
        Some(over) => {
            page.line("refused", format_args!("{} {what} {at}{times}; {}", refusal.unit, over.words()))
        }
        None => {
            page.line("refused", format_args!("{} {what} {}{times}", refusal.unit, doubtful(at)));
            page.line("refused", format_args!("    {}", refusal.reason.replace('\n', "\n    ")));
        }
    }
}

fn describe_request(request: &Request, now: SystemTime) -> String {
    let until = request
        .until
        .map_or("waits for ever".to_owned(), |until| format!("is refused {}", relative(until, now)));
    format!("asked {}, {until}", relative(request.since, now))
}

/// Relative to now, in seconds: "5m ago", "in 2h".
pub fn relative(at: u64, now: SystemTime) -> String {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if at > now { format!("in {}", duration(at - now)) } else { format!("{} ago", duration(now - at)) }
}

pub fn duration(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// Of seconds since 1970, as far as a date can be written.
pub fn date(seconds: u64) -> SystemTime {
    /// The end of the year 9999.
    const LAST: u64 = 253_402_300_799;
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(LAST))
}

#[cfg(test)]
mod tests;
