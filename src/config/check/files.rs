//! The files that the mirror writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::state::Check;
use super::values::{account, file_mode, link_path, service};
use crate::config::decode::At;
use crate::config::file::{Common, ServiceOptions, Services, SystemdIntegration};
use crate::config::valid::{MirrorFile, OnChange};
use crate::names::UnitName;
use crate::place::Place;
use crate::policy::Entry;
use crate::reference::Reference;

impl Check<'_> {
    /// The file of a secret or template. The other keys are checked even where there is no `path`.
    pub(super) fn file(
        &mut self,
        entry: &Arc<Entry>,
        path: Option<At<PathBuf>>,
        written: &Common,
        services: Option<&Services>,
    ) {
        let owner = self.account(written.owner.as_ref());
        let group = written.group.as_ref().map(|group| self.valid(group, account));
        let mode = written.mode.as_ref().map_or(Some(0o600), |mode| self.valid(mode, file_mode));
        let mut symlinks = Vec::new();
        for link in &written.symlinks {
            let Some(target) = self.valid(link, link_path) else { continue };
            self.claim_path(&target, &link.place);
            symlinks.push(target);
        }
        let services = services.map(|services| self.services(services)).unwrap_or_default();
        let Some(path) = path else { return };
        self.claim_path(&path.value, &path.place);
        if let (Some(root), Ok(below)) = (&self.link_root, path.value.strip_prefix(&self.mirror_root)) {
            let link = root.join(below);
            self.claim_path(&link, &path.place);
            symlinks.push(link);
        }
        let (Some(owner), None | Some(Some(_)), Some(mode)) = (owner, &group, mode) else { return };
        self.policy.mirror(entry);
        if mode & 0o070 != 0 && group.is_none() && owner != "root" {
            let mode = written.mode.as_ref().map_or(&path.place, |mode| &mode.place);
            let what = "the mode gives rights to the group, and no `group` is named: that is root";
            self.warning(mode, what, "name the `group`, or give the owner alone the right: 0400");
        }
        if entry.content.references().any(Reference::is_momentary) {
            self.warning(
                &path.place,
                "a one-time password is another value at each look: the file changes all the time, and nobody is told of it",
                "give it to a unit as a credential, with `always_fetch`",
            );
        }
        self.files.push(MirrorFile {
            entry: entry.clone(),
            optional: written.optional.unwrap_or(false),
            path: path.value,
            owner,
            group: group.flatten(),
            mode,
            symlinks,
            services,
        });
    }

    /// Two secrets with one path would overwrite each other.
    fn claim_path(&mut self, path: &Path, place: &Place) {
        if let Some(first) = self.paths.insert(path.to_owned(), place.clone()) {
            self.fault(
                place,
                format!("path {path:?} is taken"),
                format!("by the one at {first}; paths are unique"),
            );
        }
    }

    /// Nor can one be the directory of another, or of all of them.
    pub(super) fn no_path_is_below_another(&mut self) {
        let mut nested: Vec<(Place, String, String)> = Vec::new();
        for (path, place) in &self.paths {
            if self.mirror_root.starts_with(path) {
                let what = format!("path {path:?} is that of the directory of secrets in memory");
                nested.push((place.clone(), what, "name a file in it".into()));
            }
            let above = path.ancestors().skip(1).find_map(|above| self.paths.get_key_value(above));
            if let Some((above, first)) = above {
                let what = format!("path {path:?} is below {above:?}, which is a file");
                nested.push((place.clone(), what, format!("that is the one at {first}")));
            }
        }
        nested.sort();
        for (place, what, remedy) in nested {
            self.fault(&place, what, remedy);
        }
    }

    fn account(&mut self, name: Option<&At<String>>) -> Option<String> {
        name.map_or(Some("root".into()), |name| self.valid(name, account))
    }

    fn services(&mut self, services: &Services) -> Vec<(UnitName, OnChange)> {
        let named: Vec<(&str, &Place, OnChange)> = match services {
            Services::Names(names) => {
                names.iter().map(|name| (name.value.as_str(), &name.place, OnChange::Restart)).collect()
            }
            Services::Options(services) => services
                .iter()
                .filter_map(|(name, At { value: options, place })| {
                    Some((name.as_str(), place, self.of_a_service(options, place)?))
                })
                .collect(),
        };
        named
            .into_iter()
            .filter_map(|(name, place, action)| Some((self.noted(place, service(name))?, action)))
            .collect()
    }

    fn of_a_service(&mut self, options: &ServiceOptions, place: &Place) -> Option<OnChange> {
        Some(match (&options.on_change, &options.signal, options.restart) {
            (Some(on_change), None, None) => self.on_change(on_change)?,
            (Some(_), ..) => {
                let remedy = "keep `on_change`, or `restart` and `signal`";
                self.fault(place, "what is to be done is said twice", remedy);
                return None;
            }
            (None, Some(signal), _) => OnChange::Signal(self.valid(signal, str::parse)?),
            (None, None, Some(false)) => OnChange::Reload,
            (None, None, _) => OnChange::Restart,
        })
    }

    /// OpNix's switches: who missed a file is started all the same.
    pub(super) fn nobody_is_told(&mut self) {
        for (_, action) in self.files.iter_mut().flat_map(|file| &mut file.services) {
            *action = OnChange::Nothing;
        }
    }

    /// OpNix's list of services that every change concerns.
    pub(super) fn concerned_by_all(&mut self, integration: &SystemdIntegration) {
        for name in &integration.services {
            let Some(service) = self.valid(name, service) else { continue };
            for file in &mut self.files {
                if file.services.iter().all(|(known, _)| *known != service) {
                    file.services.push((service.clone(), OnChange::Restart));
                }
            }
        }
    }
}
