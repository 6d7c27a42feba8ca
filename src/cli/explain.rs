//! `opnix explain`: would this unit get this credential, and by which line of the configuration.

use super::{ConfigArguments, Exit, fail, faulty};
use crate::config::{self, Config};
use crate::names::{CredentialName, UnitName};
use crate::policy::{Denied, Rule};

/// Say whether a unit would get a credential, and why; never its value
///
/// Exits with 0 if it would, with 77 if it would be refused.
#[derive(clap::Args)]
pub struct Arguments {
    /// The unit, such as opencode.service
    unit: String,
    /// The credential, such as openai-api-key
    credential: String,
    #[command(flatten)]
    config: ConfigArguments,
}

pub fn run(arguments: Arguments) -> Exit {
    let unit: UnitName = match arguments.unit.parse() {
        Ok(unit) => unit,
        Err(error) => return fail(Exit::Usage, error),
    };
    let credential: CredentialName = match arguments.credential.parse() {
        Ok(credential) => credential,
        Err(error) => return fail(Exit::Usage, error),
    };
    let config = match config::load(&arguments.config.config) {
        Ok(config) => config,
        Err(faults) => return faulty(&faults),
    };
    match config.policy.rule_for(&unit, &credential) {
        Ok(rule) => {
            granted(&unit, rule);
            Exit::Ok
        }
        Err(denied) => {
            refused(&unit, &credential, denied, &config);
            Exit::Denied
        }
    }
}

fn granted(unit: &UnitName, rule: &Rule) {
    println!("granted: {unit} gets \"{}\"", rule.credential);
    println!("  by        {} ({})", rule.place, rule.units);
    println!("  secret    \"{}\"", rule.entry.name);
    for reference in rule.entry.content.references() {
        println!("  from      {reference}");
    }
    println!("  the unit  LoadCredential={}:{}", rule.credential, super::SOCKET);
}

fn refused(unit: &UnitName, credential: &CredentialName, denied: Denied, config: &Config) {
    println!("refused: {unit} does not get \"{credential}\"");
    println!("  because   {denied}");
    let mut others: Vec<&Rule> = match denied {
        Denied::NotForUnit => config.policy.rules().filter(|rule| rule.credential == *credential).collect(),
        Denied::UnknownCredential => config.policy.rules().filter(|rule| rule.units.matches(unit)).collect(),
    };
    others.sort_by_key(|rule| (rule.credential.clone(), rule.units.clone()));
    for rule in others {
        println!("  but       {} gets \"{}\", by {}", rule.units, rule.credential, rule.place);
    }
    println!("  remedy    add \"{unit}\" to the `units` of the secret in secrets.json");
}
