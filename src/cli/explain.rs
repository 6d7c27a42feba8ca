//! `opnix explain`: would this unit get this credential, and by which line of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use super::control::{ControlArguments, Unanswered};
use super::{Exit, fail, faulty};
use crate::cli::output::say;
use crate::config;
use crate::control::answers;
use crate::control::interface::{Control, Explanation, State};
use crate::names::{CredentialName, UnitName};
use crate::remedy::Remedy;
use crate::systemd::manager::Unit;
use crate::systemd::unit_files::UnitFiles;

/// Say whether a unit would get a credential, and why; never its value
///
/// The running service is asked, so that the configuration in force counts. With --config, or where no service runs, the
/// files are. Exits with 0 if the unit would get it, with 77 if it would be refused.
#[derive(clap::Args)]
pub struct Arguments {
    /// The unit, such as opencode.service
    unit: String,
    /// The credential, such as openai-api-key
    credential: String,
    /// A configuration file to look into, instead of asking the service; can be given several times
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    #[command(flatten)]
    control: ControlArguments,
}

pub fn run(arguments: Arguments) -> Exit {
    let own = own_name(&arguments.unit, &arguments.control);
    let unit = match own.parse::<UnitName>() {
        Ok(unit) => unit,
        Err(error) => return fail(Exit::Usage, error.lines()),
    };
    let credential = match arguments.credential.parse::<CredentialName>() {
        Ok(credential) => credential,
        Err(error) => return fail(Exit::Usage, error.lines()),
    };
    if own != arguments.unit {
        say!("{} is another name of {own}, by which systemd asks", arguments.unit);
    }
    let files = match arguments.config {
        files if !files.is_empty() => files,
        _ => {
            let (unit, credential) = (unit.to_string(), credential.to_string());
            match arguments.control.ask(async |mut service| service.explain(&unit, &credential).await) {
                Ok(explanation) => return show(&unit, &credential, &explanation),
                Err(Unanswered::NoService(_) | Unanswered::Stopped | Unanswered::DoesNotStart(_)) => {
                    [config::DEFAULT_PATH, config::DEFAULT_DIRECTORY].map(PathBuf::from).into()
                }
                Err(why) => return arguments.control.fail(why),
            }
        }
    };
    match config::load_from_anybody(&files) {
        Ok(config) => {
            let explanation = answers::explain(&config.policy, &unit, &credential, |_| None);
            show(unit.as_str(), credential.as_str(), &explanation)
        }
        Err(faults) => faulty(&faults),
    }
}

/// The unit's own name on this machine, by its service manager or its files.
fn own_name(name: &str, control: &ControlArguments) -> String {
    let running = control.manager().and_then(|mut manager| manager.unit(name).ok());
    if let Some(unit) = running.filter(Unit::is_known) {
        return unit.id;
    }
    UnitFiles::of_the_machine().map_or_else(|_| name.to_owned(), |files| files.own_name(name).to_owned())
}

fn show(unit: &str, credential: &str, explanation: &Explanation) -> Exit {
    let Some(rule) = explanation.rule.as_ref().filter(|_| explanation.granted) else {
        say!("refused: {unit} does not get \"{credential}\"");
        say!("  because   {}", explanation.reason.as_deref().unwrap_or_default());
        for rule in &explanation.others {
            say!("  but       {} gets \"{}\", by {}", rule.units, rule.credential, rule.place);
        }
        say!("  remedy    add \"{unit}\" to the `units` of the secret in secrets.json");
        return Exit::Denied;
    };
    say!("granted: {unit} gets \"{}\"", rule.credential);
    say!("  by        {} ({})", rule.place, rule.units);
    say!("  secret    \"{}\"", explanation.name.as_deref().unwrap_or_default());
    for reference in &explanation.references {
        say!("  from      {reference}");
    }
    say!("  the unit  LoadCredential={}:{}", rule.credential, crate::systemd::SOCKET);
    if let Some(secret) = &explanation.secret {
        let age = secret.age.map(|age| humantime::format_duration(Duration::from_secs(age)).to_string());
        let age = age.map_or("not kept".to_owned(), |age| format!("kept, {age} old"));
        let now = match secret.state {
            State::Fresh => "would be served at once",
            State::Stale => "1Password would be asked, and if it does not answer, it would be served",
            State::Kept => "would be served at once: 1Password does not work, or is not to be asked",
            State::Missing => "1Password would be asked",
            State::Refused => "1Password is not to be asked for now: the unit would not start",
        };
        say!("  value     {age}: {now}");
        if let Some(error) = &secret.error {
            say!("  last      {}", error.replace('\n', "\n            "));
        }
    }
    Exit::Ok
}
