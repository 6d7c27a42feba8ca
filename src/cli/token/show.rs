//! `opnix token show`: what is known of the token without asking 1Password.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::unistd::{Gid, Group, Uid, User};
use serde::Serialize;

use super::bring::try_out;
use super::check::read;
use super::known::{self, Known};
use super::place;
use crate::cli::control::{ControlArguments, SERVICE};
use crate::cli::output;
use crate::cli::status::page::Page;
use crate::cli::status::{date, relative};
use crate::cli::{ConfigArguments, Exit, fail};
use crate::process;
use crate::providers::child::token::Loaded;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    #[command(flatten)]
    control: ControlArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Everything that is told.
#[derive(Serialize)]
struct Shown<'a> {
    path: &'a Path,
    sealed: bool,
    owner: Option<String>,
    group: Option<String>,
    /// In octal.
    mode: Option<String>,
    /// In seconds since 1970, as the two below.
    written: Option<i64>,
    kind: Option<&'static str>,
    account: Option<String>,
    host: Option<String>,
    expires: Option<u64>,
    /// Whether it is what the running service asks with. `None`: it cannot be asked.
    in_force: Option<bool>,
    /// Why it is not a token.
    error: Option<String>,
    /// Why the service would not take it.
    #[serde(skip)]
    refusal: Option<String>,
}

pub fn show(named: Option<PathBuf>, arguments: &Arguments) -> Exit {
    let _ = process::protect();
    let loaded = place::loaded();
    let Some(file) = place::to_read(named, loaded.as_ref()) else {
        let what = format_args!("{SERVICE} loads no token from a file\nname the file with --path");
        return fail(Exit::Unavailable, what);
    };
    // With a faulty configuration the token is judged by how it looks.
    let provider = known::provider(&arguments.config.config).unwrap_or_default();
    let mut shown = Shown::of(&file, fs::metadata(file.path()).ok().as_ref());
    match read(&file, provider.as_ref()) {
        Ok(token) => {
            shown.tell_of(&token);
            shown.ask_the_service(&file, &arguments.control);
        }
        Err(why) => shown.error = Some(why),
    }
    shown.print(arguments.json)
}

impl<'a> Shown<'a> {
    fn of(file: &'a Loaded, metadata: Option<&Metadata>) -> Self {
        Self {
            path: file.path(),
            sealed: matches!(file, Loaded::Sealed(_)),
            owner: metadata.map(|metadata| user(metadata.uid())),
            group: metadata.map(|metadata| group(metadata.gid())),
            mode: metadata.map(|metadata| format!("{:04o}", metadata.mode() & 0o7777)),
            written: metadata.map(MetadataExt::mtime),
            kind: None,
            account: None,
            host: None,
            expires: None,
            in_force: None,
            error: None,
            refusal: None,
        }
    }

    fn tell_of(&mut self, token: &Known) {
        self.kind = Some(token.kind());
        self.account = token.account().map(str::to_owned);
        self.host = token.host();
        self.expires = token.expires();
    }

    /// A look does not start it.
    fn ask_the_service(&mut self, file: &Loaded, control: &ControlArguments) {
        match control.is_up().then(|| try_out(file, control)).flatten() {
            Some(Ok(taken)) => self.in_force = Some(!taken.changed),
            Some(Err(why)) => {
                self.in_force = Some(false);
                self.refusal = Some(why);
            }
            None => {}
        }
    }

    fn print(&self, json: bool) -> Exit {
        let exit = if self.error.is_none() { Exit::Ok } else { Exit::Unavailable };
        if json {
            return output::as_json(self, exit);
        }
        output::to_stdout(format_args!("{}", self.page(SystemTime::now()).into_text()));
        match &self.error {
            Some(why) => fail(exit, why),
            None => exit,
        }
    }

    fn page(&self, now: SystemTime) -> Page {
        let mut page = Page::for_the_terminal();
        let how = if self.sealed { "sealed with systemd-creds" } else { "plain" };
        page.line("file", format_args!("{}, {how}", self.path.display()));
        if let (Some(owner), Some(group), Some(mode)) = (&self.owner, &self.group, &self.mode) {
            page.line("owner", format_args!("{owner}:{group}, mode {mode}"));
        }
        if let Some(written) = self.written.and_then(|written| u64::try_from(written).ok()) {
            let when = humantime::format_rfc3339_seconds(date(written));
            page.line("written", format_args!("{when}, {}", relative(written, now)));
        }
        for (name, what) in [("kind", self.kind), ("account", self.account.as_deref())] {
            what.into_iter().for_each(|what| page.line(name, what));
        }
        if let Some(host) = &self.host {
            page.line("host", host);
        }
        if let Some(expires) = self.expires {
            let when = humantime::format_rfc3339_seconds(date(expires));
            page.line("expires", format_args!("{when}, {}", relative(expires, now)));
        }
        if self.error.is_none() {
            page.line("in force", self.is_in_force());
        }
        page
    }

    fn is_in_force(&self) -> String {
        match (self.in_force, &self.refusal) {
            (_, Some(why)) => format!("no: the running service does not take it: {why}"),
            (Some(true), None) => "yes, the running service has it".to_owned(),
            (Some(false), None) => {
                "no: the running service has another one; have it take this one: opnix token take, with the --path of this file if it is not the one that the service loads".to_owned()
            }
            (None, None) => "not known: the service cannot be asked".to_owned(),
        }
    }
}

fn user(uid: u32) -> String {
    let known = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    known.map_or_else(|| uid.to_string(), |user| user.name)
}

fn group(gid: u32) -> String {
    let known = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    known.map_or_else(|| gid.to_string(), |group| group.name)
}
