//! `opnix token set`: OpNix's command, which stores the token.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::known::{self, Known};
use super::{input, place};
use crate::cli::output::say;
use crate::cli::setup::creds::Creds;
use crate::cli::{ConfigArguments, Exit, fail};
use crate::process;
use crate::providers::child::token::{CREDENTIAL, Loaded};
use crate::remedy::Remedy;
use crate::secret::Secret;

/// How long a TPM may take.
const SEALING: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub struct Arguments {
    /// Seal it with systemd-creds, so that only this machine can open it; done anyway where opnix.service loads a sealed one
    #[arg(long)]
    seal: bool,
    /// What systemd-creds seals it with: auto, host, tpm2 or host+tpm2
    #[arg(long, value_name = "KEY", default_value = "auto", value_parser = ["auto", "host", "tpm2", "host+tpm2"], hide_possible_values = true)]
    with_key: String,
    #[command(flatten)]
    config: ConfigArguments,
}

/// `named`: the file for it, if not the one that opnix.service loads.
pub fn set(named: Option<PathBuf>, arguments: &Arguments) -> Exit {
    // Nothing of the token is swapped or dumped, where that can be had.
    let _ = process::protect();
    let loaded = place::loaded();
    let stored = place::to_write(named, arguments.seal, loaded.as_ref())
        .and_then(|to| store(&to, arguments).map(|(whose, told)| (to, whose, told)));
    let (to, whose, told) = match stored {
        Ok(stored) => stored,
        Err(why) => return fail(Exit::General, why),
    };
    let sealed = if matches!(to, Loaded::Sealed(_)) { ", sealed," } else { "" };
    say!("stored {whose}{sealed} in {}", to.path().display());
    told.into_iter().for_each(|told| say!("{told}"));
    match place::what_next(&to, loaded.as_ref()) {
        Ok(next) => {
            next.into_iter().for_each(|next| say!("{next}"));
            Exit::Ok
        }
        Err(why) => fail(Exit::General, why),
    }
}

/// Whose token it is, and what else is worth telling.
fn store(to: &Loaded, arguments: &Arguments) -> Result<(String, Option<String>), String> {
    let text = input::take()?;
    let token = Secret::take(text).map_err(|error| error.to_string())?;
    // What is wrong with a configuration that is being written yet does not concern the token.
    let provider = known::provider(&arguments.config.config).unwrap_or_default();
    let token = Known::of(token, provider.as_ref()).map_err(|error| error.lines())?;
    let path = to.path();
    let stored = match to {
        Loaded::Plain(_) => place::store(path, token.secret().expose()),
        Loaded::Sealed(_) => place::store(path, &seal(token.secret(), &arguments.with_key)?),
    };
    let told = stored.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((token.whose(), told))
}

fn seal(token: &Secret, with_key: &str) -> Result<Vec<u8>, String> {
    let creds = Creds { program: "systemd-creds".into(), until: Instant::now() + SEALING };
    creds
        .seal(CREDENTIAL, token.expose(), with_key, SEALING)
        .map_err(|why| format!("the token cannot be sealed, and nothing was changed: {why}"))
}
