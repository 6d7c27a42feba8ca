//! `opnix explain`: would this unit get this credential, and by which line of the configuration.

mod remedy;

use std::path::PathBuf;

use super::control::{ControlArguments, Unanswered};
use super::status::verdict::is_servable;
use super::status::{bad, doubtful, duration, good, heading, own_name, show_unit};
use super::{Exit, fail, faulty};
use crate::cli::output::{complain, say};
use crate::config::{self, Config};
use crate::control::answers;
use crate::control::interface::{Control, Explanation, MirroredFile, Secret, State, Status, whole_status};
use crate::names::{CredentialName, UnitName};
use crate::policy::MIRROR;
use crate::remedy::Remedy;
use crate::scope;

/// Say whether a unit would get a credential, and why; never its value
///
/// The running service is asked, so that the configuration in force counts. With --config, or where no service runs, the
/// files are.
#[derive(clap::Args)]
pub struct Arguments {
    /// The unit, such as opencode.service
    unit: String,
    /// The credential, such as openai-api-key; without it, all of the unit, as `opnix status UNIT` shows it
    credential: Option<String>,
    /// A configuration file to look into, instead of asking the service; can be given several times
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    #[command(flatten)]
    control: ControlArguments,
}

pub fn run(arguments: Arguments) -> Exit {
    let Arguments { unit: name, credential, config: files, control } = arguments;
    let no_service = || {
        complain!("opnix: the service could not be asked: this is by the files alone");
        scope::configuration().into()
    };
    if credential.is_none() && files.is_empty() {
        match show_unit(&name, &control) {
            Err(why) if no_one_runs(&why) => {}
            Ok(exit) => return exit,
            Err(why) => return control.fail(why),
        }
    }
    let own = own_name(&name, &control);
    let unit = match own.parse::<UnitName>() {
        Ok(unit) => unit,
        Err(error) => return fail(Exit::Usage, error.lines()),
    };
    let credential = match credential.as_deref().map(str::parse::<CredentialName>).transpose() {
        Ok(credential) => credential,
        Err(error) => return fail(Exit::Usage, error.lines()),
    };
    if own != name {
        say!("{name} is another name of {own}, by which systemd asks");
    }
    let mut nobody = control.unheard().filter(|_| files.is_empty());
    let files = match (&credential, files.is_empty()) {
        (Some(credential), true) => {
            let (unit, credential) = (unit.to_string(), credential.to_string());
            match control.ask(async |mut service| service.explain(&unit, &credential).await) {
                Ok(explanation) => {
                    // What else there is to say needs more than that.
                    let status = control.ask(async |mut service| whole_status(&mut service).await).ok();
                    let case = Case::new(&unit, &credential, &explanation, status.as_ref(), &control);
                    return unless(nobody, case.show());
                }
                Err(why) if no_one_runs(&why) => {
                    nobody =
                        Some(control.describe(&why).1).filter(|_| !matches!(why, Unanswered::NoService(_)));
                    no_service()
                }
                Err(why) => return control.fail(why),
            }
        }
        (None, true) => no_service(),
        (_, false) => files,
    };
    match config::load_from_anybody(&files) {
        Ok(config) => unless(nobody, by_files(&config, &unit, credential.as_ref(), &control)),
        Err(faults) => faulty(&faults),
    }
}

/// What it may have, it would be given, unless nobody is given anything now.
fn unless(nobody: Option<String>, exit: Exit) -> Exit {
    match nobody.filter(|_| exit == Exit::Ok) {
        Some(why) => fail(Exit::Unavailable, format_args!("it cannot be had now: {why}")),
        None => exit,
    }
}

/// Whether there is no service to be asked, so that its files tell what it would say.
fn no_one_runs(why: &Unanswered) -> bool {
    matches!(why, Unanswered::NoService(_) | Unanswered::Stopped | Unanswered::DoesNotStart(_))
}

/// By files alone, of one credential or all of the unit.
fn by_files(
    config: &Config,
    unit: &UnitName,
    credential: Option<&CredentialName>,
    control: &ControlArguments,
) -> Exit {
    let all = || config.policy.rules().filter(|rule| rule.units.matches(unit)).map(|rule| &rule.credential);
    let mut wanted: Vec<&CredentialName> = credential.map_or_else(|| all().collect(), |one| vec![one]);
    wanted.sort();
    wanted.dedup();
    if wanted.is_empty() {
        say!("{}: {unit} may have nothing", bad("refused"));
        say!("  remedy    add \"{unit}\" to the `units` of its secrets in secrets.json");
        return Exit::Denied;
    }
    let mut exit = Exit::Ok;
    for credential in wanted {
        let explanation = answers::explain(&config.policy, unit, credential, |_| None);
        let files = config.files.iter().map(MirroredFile::from).collect();
        let case =
            Case { files, ..Case::new(unit.as_str(), credential.as_str(), &explanation, None, control) };
        if exit == Exit::Ok {
            exit = case.show();
        } else {
            case.show();
        }
    }
    exit
}

