//! Is there a token, is it one, who can read it, and is it the one in use.

use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use super::Case;
use super::finding::{Finding, Kind};
use crate::cli::control::SERVICE;
use crate::cli::status::relative;
use crate::cli::token::bring::{read, try_out};
use crate::config;
use crate::mirror::install::in_memory;
use crate::providers::child::token::{self, Loaded, TokenSource};
use crate::providers::ledger::Meter;
use crate::providers::{FetchError, Provider};
use crate::remedy::Remedy;
use crate::scope;
use crate::secret::Secret;

const AREA: &str = "token";
/// How long opnix-token.service may take to bring a new one, and how often to look.
const BRINGING: u32 = 6;
const LOOK: Duration = Duration::from_secs(1);

pub(super) fn look(case: &Case) -> Vec<Finding> {
    let provider = case.config().map(|config| &config.provider);
    // Of a faulty configuration nobody knows what it would say.
    let in_force = || case.status()?.provider.as_ref().map(|provider| provider.kind.as_str());
    match provider.map(config::Provider::kind).or_else(in_force) {
        Some("local") => return vec![Finding::fine(AREA, "the provider is a file, which needs none")],
        None => return vec![Finding::unseen(AREA, "whether one is needed only a valid configuration says")],
        Some(_) => {}
    }
    let loaded = match which(case) {
        Ok(Some(loaded)) => loaded,
        Ok(None) if is_set_in_the_unit(case) => {
            return vec![Finding::unseen(
                AREA,
                "opnix.service has it from its unit file or from the system: SetCredential=, ImportCredential=",
            )];
        }
        Ok(None) => {
            let what = "opnix.service loads no token from a file";
            let mend =
                format!("put it into {}, or name its file with --token-file", scope::token().display());
            return vec![Finding::fault(Kind::TokenMissing, AREA, what).mend(mend)];
        }
        Err(why) => return vec![Finding::unseen(AREA, why)],
    };
    let mut findings = Vec::new();
    let token = the_file(case, &loaded, &mut findings);
    // Only a valid configuration says what kind of token it has to be.
    if let (Some(token), Some(provider)) = (token, provider) {
        match judge(provider, token) {
            Err(error) => findings
                .push(Finding::fault(Kind::TokenInvalid, AREA, "").lines(&error.lines()).at(shown(&loaded))),
            Ok(()) => findings.extend(in_use(case, &loaded)),
        }
    }
    findings.extend(before(case));
    if findings.is_empty() {
        findings.push(Finding::fine(AREA, describe(case, &loaded)));
    }
    findings
}

fn shown(loaded: &Loaded) -> String {
    loaded.path().display().to_string()
}

fn which(case: &Case) -> Result<Option<Loaded>, String> {
    if let Some(path) = &case.arguments.token_file {
        return Ok(Some(Loaded::Plain(path.clone())));
    }
    if case.is_of_the_user() {
        return Ok(Some(Loaded::Plain(of_the_user(case))));
    }
    if !case.arguments.control.is_systems() {
        return Err("which file the service has it from is not known: name it with --token-file".into());
    }
    token::loaded_for_sure().or_else(|_| Ok(token::loaded()))
}

/// The file that opnix.service of this user is started with.
fn of_the_user(case: &Case) -> PathBuf {
    let unit = case.manager().and_then(|mut manager| manager.unit(SERVICE).ok());
    let said = unit.and_then(|unit| {
        let mut words = unit.arguments().skip_while(|word| *word != "--token-file");
        words.nth(1).map(PathBuf::from)
    });
    said.unwrap_or_else(scope::token)
}

fn is_set_in_the_unit(case: &Case) -> bool {
    let unit = case.manager().and_then(|mut manager| manager.unit(SERVICE).ok());
    unit.is_some_and(|unit| unit.has_another_credential("token"))
}

