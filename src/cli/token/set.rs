//! `opnix token set`: OpNix's command, which stores the token.

use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::cli::output::{complain, say};
use crate::cli::{Exit, fail};
use crate::files::{self, Attributes};
use crate::providers::ask::service_account::token::Token;
use crate::providers::child::token::{self, Loaded};
use crate::remedy::Remedy;
use crate::secret::Secret;

/// Longer than any token, in bytes.
const SIZE_MAX: usize = 64 << 10;

/// `named`: the file for it, if not the one that opnix.service loads.
pub fn set(named: Option<PathBuf>) -> Exit {
    let path = match named.map(Loaded::Plain).or_else(token::loaded) {
        Some(Loaded::Plain(path)) => path,
        Some(Loaded::Sealed(path)) => {
            let path = path.display();
            return fail(
                Exit::General,
                format_args!(
                    "opnix.service loads a sealed token, {path}\nseal the new one: systemd-creds encrypt --name=token - {path}"
                ),
            );
        }
        None => {
            return fail(
                Exit::General,
                "opnix.service loads no token from a file\nname the file with -path, and in the unit: LoadCredential=token:FILE",
            );
        }
    };
    if io::stdin().is_terminal() {
        complain!("Paste the token, then Enter and Ctrl-D:");
    }
    // Not through the standard library's buffer, which nobody wipes.
    let input = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let text = match input.and_then(|input| files::read_from(input, 0, SIZE_MAX)) {
        Ok(text) => text,
        Err(error) => return fail(Exit::General, format_args!("the token cannot be read: {error}")),
    };
    let token = text.trim_ascii();
    if token.is_empty() || token.contains(&b'\n') {
        return fail(
            Exit::General,
            "that is not a token, which has exactly one line\ncopy it again from 1Password, whole",
        );
    }
    // The token of a service account can be checked; that of a Connect server cannot.
    if token.starts_with(b"ops_")
        && let Ok(secret) = Secret::copy_from(token)
        && let Err(error) = Token::check(secret, &[])
    {
        return fail(Exit::General, error.lines());
    }
    match store(&path, token) {
        Ok(()) => {
            say!("stored the token in {}", path.display());
            Exit::Ok
        }
        Err(error) => fail(Exit::General, format_args!("{}: {error}", path.display())),
    }
}

fn store(path: &Path, token: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("it is not the path of a file"))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    files::replace(&File::open(directory)?, name, token, Attributes::PRIVATE).map(drop)
}
