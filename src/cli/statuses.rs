//! The exit status of each command. `--help`, the man pages and docs/reference.md have it from here, and `main` holds each command
//! to it.

use std::fmt::Write;

use super::Exit;

/// With what it means there.
type Status = (Exit, &'static str);

/// Of every command.
const EVERY: [Status; 2] = [
    (Exit::Usage, "the command line is wrong"),
    (Exit::System, "the output could not be written, or the system did not let the command do its work"),
];
/// Of those that ask the running service.
const ASKING: [Status; 4] = [
    (Exit::Unavailable, "the service does not run or does not answer"),
    (Exit::Software, "the service answered wrongly"),
    (Exit::Denied, "only root may ask the service"),
    (Exit::Config, "the service has no valid configuration"),
];
/// Of those that come from OpNix.
const OF_OPNIX: [Status; 3] = [
    (Exit::General, "something failed"),
    (Exit::Missing, "1Password has no such secret"),
    (Exit::Limited, "1Password's limit on requests is reached"),
];

/// What each command has beside what is of every command.
const COMMANDS: [(&str, &[&[Status]]); 20] = [
    (
        "serve",
        &[&[
            (Exit::Ok, "it was told to stop; with --reload, the configuration is in force"),
            (Exit::Unavailable, "with --reload, the service did not reload"),
            (
                Exit::Config,
                "the configuration is faulty, and the service listens on --socket itself, or is to reload",
            ),
        ]],
    ),
    (
        "check",
        &[&[
            (Exit::Ok, "nothing is wrong; warnings do not count"),
            (Exit::Unavailable, "a directory of unit files cannot be read"),
            (Exit::Config, "the configuration is faulty, or a unit file does not agree with it"),
        ]],
    ),
    (
        "explain",
        &[
            &[
                (Exit::Ok, "the unit would get the credential"),
                (Exit::Unavailable, "the unit may have the credential, which cannot be had now"),
                (Exit::Denied, "the mapping refuses it"),
                (Exit::Config, "the configuration is faulty"),
            ],
            &ASKING,
        ],
    ),
    (
        "status",
        &[
            &[
                (
                    Exit::Ok,
                    "every secret that a unit or file needs would be served now, and every file is in place",
                ),
                (
                    Exit::Unavailable,
                    "one would not be served; a unit was refused one and has not got it since; a file is not there or not as configured; the machine keeps opnix from serving",
                ),
                (
                    Exit::Config,
                    "the configuration or the token is faulty, also where the one from before is in force",
                ),
            ],
            &ASKING,
        ],
    ),
    (
        "refresh",
        &[
            &[
                (Exit::Ok, "all of the secrets could be had"),
                (Exit::Usage, "there is no secret of this name"),
                (Exit::Unavailable, "one could not be had"),
                (Exit::Config, "the configuration is faulty"),
            ],
            &ASKING,
        ],
    ),
    (
        "mirror",
        &[&[
            (Exit::Ok, "it was told to stop; with --prepare or --reload, it is done"),
            (
                Exit::Unavailable,
                "with --reload, the mirror did not reload, or a file that has to be there is not",
            ),
            (Exit::Config, "the configuration is faulty"),
        ]],
    ),
    (
        "metrics",
        &[&[
            (Exit::Ok, "the metrics are told, also where the service does not answer"),
            (Exit::Software, "they could not be written down"),
            (Exit::Denied, "only root may ask the service"),
        ]],
    ),
    (
        "doctor",
        &[&[
            (Exit::Ok, "nothing is at fault; warnings do not count, nor does what could not be looked at"),
            (Exit::Unavailable, "something is at fault"),
            (Exit::Usage, "the file for --report is there already"),
            (Exit::Software, "what was found cannot be told as JSON"),
        ]],
    ),
    (
        "demo",
        &[&[
            (Exit::Ok, "it went as it should"),
            (Exit::Unavailable, "it cannot run here"),
            (Exit::Software, "it did not go as it should"),
        ]],
    ),
    ("schema", &[&[(Exit::Ok, "always")]]),
    (
        "core install",
        &[&[
            (Exit::Ok, "the library is in place"),
            (Exit::Unavailable, "there is no library that opnix knows"),
        ]],
    ),
    (
        "setup",
        &[&[
            (Exit::Ok, "there is a key that opens"),
            (Exit::System, "there is none, for now; nothing was changed"),
        ]],
    ),
    (
        "purge",
        &[&[
            (Exit::Ok, "all is gone, as a look at it showed; with --dry-run, it is listed"),
            (Exit::Usage, "nobody said yes"),
            (Exit::Unavailable, "something is left, and named"),
            (Exit::Denied, "only root may"),
        ]],
    ),
    ("secret", &[&[(Exit::Ok, "every file is written")], &OF_OPNIX]),
    (
        "token set",
        &[&[
            (Exit::Ok, "the token is stored"),
            (
                Exit::General,
                "it is not, and the one from before is as it was; or it is, and the service does not take it",
            ),
        ]],
    ),
    (
        "token check",
        &[&[
            (Exit::Ok, "1Password accepted the token"),
            (Exit::Unavailable, "it did not, or that could not be found out"),
            (Exit::Config, "the configuration is faulty"),
        ]],
    ),
    (
        "token show",
        &[&[(Exit::Ok, "there is a whole token"), (Exit::Unavailable, "there is none, or a damaged one")]],
    ),
    (
        "token take",
        &[
            &[
                (Exit::Ok, "the token in the file is in force, or none comes from a file"),
                (Exit::Unavailable, "it is not taken"),
            ],
            &ASKING,
        ],
    ),
    ("token watch", &[&[(Exit::Ok, "never: it runs until it is ended")]]),
    ("env", &[&[(Exit::Ok, "all variables are printed")], &OF_OPNIX]),
];

/// Each status of a command, in order, with all that it can mean there. `None`: it is of no command that people use.
pub fn of(command: &str) -> Option<Vec<(Exit, String)>> {
    let (_, groups) = COMMANDS.iter().find(|(name, _)| *name == command)?;
    Some(joined(groups.iter().copied().flatten().chain(&EVERY)))
}

fn joined<'s>(statuses: impl Iterator<Item = &'s Status>) -> Vec<(Exit, String)> {
    let mut all: Vec<(Exit, String)> = Vec::new();
    for (exit, meaning) in statuses {
        match all.iter_mut().find(|(known, _)| known == exit) {
            Some((_, known)) => *known = format!("{known}; {meaning}"),
            None => all.push((*exit, (*meaning).to_owned())),
        }
    }
    all.sort_by_key(|(exit, _)| *exit as u8);
    all
}

/// The same for `--help`.
pub fn help(command: &str) -> Option<String> {
    let mut text = String::from("Exit status:");
    for (exit, meaning) in of(command)? {
        let _ = write!(text, "\n  {:>2}  {}", exit as u8, meaning.replace("; ", "\n      "));
    }
    Some(text)
}

/// The table of docs/reference.md.
pub fn table() -> String {
    let mut text = String::from("| command | exit status | meaning |\n|---|---|---|\n");
    let all = COMMANDS
        .iter()
        .map(|(name, groups)| (format!("`opnix {name}`"), joined(groups.iter().copied().flatten())));
    for (command, statuses) in [("every command".to_owned(), joined(EVERY.iter()))].into_iter().chain(all) {
        for (exit, meaning) in statuses {
            let _ = writeln!(text, "| {command} | {} | {meaning} |", exit as u8);
        }
    }
    text
}
