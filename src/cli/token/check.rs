//! `opnix token check`: tries the token that is in the file, whatever the running service has in force.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Uid;
use serde::Serialize;
use tokio::time::timeout;

use super::known::{self, Known};
use super::{bring, place};
use crate::cli::control::SERVICE;
use crate::cli::doctor::finding::Finding;
use crate::cli::doctor::token::of_its_file;
use crate::cli::output::{self, say};
use crate::cli::{ConfigArguments, Exit, fail, faulty};
use crate::config;
use crate::counted::counted;
use crate::moment::Moment;
use crate::process;
use crate::providers::ask::{List, Listed};
use crate::providers::child::token::{Loaded, TokenSource};
use crate::providers::ledger::Meter;
use crate::providers::{FetchError, Provider};
use crate::remedy::Remedy;

/// How long 1Password may take for everything.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What came of it, for programs.
#[derive(Serialize)]
struct Report<'a> {
    path: &'a Path,
    sealed: bool,
    kind: &'static str,
    account: Option<String>,
    host: Option<String>,
    /// `None`: 1Password did not say.
    accepted: Option<bool>,
    error: Option<Failure>,
    vaults: Option<Vec<Vault>>,
    /// Some vaults could not be read.
    incomplete: bool,
    /// Never known: neither 1Password's SDK nor a Connect server tells it.
    may_write: Option<bool>,
    requests: u32,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Failure {
    kind: &'static str,
    text: String,
}

#[derive(Serialize)]
struct Vault {
    id: String,
    title: String,
}

pub fn check(named: Option<PathBuf>, arguments: &Arguments) -> Exit {
    let _ = process::protect();
    let provider = match known::provider(&arguments.config.config) {
        Ok(Some(config::Provider::Local { .. })) => {
            return fail(Exit::Unavailable, "the configuration's provider is a file, which needs no token");
        }
        Ok(provider) => provider,
        Err(faults) => return faulty(&faults),
    };
    let loaded = place::loaded();
    let Some(file) = place::to_read(named, loaded.as_ref()) else {
        let what = format_args!("{SERVICE} loads no token from a file\nname the file with --path");
        return fail(Exit::Unavailable, what);
    };
    let is_services = loaded.as_ref() == Some(&file);
    let findings = match fs::metadata(file.path()) {
        Ok(metadata) => of_its_file(file.path(), &metadata, is_services && Uid::effective().is_root()),
        // It cannot be read either.
        Err(_) => Vec::new(),
    };
    let known = match read(&file, provider.as_ref()) {
        Ok(known) => known,
        Err(why) => return fail(Exit::Unavailable, why),
    };
    let provider = match (provider, &known) {
        (Some(provider), _) => provider,
        (None, Known::ServiceAccount(_)) => {
            config::Provider::ServiceAccount { library: None, hosts: Vec::new() }
        }
        (None, Known::Connect { .. }) => {
            let what = "which Connect server the token is for only a configuration says: there is none\nname it with --config";
            return fail(Exit::Config, what);
        }
    };
    let (mut report, whose) = (Report::of(&file, &known, findings), known.whose());
    let meter = Meter::default();
    let listed = ask(provider, known, meter.clone());
    report.requests = meter.ledger().last_hour(Moment::now());
    report.fill(listed);
    report.show(&whose, arguments.json)
}

/// The token in a file, if it is one; or why not, and what to do.
pub fn read(file: &Loaded, provider: Option<&config::Provider>) -> Result<Known, String> {
    let path = file.path().display();
    if fs::metadata(file.path()).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(format!(
            "{path} is not a file, and is not read here: only systemd gets the token from it"
        ));
    }
    if let Err(error) = File::open(file.path())
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        return Err(format!("{path} is not for this user to read: {error}\nrun this as root"));
    }
    let known = bring::read(file).and_then(|token| Known::of(token, provider));
    known.map_err(|error| match (error, file) {
        (FetchError::TokenMissing { looked }, Loaded::Plain(_)) => {
            format!("there is no token: {looked}\nopnix token set --path {path}")
        }
        (FetchError::TokenMissing { looked }, Loaded::Sealed(_)) => {
            format!("there is no token: {looked}\nopnix token set")
        }
        (error, _) => format!("{path}: {}", error.lines()),
    })
}

fn ask(provider: config::Provider, token: Known, meter: Meter) -> Result<List, FetchError> {
    let source = TokenSource::find(None);
    source.hand_over(token.into_secret());
    let provider = Provider::new(provider, source, meter);
    let runtime = process::runtime().map_err(|error| FetchError::Runtime { why: error.to_string() })?;
    let limited = async { timeout(LIMIT, provider.vaults()).await };
    runtime.block_on(limited).unwrap_or(Err(FetchError::TimedOut(LIMIT)))
}

impl<'a> Report<'a> {
    fn of(file: &'a Loaded, token: &Known, findings: Vec<Finding>) -> Self {
        Self {
            path: file.path(),
            sealed: matches!(file, Loaded::Sealed(_)),
            kind: token.kind(),
            account: token.account().map(str::to_owned),
            host: token.host(),
            accepted: None,
            error: None,
            vaults: None,
            incomplete: false,
            may_write: None,
            requests: 0,
            findings,
        }
    }

    fn fill(&mut self, listed: Result<List, FetchError>) {
        match listed {
            Ok(List { entries, spoiled }) => {
                self.accepted = Some(true);
                self.incomplete = spoiled;
                let vault = |listed: Listed| Vault { id: listed.id, title: listed.title };
                self.vaults = Some(entries.into_iter().map(vault).collect());
            }
            Err(error) => {
                let is_verdict = matches!(error, FetchError::TokenRejected | FetchError::AccountRefused);
                self.accepted = is_verdict.then_some(false);
                self.error = Some(Failure { kind: error.kind(), text: error.lines() });
            }
        }
    }

    fn show(&self, whose: &str, json: bool) -> Exit {
        let exit = if self.accepted == Some(true) { Exit::Ok } else { Exit::Unavailable };
        if json {
            return output::as_json(self, exit);
        }
        if let Some(vaults) = &self.vaults {
            self.show_accepted(whose, vaults);
        }
        self.findings.iter().for_each(|finding| say!("{}", finding.text()));
        match &self.error {
            None => exit,
            Some(Failure { text, .. }) if self.accepted.is_some() => {
                fail(exit, format_args!("{}, {whose}: {text}", self.path.display()))
            }
            Some(Failure { text, .. }) => {
                fail(exit, format_args!("whether {whose} is accepted could not be found out: {text}"))
            }
        }
    }

    fn show_accepted(&self, whose: &str, vaults: &[Vault]) {
        let requests = counted(self.requests, "request");
        say!("accepted: {whose}, in {} ({requests})", self.path.display());
        if vaults.is_empty() {
            say!("it may read no vault: share one with it in 1Password");
        } else {
            say!("it may read {}:", counted(vaults.len(), "vault"));
        }
        // By the names that people gave, which are anything.
        vaults.iter().for_each(|vault| say!("    {}  {:?}", vault.id, vault.title));
        if self.incomplete {
            say!("there are more, of which the answer could not be read");
        }
        say!(
            "whether it may also write is not known: {} does not tell; see in 1Password that it may only read, which is all that opnix needs",
            match self.account {
                Some(_) => "1Password's SDK",
                None => "a Connect server",
            }
        );
    }
}
