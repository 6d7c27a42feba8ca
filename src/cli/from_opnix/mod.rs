//! What the commands for people who come from OpNix have in common: they ask the provider themselves, without a service, and
//! have OpNix's flags and exit codes.

pub mod env;
pub mod secret;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Exit;
use crate::config;
use crate::process;
use crate::providers::child::token::{Loaded, TokenSource, loaded};
use crate::providers::ledger::Meter;
use crate::providers::{FetchError, Provider};
use crate::reference::Reference;
use crate::secret::Secret;

/// Where OpNix stores the token.
const OF_OPNIX: &str = "/etc/opnix-token";
/// The variable that takes precedence over the file.
const VARIABLE: &str = "OP_SERVICE_ACCOUNT_TOKEN";
/// The commands whose flags may have one dash, as in OpNix.
const COMMANDS: [&str; 3] = ["secret", "token", "env"];

/// Takes `-config` for `--config` where OpNix does.
pub fn flags(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut arguments: Vec<String> = arguments.collect();
    if arguments.get(1).is_some_and(|command| COMMANDS.contains(&command.as_str())) {
        for argument in arguments.iter_mut().skip(2) {
            if argument.len() > 2 && argument.starts_with('-') && !argument.starts_with("--") {
                argument.insert(0, '-');
            }
        }
    }
    arguments
}

/// The file with the token: the named one, else the one that opnix.service loads, else OpNix's if only that exists.
pub fn token_file(named: Option<PathBuf>) -> PathBuf {
    let opnix = PathBuf::from(OF_OPNIX);
    named.unwrap_or_else(|| match loaded() {
        Some(Loaded::Plain(path)) if path.exists() || !opnix.exists() => path,
        _ => opnix,
    })
}

/// One result for each reference.
pub fn fetch(
    provider: config::Provider,
    token: &Path,
    limit: Duration,
    references: Vec<Reference>,
) -> Vec<Result<Secret, FetchError>> {
    // The provider reads the variable when no file is named.
    let token = std::env::var_os(VARIABLE).is_none().then(|| PathBuf::from(token));
    let provider = Provider::new(provider, TokenSource::find(token.as_deref()), Meter::default());
    let runtime = match process::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = FetchError::Runtime { why: error.to_string() };
            return references.iter().map(|_| Err(error.clone())).collect();
        }
    };
    runtime.block_on(provider.fetch_all(&references, limit))
}

/// OpNix's exit codes.
pub fn exit(error: &FetchError) -> Exit {
    match error {
        FetchError::RateLimited { .. } => Exit::Limited,
        FetchError::VaultNotFound { .. }
        | FetchError::ItemNotFound { .. }
        | FetchError::SectionNotFound { .. }
        | FetchError::FieldNotFound { .. }
        | FetchError::FileNotFound { .. } => Exit::Missing,
        _ => Exit::General,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dash_is_enough_where_opnix_has_one() {
        let of = |line: &str| flags(line.split(' ').map(str::to_owned)).join(" ");
        assert_eq!(of("opnix secret -config a -output b"), "opnix secret --config a --output b");
        assert_eq!(of("opnix token -path x set"), "opnix token --path x set");
        assert_eq!(of("opnix env --format json -h"), "opnix env --format json -h");
        assert_eq!(of("opnix check -config a"), "opnix check -config a");
    }
}
