//! From the files as written to one valid configuration, noting everything that is wrong.

mod entries;
mod files;
mod provider;
mod timing;
mod units;
mod values;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::decode::At;
use crate::config::fault::Faults;
use crate::config::file::{File, SystemdIntegration};
use crate::config::{Change, Config, MirrorFile, OnChange, Provider};
use crate::place::Place;
use crate::policy::{Entry, Policy};
use crate::reference::Reference;
use crate::remedy::{Problem, Remedy};
use crate::store::decide::Settings;

/// What is known so far, while the files are gone through one after another.
struct Check<'a> {
    faults: &'a mut Faults,
    /// The `pathTemplate` and the values for it.
    path_template: Option<&'a At<String>>,
    path_values: Option<&'a BTreeMap<String, String>>,
    /// How values are kept, if a secret or template does not say otherwise.
    keeping: Settings,
    policy: Policy,
    entries: Vec<Arc<Entry>>,
    changes: Vec<Change>,
    files: Vec<MirrorFile>,
    settings: HashMap<Reference, Settings>,
    /// The names and paths that are taken, and where.
    names: HashMap<String, Place>,
    paths: HashMap<PathBuf, Place>,
}

pub(super) fn check(files: &[(&Path, File)], faults: &mut Faults) -> Config {
    // As in OpNix: the secrets of all files are joined, and the last `pathTemplate` and `defaults` count.
    let path_template = files.iter().rev().find_map(|(_, file)| file.path_template.as_ref());
    let path_values = files.iter().rev().map(|(_, file)| &file.defaults).find(|values| !values.is_empty());
    let mut check = Check {
        faults,
        path_template,
        path_values,
        keeping: timing::SETTINGS,
        policy: Policy::default(),
        entries: Vec::new(),
        changes: Vec::new(),
        files: Vec::new(),
        settings: HashMap::new(),
        names: HashMap::new(),
        paths: HashMap::new(),
    };

    let provider = match check.only_one("provider", files, |file| &file.provider) {
        Some((path, provider)) => check.provider(path, &provider.value),
        None => Provider::ServiceAccount { library: None, hosts: Vec::new() },
    };
    let budget = check.only_one("budget", files, |file| &file.budget).map(|(_, budget)| &budget.value);
    let budget = provider::budget(&provider, budget);
    let timing = check.timing(files);
    check.keeping = check.keeping_of_all(files);
    for (path, file) in files {
        for secret in &file.secrets {
            check.secret(secret);
        }
        for template in &file.templates {
            check.template(path, template);
        }
        let polling = file.systemd_integration.as_ref().and_then(|integration| integration.polling.as_ref());
        if let Some(interval) = polling.and_then(|polling| polling.interval.as_ref()) {
            check.valid(interval, values::duration);
        }
    }
    for integration in files.iter().filter_map(|(_, file)| file.systemd_integration.as_ref()) {
        check.concerned_by_all(integration);
    }
    let Check { policy, entries, changes, files, settings, .. } = check;
    Config { provider, timing, budget, policy, entries, changes, settings, files }
}

impl Check<'_> {
    /// A setting that may stand in one of the files only.
    fn only_one<'f, T>(
        &mut self,
        key: &str,
        files: &'f [(&Path, File)],
        get: impl Fn(&'f File) -> &'f Option<At<T>>,
    ) -> Option<(&'f Path, &'f At<T>)> {
        let mut settings = files.iter().filter_map(|(path, file)| Some((*path, get(file).as_ref()?)));
        let first = settings.next()?;
        for (_, second) in settings {
            self.fault(
                &second.place,
                format!("{key:?} is set a second time"),
                format!("it is set at {}; keep one of them", first.1.place),
            );
        }
        Some(first)
    }

    /// OpNix's list of services that every change concerns.
    fn concerned_by_all(&mut self, integration: &SystemdIntegration) {
        let acts = integration.enable.unwrap_or(true) && integration.restart_on_change.unwrap_or(true);
        for name in integration.services.iter().filter(|_| acts) {
            let Some(service) = self.valid(name, values::service) else { continue };
            for file in &mut self.files {
                if file.services.iter().all(|(known, _)| *known != service) {
                    file.services.push((service.clone(), OnChange::Restart));
                }
            }
        }
    }

    fn valid<V, E: Remedy>(
        &mut self,
        written: &At<String>,
        parse: impl FnOnce(&str) -> Result<V, E>,
    ) -> Option<V> {
        self.noted(&written.place, parse(&written.value))
    }

    fn noted<V, E: Remedy>(&mut self, place: &Place, result: Result<V, E>) -> Option<V> {
        result.map_err(|error| self.faults.add(place, &error)).ok()
    }

    fn fault(&mut self, place: &Place, what: impl Into<String>, remedy: impl Into<String>) {
        self.faults.add(place, &Problem::new(what, remedy));
    }
}
