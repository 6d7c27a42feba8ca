//! `opnix refresh`: asks 1Password now.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::select;
use tokio::time::sleep;
use zlink::tokio::unix::{Connection, connect};

use super::control::{ControlArguments, Unanswered};
use super::{ConfigArguments, Exit, fail, faulty};
use crate::cli::output::{complain, say};
use crate::cli::progress::Progress;
use crate::config::{self, MirrorFile, OnChange};
use crate::control::interface::{Control, Error, Outcome, Renewal, whole_status};
use crate::counted::counted;
use crate::mirror::plan::{self, Contents};
use crate::mirror::{meant, suited};
use crate::remedy::Remedy;
use crate::scope;
use crate::similar;
use crate::systemd::manager::Manager;

/// What takes less shows nothing meanwhile.
const SOON: Duration = Duration::from_millis(500);

/// Ask 1Password for the values of secrets now, instead of when they are next due
///
/// What could not be had stays as it was.
#[derive(clap::Args)]
pub struct Arguments {
    /// The secrets, by their names in the configuration; all of them if none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Only say what would change: secrets, files and units
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for 1Password; what comes later is kept all the same
    #[arg(long, value_name = "DURATION", default_value = "10min", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    config: ConfigArguments,
    #[command(flatten)]
    control: ControlArguments,
}

pub fn run(arguments: Arguments) -> Exit {
    let (names, dry_run) = (arguments.names, arguments.dry_run);
    let begun = Instant::now();
    let control = &arguments.control.control;
    let ask = async |mut service: Connection| {
        select! {
            refreshed = service.refresh(names, Some(dry_run)) => refreshed,
            never = show_progress(control) => match never {},
        }
    };
    let refreshed = match arguments.control.ask_within(arguments.timeout, ask) {
        Ok(refreshed) => refreshed,
        Err(Unanswered::Refused(Error::UnknownSecret { name })) => {
            let meant = arguments.control.ask(async |mut service| whole_status(&mut service).await);
            let known = meant.map_or_else(|_| Vec::new(), |status| status.secrets);
            let meant = similar::did_you_mean(&name, known.iter().map(|secret| secret.name.as_str()));
            let error = Error::UnknownSecret { name };
            let remedy = meant.or_else(|| error.remedy()).unwrap_or_default();
            return fail(Exit::Usage, format_args!("{error}\n{remedy}"));
        }
        Err(why) => return arguments.control.fail(why),
    };
    let width = refreshed.secrets.iter().map(|renewal| renewal.name.len()).max().unwrap_or(0);
    let mut exit = Exit::Ok;
    for renewal in &refreshed.secrets {
        let outcome = match renewal.outcome {
            Outcome::NotKept => "is never kept: every start asks for it",
            Outcome::Unchanged => "unchanged",
            Outcome::Fetched => "fetched",
            Outcome::Changed => "changed",
            Outcome::Failed => "FAILED",
        };
        say!("{:<width$}  {outcome}", renewal.name);
        if let Some(error) = &renewal.error {
            exit = Exit::Unavailable;
            say!("    {}", error.replace('\n', "\n    "));
        }
    }
    if stderr().is_terminal() {
        complain!("{}", summary(&refreshed.secrets, dry_run, begun.elapsed()));
    }
    if dry_run { consequences(&arguments.config.config, &refreshed.secrets).unwrap_or(exit) } else { exit }
}

/// Shows how far the service is, on a terminal. Does not end.
async fn show_progress(control: &Path) -> Infallible {
    sleep(SOON).await;
    let progress = Progress::begin("asking 1Password");
    if progress.is_shown() {
        // An older service does not tell, or too many others hear of it.
        let _ = hear_progress(control, &progress).await;
    }
    pending().await
}

async fn hear_progress(control: &Path, progress: &Progress) -> zlink::Result<()> {
    let mut service = connect(control).await?;
    let mut answers = pin!(service.progress().await?);
    while let Some(answer) = answers.next().await {
        if let Ok(Some(fetching)) = answer?.map(|answer| answer.fetching) {
            progress.set(fetching.done, fetching.all);
        }
    }
    Ok(())
}

