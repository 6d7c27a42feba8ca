//! Where the token of a provider comes from. Read anew each time, so that a replaced one counts at once.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::FetchError;
use crate::files;
use crate::secret::Secret;

/// The name of the credential, and of the file in `$CREDENTIALS_DIRECTORY`.
const CREDENTIAL: &str = "token";
/// For the command line.
const VARIABLE: &str = "OP_SERVICE_ACCOUNT_TOKEN";
/// A token longer than this, in bytes, is a mistake.
const SIZE_MAX: usize = 64 << 10;

#[derive(Debug, Clone)]
pub enum TokenSource {
    File(PathBuf),
    Variable,
}

impl TokenSource {
    /// The file that is named, else the credential of the unit, else the variable.
    pub fn find(named: Option<&Path>) -> Self {
        let credential =
            || env::var_os("CREDENTIALS_DIRECTORY").map(|directory| Path::new(&directory).join(CREDENTIAL));
        named.map(Path::to_owned).or_else(credential).map_or(Self::Variable, Self::File)
    }

    /// The token without the white space around it.
    pub fn read(&self) -> Result<Secret, FetchError> {
        let (text, looked) = match self {
            Self::File(path) => {
                let looked = format!("{} is", path.display());
                let missing = |error: io::Error| FetchError::TokenMissing {
                    looked: format!("{looked} not readable: {error}"),
                };
                (files::read(path, SIZE_MAX).map_err(missing)?, looked)
            }
            // The environment keeps its own copy in any case.
            Self::Variable => {
                let looked = format!("${VARIABLE} is");
                let missing = || FetchError::TokenMissing { looked: format!("{looked} not set") };
                (Zeroizing::new(env::var(VARIABLE).map_err(|_| missing())?.into_bytes()), looked)
            }
        };
        Secret::copy_from(text.trim_ascii())
            .map_err(|_| FetchError::TokenMissing { looked: format!("{looked} empty") })
    }
}