/// What is in it, where it can be read and is not empty.
fn the_file(case: &Case, loaded: &Loaded, findings: &mut Vec<Finding>) -> Option<Secret> {
    let path = loaded.path();
    let place = shown(loaded);
    // Where it is loaded sealed, that is done by itself, and only without a path that says otherwise.
    let put = match loaded {
        Loaded::Plain(_) => format!("opnix token set --path {place}"),
        Loaded::Sealed(_) => "opnix token set".to_owned(),
    };
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            findings.push(Finding::unseen(AREA, format!("{place}: {error}")));
            return None;
        }
        Err(error) => {
            findings.push(Finding::fault(Kind::TokenMissing, AREA, format!("{place}: {error}")).mend(put));
            return None;
        }
    };
    if !metadata.is_file() {
        findings.push(Finding::unseen(AREA, format!("{place} is no file, and gives it to systemd alone")));
        return None;
    }
    findings.extend(of_its_file(path, &metadata, case.is_of_the_system()));
    if let Err(error) = File::open(path)
        && error.kind() == ErrorKind::PermissionDenied
    {
        findings.push(Finding::unseen(AREA, format!("{place}: {error}")));
        return None;
    }
    match read(loaded) {
        Ok(token) => Some(token),
        Err(FetchError::TokenMissing { looked }) => {
            findings.push(Finding::fault(Kind::TokenMissing, AREA, looked).mend(put));
            None
        }
        Err(error) => {
            findings.push(Finding::fault(Kind::TokenInvalid, AREA, "").lines(&error.lines()).at(place));
            None
        }
    }
}

/// What is wrong with who can get at it, and where it is.
pub fn of_its_file(path: &Path, metadata: &Metadata, is_of_the_system: bool) -> Vec<Finding> {
    let place = path.display();
    let mut findings = Vec::new();
    if metadata.mode() & 0o007 != 0 {
        let what = format!("all users can get at {place} (mode {:04o})", metadata.mode() & 0o7777);
        findings.push(Finding::fault(Kind::TokenOpen, AREA, what).mend(format!("chmod 0600 {place}")));
    }
    if metadata.uid() != 0 && is_of_the_system {
        let what = format!("{place} belongs to user {}, who can read and replace it", metadata.uid());
        findings.push(Finding::warning(Kind::TokenOpen, AREA, what).mend(format!("chown root {place}")));
    }
    if is_volatile(path) {
        let what = format!("{place} is in memory, and gone at the next boot");
        let mend = "keep it on a disk; on NixOS with impermanence, set `persistence.root`";
        findings.push(Finding::warning(Kind::TokenVolatile, AREA, what).mend(mend));
    }
    findings
}

fn judge(provider: &config::Provider, token: Secret) -> Result<(), FetchError> {
    Provider::new(provider.clone(), TokenSource::find(None), Meter::default()).check_token(token).map(drop)
}

/// Whether the service has another one in force. A new one takes a moment to be brought.
fn in_use(case: &Case, loaded: &Loaded) -> Option<Finding> {
    case.status()?;
    let bring = "systemctl start opnix-token.service; opnix token take";
    for _ in 0..BRINGING {
        match try_out(loaded, &case.arguments.control)? {
            Ok(taken) if !taken.changed => return None,
            Ok(_) => sleep(LOOK),
            Err(why) => {
                return Some(
                    Finding::fault(Kind::TokenNotInUse, AREA, "the service does not take the token: ")
                        .lines(&why)
                        .mend(bring),
                );
            }
        }
    }
    let what = format!("the one in {} is not in use: the service has another one", loaded.path().display());
    Some(Finding::fault(Kind::TokenNotInUse, AREA, what).mend(bring))
}

/// Whether another account's values are still kept.
fn before(case: &Case) -> Option<Finding> {
    let provider = case.status()?.provider.as_ref()?;
    let before = provider.account_before.as_ref()?;
    let now = provider.account.as_deref().unwrap_or("another account");
    let what = format!("it is of {now}; what is kept came from {before}");
    let mend = "if that was a mistake, put the token of the account before back; else nothing: the first value of the new one replaces them";
    Some(Finding::fault(Kind::TokenOfAnotherAccount, AREA, what).mend(mend))
}

fn describe(case: &Case, loaded: &Loaded) -> String {
    let account = case.status().and_then(|status| status.provider.as_ref()?.account.clone());
    let of = account.map_or(String::new(), |account| format!(", of {account}"));
    let put = loaded.path().metadata().and_then(|metadata| metadata.modified()).ok();
    let seconds = put.and_then(|put| put.duration_since(SystemTime::UNIX_EPOCH).ok());
    let since = seconds
        .map_or(String::new(), |at| format!(", put there {}", relative(at.as_secs(), SystemTime::now())));
    let in_use = if case.status().is_some() { ", and in use" } else { "" };
    format!("{}{of}{since}{in_use}", loaded.path().display())
}

/// Whether it is on a file system in memory. A root that is reset at each boot looks like a disk all the same.
pub fn is_volatile(path: &Path) -> bool {
    File::open(path).and_then(|file| in_memory(&file.as_fd())).unwrap_or(false)
}
