//! `opnix token set`: OpNix's command, which stores the token.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Exit, fail, once};
use crate::files::StateDirectory;
use crate::providers::service_account::token::Token;
use crate::secret::Secret;

/// Longer than any token, in bytes.
const SIZE_MAX: u64 = 64 << 10;

/// Store the token of a service account or a Connect server
#[derive(clap::Args)]
pub struct Arguments {
    /// The file for it
    #[arg(long, value_name = "FILE", default_value = once::TOKEN, global = true)]
    path: PathBuf,
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Read the token from standard input and store it, for its owner alone to read
    Set,
}

pub fn run(arguments: Arguments) -> Exit {
    let Action::Set = arguments.action;
    if std::io::stdin().is_terminal() {
        eprintln!("Paste the token, then Enter and Ctrl-D:");
    }
    let mut text = Zeroizing::new(Vec::with_capacity(SIZE_MAX as usize + 1));
    if let Err(error) = std::io::stdin().lock().take(SIZE_MAX + 1).read_to_end(&mut text) {
        return fail(Exit::General, format_args!("the token cannot be read: {error}"));
    }
    let token = text.trim_ascii();
    if token.is_empty() || text.len() as u64 > SIZE_MAX || token.contains(&b'\n') {
        return fail(Exit::General, "that is no token: it is one line\ncopy it again from 1Password, whole");
    }
    // A token of a service account can be looked through; one of a Connect server cannot.
    if token.starts_with(b"ops_")
        && let Ok(secret) = Secret::copy_from(token)
        && let Err(error) = Token::check(secret, &[])
    {
        return fail(Exit::General, error);
    }
    let directory = arguments.path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let Some(name) = arguments.path.file_name().and_then(|name| name.to_str()) else {
        return fail(Exit::General, format_args!("{} is no path of a file", arguments.path.display()));
    };
    let stored =
        std::fs::create_dir_all(directory).and_then(|()| StateDirectory::new(directory).replace(name, token));
    match stored {
        Ok(()) => {
            println!("stored the token in {}", arguments.path.display());
            Exit::Ok
        }
        Err(error) => fail(Exit::General, format_args!("{}: {error}", arguments.path.display())),
    }
}