/// A unit, a credential, and what is known of them.
struct Case<'a> {
    unit: &'a str,
    credential: &'a str,
    explanation: &'a Explanation,
    status: Option<&'a Status>,
    /// The mirror's.
    files: Vec<MirroredFile>,
    control: &'a ControlArguments,
}

impl<'a> Case<'a> {
    fn new(
        unit: &'a str,
        credential: &'a str,
        explanation: &'a Explanation,
        status: Option<&'a Status>,
        control: &'a ControlArguments,
    ) -> Self {
        let files = status.map_or_else(Vec::new, |status| status.files.clone());
        Self { unit, credential, explanation, status, files, control }
    }

    fn show(&self) -> Exit {
        let Self { unit, credential, explanation, .. } = self;
        let Some(rule) = explanation.rule.as_ref().filter(|_| explanation.granted) else {
            return self.show_refused();
        };
        let missing = explanation.secret.as_ref().filter(|secret| !self.can_be_had(secret));
        match missing {
            None => say!("{}: {unit} gets \"{credential}\"", good("granted")),
            Some(_) => say!("{}: {unit} may have \"{credential}\"", bad("allowed, but cannot be had now")),
        }
        line("by", format_args!("{} ({})", rule.place, rule.units));
        line("secret", format_args!("\"{}\"", explanation.name.as_deref().unwrap_or_default()));
        for reference in &explanation.references {
            line("from", reference);
        }
        if *unit == MIRROR {
            self.show_mirrored();
        } else {
            line("the unit", format_args!("LoadCredential={credential}:{}", scope::socket().display()));
        }
        if let Some(secret) = &explanation.secret {
            let age = secret.age.map_or("not kept".to_owned(), |age| format!("kept, {} old", duration(age)));
            line("value", format_args!("{age}: {}", self.describe_state(secret)));
            if let Some(error) = &secret.error {
                line("last", error);
            }
        }
        let Some(missing) = missing else { return Exit::Ok };
        let provider = self.status.and_then(|status| status.provider.as_ref());
        let of_the_provider = provider.and_then(|it| it.token_error.as_ref().or(it.error.as_ref()));
        if let Some(error) = of_the_provider.filter(|error| missing.error.as_ref() != Some(error)) {
            line("because", error);
        }
        if let Some(until) = provider.and_then(|provider| provider.not_before) {
            let date = humantime::format_rfc3339_seconds(super::status::date(until));
            line("because", format_args!("1Password is not to be asked before {date}"));
        }
        Exit::Unavailable
    }

    fn can_be_had(&self, secret: &Secret) -> bool {
        match self.status {
            Some(status) => is_servable(secret, status),
            None => secret.ready.unwrap_or(secret.state != State::Refused),
        }
    }

    fn describe_state(&self, secret: &Secret) -> &'static str {
        match secret.state {
            State::Fresh => "would be served at once",
            State::Stale => "1Password would be asked, and if it does not answer, it would be served",
            State::Kept => "would be served at once: 1Password does not work, or is not to be asked",
            State::Missing if self.can_be_had(secret) => "1Password would be asked",
            State::Missing => "1Password would have to be asked, and does not give it",
            State::Refused => "1Password is not to be asked for now: the unit would not start",
        }
    }

    /// What the mirror asks for by a name of its own.
    fn show_mirrored(&self) {
        let files: Vec<&MirroredFile> =
            self.files.iter().filter(|file| file.credential == self.credential).collect();
        for file in &files {
            let group = file.group.as_deref().unwrap_or("root");
            line("for", format_args!("the file {} ({}:{group} {})", file.path, file.owner, file.mode));
        }
        if files.is_empty() {
            line("for", "no file: it looks whether the value has changed, for units that are to be told");
        }
    }

    fn show_refused(&self) -> Exit {
        let Self { unit, credential, explanation, .. } = self;
        say!("{}: {unit} does not get \"{credential}\"", bad("refused"));
        line("because", explanation.reason.as_deref().unwrap_or_default());
        for rule in &explanation.others {
            line("but", format_args!("{} gets \"{}\", by {}", rule.units, rule.credential, rule.place));
        }
        let written = || remedy::line_of(unit, credential, self.control);
        for (number, what) in remedy::of(unit, credential, &explanation.others, written).iter().enumerate() {
            line(if number == 0 { "remedy" } else { "" }, doubtful(what));
        }
        Exit::Denied
    }
}

fn line(name: &str, what: impl std::fmt::Display) {
    let what = what.to_string().replace('\n', "\n            ");
    say!("  {} {what}", heading(format!("{name:<9}")));
}
