//! The command line: one file per command, arguments without logic.

mod check;
mod complete;
mod control;
mod core;
mod demo;
mod doctor;
mod explain;
mod fetch;
mod from_opnix;
mod metrics;
mod mirror;
mod output;
mod progress;
mod purge;
mod refresh;
mod schema;
mod serve;
mod setup;
pub mod status;
pub mod statuses;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser};
use output::complain;

use crate::counted::counted;
use crate::scope;

/// Exit statuses, after sysexits.h. What they mean for each command is in [`statuses`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Ok = 0,
    /// It failed; only for the commands that come from OpNix.
    General = 1,
    /// The command line is wrong.
    Usage = 64,
    /// 1Password has no such secret; only for the commands that come from OpNix.
    Missing = 65,
    /// Something that was needed is not there.
    Unavailable = 69,
    /// A fault of opnix itself.
    Software = 70,
    /// The system did not let us.
    System = 71,
    /// 1Password's limit is reached; only for the commands that come from OpNix.
    Limited = 75,
    /// The answer is no: the unit would be refused.
    Denied = 77,
    /// The configuration is faulty.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// 1Password secrets for systemd units
///
/// A unit says LoadCredential=NAME:/run/opnix/creds.sock; systemd asks opnix when the unit starts, and opnix answers
/// with the right secret for exactly that unit, never with an empty or cut-off one, or refuses the start.
#[derive(Parser)]
#[command(name = "opnix", version, max_term_width = 100, arg_required_else_help = true)]
pub enum Command {
    Serve(serve::Arguments),
    Check(check::Arguments),
    Explain(explain::Arguments),
    Status(status::Arguments),
    Refresh(refresh::Arguments),
    Mirror(mirror::Arguments),
    Doctor(doctor::Arguments),
    Metrics(metrics::Arguments),
    Demo(demo::Arguments),
    Schema(schema::Arguments),
    Core(core::Arguments),
    Setup(setup::Arguments),
    Purge(purge::Arguments),
    Secret(from_opnix::secret::Arguments),
    Token(token::Arguments),
    Env(from_opnix::env::Arguments),
    #[command(hide = true, name = "__complete")]
    Complete(complete::Arguments),
    #[command(hide = true)]
    Fetch(fetch::Arguments),
}

/// The command line, with the exit status of each command in its help.
pub fn command_line() -> clap::Command {
    FOR_USERS
        .iter()
        .fold(with_statuses(Command::command(), ""), |command, name| command.mut_subcommand(name, for_users))
}

/// The commands that know `--user`.
const FOR_USERS: [&str; 7] = ["check", "doctor", "explain", "mirror", "refresh", "serve", "status"];

/// What is looked for by default is another thing then.
fn for_users(command: clap::Command) -> clap::Command {
    let user = clap::Arg::new("user")
        .long("user")
        .action(clap::ArgAction::SetTrue)
        .help("The units, service and configuration of your own service manager (systemctl --user), instead of the system's");
    let command = command.arg(user);
    if !scope::is_user() {
        return command;
    }
    command.mut_args(|argument| match argument.get_id().as_str() {
        _ if argument.get_default_values().is_empty() => argument,
        "config" => argument.default_values(scope::configuration().map(PathBuf::into_os_string)),
        "socket" => argument.default_value(scope::socket().into_os_string()),
        "control" => argument.default_value(scope::control().into_os_string()),
        _ => argument,
    })
}

fn is_for_user(matches: &clap::ArgMatches) -> bool {
    let user = matches.subcommand().and_then(|(_, matches)| matches.try_get_one::<bool>("user").ok()?);
    user == Some(&true)
}

fn with_statuses(command: clap::Command, above: &str) -> clap::Command {
    let command = command.mut_subcommands(|subcommand| {
        let name = format!("{above} {}", subcommand.get_name());
        with_statuses(subcommand, name.trim_start())
    });
    match statuses::help(above) {
        Some(help) => command.after_long_help(help),
        None => command,
    }
}

/// The names of the subcommands, such as `token set`.
fn called(matches: &clap::ArgMatches) -> String {
    let below = matches.subcommand();
    let name = below.map(|(name, matches)| format!("{name} {}", called(matches)));
    name.unwrap_or_default().trim_end().to_owned()
}

/// Where the configuration is.
#[derive(clap::Args)]
struct ConfigArguments {
    /// A configuration file, or a directory of them (*.json); can be given several times, and the files are joined
    #[arg(long, value_name = "FILE", default_values = [crate::config::DEFAULT_PATH, crate::config::DEFAULT_DIRECTORY])]
    config: Vec<PathBuf>,
}

pub fn main() -> ExitCode {
    // An argument that is not UTF-8 is shown with replacement characters, which clap then refuses.
    let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let is_of_token = std::env::args_os().nth(1).is_some_and(|command| command == "token");
    let arguments = from_opnix::flags(arguments);
    let mut matches = command_line().try_get_matches_from(&arguments);
    if matches.as_ref().is_ok_and(is_for_user) {
        scope::set_user();
        matches = command_line().try_get_matches_from(&arguments);
    }
    let parsed = matches
        .and_then(|matches| Command::from_arg_matches(&matches).map(|command| (command, called(&matches))));
    let (command, name) = match parsed {
        Ok(parsed) => parsed,
        // What stands there may be a token, and what is printed in a log.
        Err(error) if error.kind() == ErrorKind::UnknownArgument && is_of_token => {
            return fail(
                Exit::Usage,
                "`opnix token` has an argument that it does not know\nit takes no token there: it asks for it, or reads it from standard input; see: opnix token --help",
            )
            .into();
        }
        Err(error) => {
            let printed = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => output::finish_after(printed, Exit::Ok),
                _ => Exit::Usage,
            }
            .into();
        }
    };
    let exit = match command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Explain(arguments) => explain::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Refresh(arguments) => refresh::run(arguments),
        Command::Mirror(arguments) => mirror::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Metrics(arguments) => metrics::run(arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Schema(arguments) => schema::run(arguments),
        Command::Core(arguments) => core::run(arguments),
        Command::Setup(arguments) => setup::run(arguments),
        Command::Purge(arguments) => purge::run(arguments),
        Command::Secret(arguments) => from_opnix::secret::run(arguments),
        Command::Token(arguments) => token::run(arguments),
        Command::Env(arguments) => from_opnix::env::run(arguments),
        Command::Complete(arguments) => complete::run(arguments),
        Command::Fetch(arguments) => fetch::run(arguments),
    };
    crate::records::flush();
    let exit = output::finish(exit);
    let known = statuses::of(&name).map(|all| all.iter().any(|(known, _)| *known == exit));
    debug_assert_ne!(known, Some(false), "opnix {name}: {exit:?} is not documented in src/cli/statuses.rs");
    exit.into()
}

/// Says on standard error why the command failed.
fn fail(exit: Exit, message: impl std::fmt::Display) -> Exit {
    // After the records of what led to it.
    crate::records::flush();
    complain!("opnix: {message}");
    exit
}

/// Says on standard error everything that is wrong with the configuration.
fn faulty(faults: &crate::config::Faults) -> Exit {
    complain!("{faults}");
    if faults.is_nothing_written() {
        return Exit::Config;
    }
    let count = counted(faults.iter().len(), "fault");
    fail(Exit::Config, format_args!("the configuration has {count}"))
}
