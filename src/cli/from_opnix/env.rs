//! `opnix env`: OpNix's command, which prints variables for a shell.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::super::{Exit, fail};
use crate::cli::output::complain;
use crate::config::{self, Provider};
use crate::quote::Form;
use crate::reference::{Reference, ReferenceError};
use crate::remedy::{Problem, Remedy};

/// How long 1Password may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Print variables with secrets in them for a shell, as OpNix does
///
/// The configuration is {"vars": [{"name": …, "reference": "op://…" or "value": …, "optional": false}]}.
#[derive(clap::Args)]
pub struct Arguments {
    /// The configuration
    #[arg(long, value_name = "FILE", required_unless_present = "config_json")]
    config: Option<PathBuf>,
    /// The configuration itself
    #[arg(long, value_name = "JSON", conflicts_with = "config")]
    config_json: Option<String>,
    /// The file with the token, by default the one that opnix.service loads; $OP_SERVICE_ACCOUNT_TOKEN stands above it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// 1Password's core library, if `opnix core install` did not put it in place
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// Hosts that the token may name besides 1Password's
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    #[arg(long, value_enum, default_value = "shell")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// `export NAME='value'`
    Shell,
    /// `NAME="value"`
    Dotenv,
    /// `{"NAME": "value"}`
    Json,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    vars: Vec<Variable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    reference: Option<String>,
    value: Option<String>,
    #[serde(default)]
    optional: bool,
}

pub fn run(arguments: Arguments) -> Exit {
    let (text, named) = match (&arguments.config, arguments.config_json) {
        (Some(path), _) => match config::read(path) {
            Ok(text) => (text, path.display().to_string()),
            Err(error) => return fail(Exit::General, format_args!("{}: {error}", path.display())),
        },
        (None, text) => (text.unwrap_or_default(), "--config-json".to_owned()),
    };
    let config: Config = match serde_json::from_str(&text) {
        Ok(config) => config,
        Err(error) => return fail(Exit::General, format_args!("{named}: {error}")),
    };
    let mut references = Vec::new();
    for (number, variable) in config.vars.iter().enumerate() {
        match check(variable) {
            Ok(reference) => references.extend(reference),
            Err(why) => {
                let why = Problem::about(format_args!("{named}: vars[{number}]"), &why);
                return fail(Exit::General, why.lines());
            }
        }
    }
    if config.vars.is_empty() {
        return fail(Exit::General, format_args!("{named}: there is no variable in `vars`"));
    }
    let provider = Provider::ServiceAccount { library: arguments.library, hosts: arguments.host };
    let fetched = match references.is_empty() {
        true => Vec::new(),
        false => super::fetch(provider, &super::token_file(arguments.token_file), LIMIT, references),
    };
    // All or nothing: half of an environment is worse than none.
    let mut fetched = fetched.into_iter();
    let mut values: Vec<(&str, Value<'_>)> = Vec::new();
    for variable in &config.vars {
        let value = match &variable.value {
            Some(value) => Value::Text(value),
            None => match fetched.next() {
                Some(Ok(secret)) => Value::Secret(secret),
                Some(Err(error)) if variable.optional => {
                    complain!("opnix: warning: {} is left out: {}", variable.name, error.lines());
                    continue;
                }
                Some(Err(error)) => {
                    return fail(super::exit(&error), format_args!("{}: {}", variable.name, error.lines()));
                }
                None => return fail(Exit::General, "an answer is missing"),
            },
        };
        values.push((&variable.name, value));
    }
    match print(arguments.format, &values) {
        Ok(()) => Exit::Ok,
        Err(error) => fail(Exit::General, error),
    }
}

enum Value<'a> {
    Text(&'a str),
    Secret(crate::secret::Secret),
}

/// The reference, if it has one.
fn check(variable: &Variable) -> Result<Option<Reference>, Problem> {
    let name = &variable.name;
    let valid = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty();
    if !valid {
        return Err(Problem::plain(format!("{name:?} is no name of a variable")));
    }
    match (&variable.reference, &variable.value) {
        (Some(reference), None) => {
            reference.parse().map(Some).map_err(|error: ReferenceError| Problem::from(&error))
        }
        (None, Some(_)) => Ok(None),
        _ => Err(Problem::plain(format!("{name} needs either a reference or a value"))),
    }
}

fn print(format: Format, values: &[(&str, Value<'_>)]) -> io::Result<()> {
    let form = match format {
        Format::Shell => Form::Shell,
        Format::Dotenv => Form::Env,
        Format::Json => Form::Json,
    };
    // Not through the standard library's buffer, which nobody wipes.
    let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    if format == Format::Json {
        out.write_all(b"{")?;
    }
    for (number, (name, value)) in values.iter().enumerate() {
        let before = match format {
            Format::Shell => format!("export {name}="),
            Format::Dotenv => format!("{name}="),
            Format::Json => format!("{}\n  \"{name}\": ", if number > 0 { "," } else { "" }),
        };
        out.write_all(before.as_bytes())?;
        let value = match value {
            Value::Text(text) => text.as_bytes(),
            Value::Secret(secret) => secret.expose(),
        };
        let mut written = Ok(());
        let mut write = |piece: &[u8]| {
            if written.is_ok() {
                written = out.write_all(piece);
            }
        };
        form.write(value, &mut write).map_err(|error| io::Error::other(format!("{name}: {error}")))?;
        written?;
        if format != Format::Json {
            out.write_all(b"\n")?;
        }
    }
    if format == Format::Json {
        out.write_all(b"\n}\n")?;
    }
    Ok(())
}
