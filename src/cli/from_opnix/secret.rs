//! `opnix secret`: OpNix's command, which writes all files once.

use std::path::{Component, Path, PathBuf};

use super::super::{Exit, fail, faulty};
use crate::cli::output::{complain, say};
use crate::config;
use crate::counted::counted;
use crate::mirror::accounts::Accounts;
use crate::mirror::install::{self, Wanted};
use crate::mirror::way;
use crate::reference::Reference;
use crate::remedy::Remedy;
use crate::secret::Secret;

/// Write the files of a configuration once, without a service, as OpNix does
///
/// For everything else than moving over, opnix-mirror.service is better: it writes to memory, and keeps the files current.
#[derive(clap::Args)]
pub struct Arguments {
    /// The configuration; can be given several times
    #[arg(long, value_name = "FILE", default_value = "secrets.json")]
    config: Vec<PathBuf>,
    /// Where relative paths start
    #[arg(long, value_name = "DIR", default_value = "secrets")]
    output: PathBuf,
    /// The file with the token, by default the one that opnix.service loads; $OP_SERVICE_ACCOUNT_TOKEN stands above it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// 1Password's core library, if neither the configuration nor `opnix core install` says where it is
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
}

pub fn run(arguments: Arguments) -> Exit {
    let mut config = match config::load_from_anybody(&arguments.config) {
        Ok(config) => config,
        Err(faults) => {
            faulty(&faults);
            return Exit::General;
        }
    };
    if let (config::Provider::ServiceAccount { library, .. }, Some(named)) =
        (&mut config.provider, arguments.library)
    {
        *library = Some(named);
    }
    // Not past symlinks that somebody else may have put on the way: this may be run by root.
    let output = match std::path::absolute(&arguments.output) {
        Ok(output) if !output.components().any(|part| part == Component::ParentDir) => {
            config::past_own_links(&output)
        }
        Ok(output) => {
            let what =
                format_args!("{}: a path with `..` may lead anywhere: name the real one", output.display());
            return fail(Exit::General, what);
        }
        Err(error) => return fail(Exit::General, format_args!("{}: {error}", arguments.output.display())),
    };
    match way::directory(&output).and_then(|directory| install::in_memory(&directory)) {
        Ok(true) => {}
        Ok(false) => {
            complain!(
                "opnix: warning: {} is on a disk: the secrets stay there in plain text",
                output.display()
            );
        }
        Err(error) => return fail(Exit::General, format_args!("{}: {error}", output.display())),
    }
    for file in &mut config.files {
        if let Ok(below) = file.path.strip_prefix(&config.mirror_root) {
            // The links to what is in memory are the mirror's.
            let link = config.link_root.as_ref().map(|root| root.join(below));
            file.symlinks.retain(|other| Some(other) != link.as_ref());
            file.path = output.join(below);
        }
    }
    let accounts = Accounts::look_up(&config.files);
    let mut references: Vec<Reference> =
        config.files.iter().flat_map(|file| file.entry.content.references().cloned()).collect();
    references.sort_unstable();
    references.dedup();
    let fetched = super::fetch(
        config.provider,
        &super::token_file(arguments.token_file),
        config.timing.deadline,
        references.clone(),
    );
    let value = |reference: &Reference| references.binary_search(reference).ok().map(|at| &fetched[at]);

    let mut worst = Exit::Ok;
    let mut failed = |path: &Path, exit: Exit, why: String| {
        complain!("opnix: {}: {why}", path.display());
        // The limit is the cause of the failures after it.
        if worst != Exit::Limited {
            worst = exit;
        }
    };
    let mut written = 0;
    for file in &config.files {
        let values: Vec<_> = file.entry.content.references().filter_map(value).collect();
        if let Some(error) = values.iter().find_map(|value| value.as_ref().err()) {
            failed(&file.path, super::exit(error), error.lines());
            continue;
        }
        let values: Vec<Borrowed<'_>> =
            values.iter().filter_map(|value| value.as_ref().ok().map(Borrowed)).collect();
        let installed = file
            .entry
            .content
            .render(&values)
            .map_err(|error| error.to_string())
            .and_then(|value| Ok((value, accounts.of(file)?)))
            .and_then(|(value, owner)| {
                let wanted = Wanted { path: file.path.clone(), owner, mode: file.mode, value: value.into() };
                install::put(&wanted).map_err(|error| error.to_string())?;
                file.symlinks.iter().try_for_each(|link| {
                    let linked = install::link(link, &file.path, owner);
                    linked.map(drop).map_err(|error| format!("its link {}: {error}", link.display()))
                })
            });
        match installed {
            Ok(()) => written += 1,
            Err(why) => failed(&file.path, Exit::General, why),
        }
    }
    say!("wrote {written} of {}", counted(config.files.len(), "file"));
    worst
}

/// For [`crate::template::Template::render`].
struct Borrowed<'a>(&'a Secret);

impl AsRef<Secret> for Borrowed<'_> {
    fn as_ref(&self) -> &Secret {
        self.0
    }
}
