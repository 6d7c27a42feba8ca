//! The units that may have a secret or template as a credential.

use std::sync::Arc;

use super::state::Check;
use super::timing::own_deadline;
use crate::config::decode::At;
use crate::config::file::{self, Unit, UnitOptions};
use crate::config::valid::{Change, OnChange};
use crate::names::{CredentialName, UnitPattern};
use crate::policy::{Entry, Rule};

impl Check<'_> {
    pub(super) fn unit(
        &mut self,
        written: &At<Unit>,
        credential: Option<&CredentialName>,
        entry: &Arc<Entry>,
    ) {
        let place = &written.place;
        let (unit, credential) = match &written.value {
            Unit::Name(unit) => (Some(unit), credential.cloned()),
            Unit::Options(UnitOptions { unit, credential: renamed, .. }) => {
                let renamed = renamed.as_ref().map(|name| self.noted(place, name.parse::<CredentialName>()));
                (unit.0.as_ref(), renamed.unwrap_or_else(|| credential.cloned()))
            }
        };
        let on_change = match &written.value {
            Unit::Options(UnitOptions { on_change: Some(on_change), .. }) => {
                self.on_change(on_change).unwrap_or(OnChange::Nothing)
            }
            _ => OnChange::Nothing,
        };
        let deadline = match &written.value {
            Unit::Options(UnitOptions { deadline: Some(deadline), .. }) => self.valid(deadline, own_deadline),
            _ => None,
        };
        let units = unit.and_then(|unit| self.noted(place, unit.parse::<UnitPattern>()));
        let (Some(units), Some(credential)) = (units, credential) else { return };
        self.noted(place, units.can_ask_for(&credential));
        if on_change != OnChange::Nothing {
            self.policy.mirror(entry);
            let (units, credential) = (units.clone(), credential.clone());
            self.changes.push(Change { entry: entry.clone(), units, credential, action: on_change });
        }
        let rule = Rule { units, credential, entry: entry.clone(), deadline, place: place.clone() };
        if let Err(taken) = self.policy.add(rule) {
            let what = format!("{} has a credential \"{}\" already", taken.units, taken.credential);
            let remedy = format!(
                "it is \"{}\" at {}; a unit can have one secret under one name",
                taken.entry.name, taken.place
            );
            self.fault(place, what, remedy);
        }
    }

    pub(super) fn on_change(&mut self, written: &file::OnChange) -> Option<OnChange> {
        Some(match written {
            file::OnChange::Action(file::Action::None) => OnChange::Nothing,
            file::OnChange::Action(file::Action::Reload) => OnChange::Reload,
            file::OnChange::Action(file::Action::Restart) => OnChange::Restart,
            file::OnChange::Action(file::Action::ReloadOrRestart) => OnChange::ReloadOrRestart,
            file::OnChange::Signal(file::SendSignal { signal }) => {
                OnChange::Signal(self.valid(signal, str::parse)?)
            }
        })
    }
}