/// For people, who have seen many lines go by.
fn summary(renewals: &[Renewal], dry_run: bool, took: Duration) -> String {
    let took = humantime::format_duration(Duration::from_millis(took.as_millis() as u64 / 100 * 100));
    let what = if dry_run { "looked at" } else { "refreshed" };
    let mut text = format!("{what} {} in {took}", counted(renewals.len(), "secret"));
    for (outcome, word) in
        [(Outcome::Fetched, "fetched"), (Outcome::Changed, "changed"), (Outcome::Failed, "failed")]
    {
        let count = renewals.iter().filter(|renewal| renewal.outcome == outcome).count();
        if count > 0 {
            text.push_str(&format!(", {count} {word}"));
        }
    }
    text
}

/// Prints what the mirror would do about these changes. `Some`: how to exit if that cannot be said.
fn consequences(files: &[PathBuf], renewals: &[Renewal]) -> Option<Exit> {
    let config = match config::load_from_anybody(files) {
        Ok(config) => config,
        Err(faults) => return Some(faulty(&faults)),
    };
    let named = |name: &str| config.entries.iter().find(|entry| entry.name == name);
    let content = |renewal: &Renewal| Some(named(&renewal.name)?.content.mirror_name().to_string());
    let (mut seen, mut now) = (Contents::new(), Contents::new());
    for renewal in renewals {
        let Some(content) = content(renewal) else { continue };
        let (before, after) = match renewal.outcome {
            Outcome::Changed => (Some("before"), Some("after")),
            Outcome::Fetched => (None, Some("after")),
            Outcome::Unchanged => (Some("before"), Some("before")),
            Outcome::NotKept | Outcome::Failed => (None, None),
        };
        seen.extend(before.map(|before| (content.clone(), before.to_owned())));
        now.extend(after.map(|after| (content, after.to_owned())));
    }
    // As if everything had been written as it is configured.
    let is_new = |file: &&MirrorFile| {
        let name = file.entry.content.mirror_name();
        now.get(name.as_str()).is_some_and(|now| seen.get(name.as_str()) != Some(now))
    };
    let written: BTreeSet<PathBuf> =
        config.files.iter().filter(is_new).map(|file| file.path.clone()).collect();
    let is_known = |path: &&PathBuf| {
        let mut files = config.files.iter().filter(|file| file.path == **path);
        files.any(|file| {
            let content = &file.entry.content;
            seen.contains_key(content.mirror_name().as_str()) && !plan::is_momentary(content)
        })
    };
    let news = written.iter().filter(is_known).cloned().collect();
    let units = plan::units(&config, &news, &now, &seen);
    // As the mirror would find them now.
    let mut manager = Manager::connect().ok();
    let mut acts = Vec::new();
    for (pattern, task) in &units {
        let found = manager.as_mut().and_then(|manager| meant(pattern, manager).ok()).unwrap_or_default();
        let named = if found.is_empty() { vec![pattern.clone()] } else { found };
        for name in named {
            let unit = manager.as_mut().and_then(|manager| manager.unit(&name).ok());
            let suited = unit.and_then(|unit| suited(task, &unit, &scope::socket()).into_iter().max());
            acts.push((verb(suited.unwrap_or(&task.action)), name));
        }
    }
    let rows = written.iter().map(|path| ("write".to_owned(), path.display().to_string()));
    let rows = rows.chain(acts);
    for (number, (what, on)) in rows.enumerate() {
        if number == 0 {
            say!();
        }
        say!("{what:<17} {on}");
    }
    None
}

fn verb(action: &OnChange) -> String {
    match action {
        OnChange::Nothing => "leave".to_owned(),
        OnChange::Signal(signal) => format!("send {signal}"),
        OnChange::Reload => "reload".to_owned(),
        OnChange::ReloadOrRestart => "reload or restart".to_owned(),
        OnChange::Restart => "restart".to_owned(),
    }
}
