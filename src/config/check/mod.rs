//! From the files as written to one valid configuration, noting everything that is wrong.

mod entries;
mod files;
mod provider;
mod state;
mod timing;
mod units;
mod values;

use std::collections::HashMap;
use std::path::Path;

use self::state::Check;
pub use self::timing::{SETTINGS, TIMING};
use crate::config::fault::Faults;
use crate::config::file::{File, SystemdIntegration};
use crate::config::valid::{Config, Provider};
use crate::policy::Policy;
use crate::scope;

/// `is_to_be_ours`: what the files name is read only if nobody else can have written it.
pub(super) fn check(files: &[(&Path, File)], is_to_be_ours: bool, faults: &mut Faults) -> Config {
    // As in OpNix: the secrets of all files are joined, and the last `pathTemplate` and `defaults` count.
    let path_template = files.iter().rev().find_map(|(_, file)| file.path_template.as_ref());
    let path_values = files.iter().rev().map(|(_, file)| &file.defaults).find(|values| !values.is_empty());
    let mut check = Check {
        faults,
        warnings: Vec::new(),
        is_to_be_ours,
        path_template,
        path_values,
        mirror_root: scope::mirror_root(),
        link_root: None,
        keeping: SETTINGS,
        policy: Policy::default(),
        entries: Vec::new(),
        changes: Vec::new(),
        files: Vec::new(),
        settings: HashMap::new(),
        names: HashMap::new(),
        paths: HashMap::new(),
    };

    if let Some((_, root)) = check.only_one("mirror_root", files, |file| &file.mirror_root)
        && let Some(root) = check.valid(root, values::mirror_root)
    {
        check.mirror_root = root;
    }
    if let Some((_, root)) = check.only_one("link_root", files, |file| &file.link_root) {
        check.link_root = check.valid(root, values::link_root);
        let (memory, links) = (&check.mirror_root, check.link_root.as_ref());
        if links.is_some_and(|links| links.starts_with(memory) || memory.starts_with(links)) {
            let what = format!(
                "{:?} and the directory of files in memory, {memory:?}, are in each other",
                root.value
            );
            check.fault(&root.place, what, "name another directory for links");
        }
    }
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
    if let Provider::Connect(_) = provider {
        check.nothing_is_of_an_ssh_key();
    }
    check.no_path_is_below_another();
    let integrations: Vec<_> =
        files.iter().filter_map(|(_, file)| file.systemd_integration.as_ref()).collect();
    for integration in &integrations {
        check.concerned_by_all(integration);
    }
    let last = |get: fn(&SystemdIntegration) -> Option<bool>| {
        integrations.iter().rev().find_map(|integration| get(integration)).unwrap_or(true)
    };
    if !(last(|integration| integration.enable) && last(|integration| integration.restart_on_change)) {
        check.nobody_is_told();
    }
    let Check { policy, entries, changes, mirror_root, link_root, files, settings, warnings, .. } = check;
    Config {
        provider,
        timing,
        budget,
        policy,
        entries,
        changes,
        settings,
        mirror_root,
        link_root,
        files,
        warnings,
    }
}
