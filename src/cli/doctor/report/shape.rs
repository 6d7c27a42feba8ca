//! What the configuration is like, without its names.

use std::fmt::Write as _;

use percent_encoding::percent_decode_str;

use super::hosts;
use super::names::Names;
use super::scan::{self, Text};
use crate::config::{Config, Provider};
use crate::control::interface::Status;

pub fn of(config: &Config, names: &mut Names) -> String {
    let mut text = String::new();
    // A write to a string does not fail.
    let mut line = |what: String| {
        let _ = writeln!(text, "{what}");
    };
    let provider = match &config.provider {
        Provider::ServiceAccount { library, hosts } => {
            hosts.iter().for_each(|host| hosts::learn(host, names));
            let library = library.as_ref().map(|path| names.path(&path.to_string_lossy()));
            format!("service_account, library {library:?}, hosts {}", hosts.len())
        }
        Provider::Local { path, .. } => format!("local, {}", names.path(&path.to_string_lossy())),
        Provider::Connect(server) => {
            hosts::learn(&server.url, names);
            config.provider.kind().to_owned()
        }
    };
    line(format!("provider {provider}"));
    line(format!("{:?}", config.timing));
    line(format!("{:?}", config.budget));
    line(format!("mirror_root {}", names.path(&config.mirror_root.to_string_lossy())));
    for entry in &config.entries {
        let is_plain = entry.content.as_plain().is_some();
        let name = names.of(if is_plain { "secret" } else { "template" }, &entry.name);
        let references: Vec<String> =
            entry.content.references().map(|reference| names.reference(&reference.to_string())).collect();
        line(format!("{name}: {}", references.join(", ")));
        for reference in entry.content.references() {
            if let Some(settings) = config.settings.get(reference) {
                line(format!("    {settings:?}"));
            }
        }
    }
    let mut rules: Vec<String> = Vec::new();
    for rule in config.policy.rules() {
        let (units, credential) =
            (names.unit(&rule.units.to_string()), names.of("credential", rule.credential.as_str()));
        let name = names.of("secret", &rule.entry.name);
        let deadline = rule.deadline.map(|deadline| format!(", deadline {deadline:?}")).unwrap_or_default();
        rules.push(format!("{name} for {units} as {credential}{deadline}"));
    }
    rules.sort();
    rules.into_iter().for_each(&mut line);
    for file in &config.files {
        let path = names.path(&file.path.to_string_lossy());
        let owner = names.owner("user", &file.owner);
        let group = file.group.as_ref().map(|group| names.owner("group", group));
        let links: Vec<String> =
            file.symlinks.iter().map(|link| names.path(&link.to_string_lossy())).collect();
        let units: Vec<String> = file
            .services
            .iter()
            .map(|(unit, action)| format!("{} {action:?}", names.unit(unit.as_str())))
            .collect();
        let name = names.of("secret", &file.entry.name);
        line(format!(
            "{name} in {path}, {owner}:{group:?} {:o}, links {links:?}, units {units:?}, optional {}",
            file.mode, file.optional
        ));
    }
    for change in &config.changes {
        let (name, units) = (names.of("secret", &change.entry.name), names.unit(&change.units.to_string()));
        line(format!("{name} changes: {units} {:?}", change.action));
    }
    text
}

/// Keys whose values are durations.
const DURATIONS: [&str; 5] = ["deadline", "fresh_for", "stale_for", "refresh", "interval"];

/// A text of the configuration, which may not be valid.
pub fn learn(Text { key, text }: &Text, names: &mut Names) {
    let key = key.as_deref().unwrap_or_default();
    if DURATIONS.contains(&key) && humantime::parse_duration(text).is_ok() {
        return names.duration(text);
    }
    if text.len() < 2 || scan::is_word_of_the_configuration(text) {
        return;
    }
    let is_address = text.contains("://") && !text.contains("op://");
    if is_address && !text.contains(char::is_whitespace) || key == "host" {
        hosts::learn(text, names);
    }
    // References first, and what was meant for one, or for an address, part by part.
    for rest in text.split("://").skip(1) {
        let end = rest.find(['}', '\n', '"']).unwrap_or(rest.len());
        for part in rest[..end].split(['/', '?', '=']).map(str::trim).filter(|part| part.len() > 1) {
            names.of("name", &percent_decode_str(part).decode_utf8_lossy());
            names.of("name", part);
        }
    }
    if text.starts_with("op://") {
        names.reference(text);
    } else if scan::is_unit(text) {
        names.unit(text);
    } else if text.starts_with('/') {
        names.path(text);
        // Each step of it may be named by itself.
        text.rsplit('/').take(1).for_each(|name| drop(names.of("path", name)));
    } else {
        names.of("name", text);
    }
}

pub fn of_status(status: &Status, names: &mut Names) {
    if let Some(provider) = &status.provider {
        for account in [&provider.account, &provider.account_before].into_iter().flatten() {
            names.of("account", account);
            // `MAIL at HOST`, and the host's own name.
            for part in account.split(" at ") {
                names.of("account", part);
            }
        }
    }
    status.secrets.iter().for_each(|secret| drop(names.of("secret", &secret.name)));
    for file in &status.files {
        names.path(&file.path);
        file.symlinks.iter().for_each(|link| drop(names.path(link)));
        file.services.iter().for_each(|unit| drop(names.unit(unit)));
    }
    let asked = status.requests.iter().map(|request| (&request.unit, &request.credential));
    let missed = status.missed.iter().map(|missed| (&missed.unit, &missed.credential));
    let refused = status.refusals.iter().map(|refusal| (&refusal.unit, &refusal.credential));
    for (unit, credential) in asked.chain(missed).chain(refused) {
        names.unit(unit);
        names.of("credential", credential);
    }
}
