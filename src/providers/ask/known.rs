//! What is remembered between fetches: the ids of vaults and items by name, and the versions of vaults.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::Listed;
use super::naming::{Nameable, only};
use crate::providers::error::{FetchError, ObjectKind};
use crate::reference::Reference;

/// The vaults and items that were listed before.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Names {
    vaults: Vec<Listed>,
    /// By the id of their vault.
    items: HashMap<String, Vec<Listed>>,
    /// Whether the vaults were listed for the fetch that is to come. Otherwise it lists them itself: a vault may have been
    /// renamed, and another one have its name.
    current: bool,
}

impl Names {
    pub fn vault(&self, wanted: &str) -> Result<Option<&Listed>, FetchError> {
        find_vault(&self.vaults, wanted)
    }

    /// `vault` is an id.
    pub fn item(&self, vault: &str, wanted: &str) -> Result<Option<&Listed>, FetchError> {
        let items: Vec<_> = self.items.get(vault).into_iter().flatten().map(ListedItem).collect();
        Ok(only(items.iter(), wanted)?.map(|item| item.0))
    }

    pub fn set_vaults(&mut self, vaults: Vec<Listed>) {
        self.vaults = vaults;
        self.current = true;
    }

    pub fn vaults_are_current(&self) -> bool {
        self.current
    }

    /// From here on the vaults are listed anew before they are used.
    pub fn outdate_vaults(&mut self) {
        self.current = false;
    }

    pub fn set_items(&mut self, vault: &str, items: Vec<Listed>) {
        self.items.insert(vault.to_owned(), items);
    }

    pub fn forget_items(&mut self, vault: &str) {
        self.items.remove(vault);
    }
}

/// The vaults as they were when the oldest value in memory was fetched, or before.
#[derive(Debug, Default)]
pub struct Baseline(Vec<Listed>);

impl Baseline {
    /// Adds vaults that were not known before. A known one keeps its version: the list in `names` may be newer than values
    /// that were fetched earlier.
    pub fn note(&mut self, names: &Names) {
        for vault in &names.vaults {
            if self.0.iter().all(|known| known.id != vault.id) {
                self.0.push(vault.clone());
            }
        }
    }

    /// Says for each reference whether its value cannot have changed. The caller must not use the other values any more:
    /// from now on, later versions are compared with `vaults`.
    pub fn renew(&mut self, vaults: Vec<Listed>, names: &mut Names, references: &[Reference]) -> Vec<bool> {
        let is_same = |vault: &Listed| vault.version.is_some() && self.0.contains(vault);
        for changed in vaults.iter().filter(|vault| !is_same(vault)) {
            names.forget_items(&changed.id);
        }
        let unchanged = |reference: &Reference| {
            let vault = find_vault(&vaults, &reference.vault).ok().flatten();
            vault.is_some_and(is_same)
        };
        let unchanged = references.iter().map(unchanged).collect();
        names.set_vaults(vaults.clone());
        self.0 = vaults;
        unchanged
    }
}

fn find_vault<'v>(vaults: &'v [Listed], wanted: &str) -> Result<Option<&'v Listed>, FetchError> {
    let vaults: Vec<_> = vaults.iter().map(ListedVault).collect();
    Ok(only(vaults.iter(), wanted)?.map(|vault| vault.0))
}

struct ListedVault<'a>(&'a Listed);
struct ListedItem<'a>(&'a Listed);

impl Nameable for ListedVault<'_> {
    const KIND: ObjectKind = ObjectKind::Vault;

    fn id(&self) -> &str {
        &self.0.id
    }

    fn name(&self) -> &str {
        &self.0.title
    }
}

impl Nameable for ListedItem<'_> {
    const KIND: ObjectKind = ObjectKind::Item;

    fn id(&self) -> &str {
        &self.0.id
    }

    fn name(&self) -> &str {
        &self.0.title
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vaults(list: &[(&str, &str, u64)]) -> Vec<Listed> {
        let listed = |(id, title, version): &(&str, &str, u64)| Listed {
            id: (*id).into(),
            title: (*title).into(),
            version: Some(*version),
        };
        list.iter().map(listed).collect()
    }

    fn unchanged(before: &[(&str, &str, u64)], after: &[(&str, &str, u64)]) -> Vec<bool> {
        let references = ["op://Zoo/i/f", "op://b/i/f"].map(|text| text.parse().unwrap());
        let mut names = Names { vaults: vaults(before), ..Names::default() };
        let mut baseline = Baseline::default();
        baseline.note(&names);
        baseline.renew(vaults(after), &mut names, &references)
    }

    #[test]
    fn what_is_in_a_vault_of_the_same_version_and_name_is_unchanged() {
        let before = [("a", "Zoo", 1), ("b", "Other", 1)];
        assert_eq!(unchanged(&before, &before), [true, true]);
        assert_eq!(unchanged(&before, &[("a", "Zoo", 2), ("b", "Other", 1)]), [false, true]);
        assert_eq!(unchanged(&before, &[("b", "Other", 1)]), [false, true]);
        assert_eq!(unchanged(&[("b", "Other", 1)], &before), [false, true]);
        // Two vaults that changed their names mean other values, though no item changed.
        assert_eq!(unchanged(&before, &[("a", "Other", 1), ("b", "Zoo", 1)]), [false, false]);
    }

    #[test]
    fn a_newer_list_does_not_make_older_values_newer() {
        let mut baseline = Baseline::default();
        let mut names = Names { vaults: vaults(&[("a", "Zoo", 1)]), ..Names::default() };
        baseline.note(&names);
        // A fetch of something else listed the vaults again, after the change.
        names.vaults = vaults(&[("a", "Zoo", 2)]);
        baseline.note(&names);
        let reference = "op://Zoo/i/f".parse().unwrap();
        assert_eq!(baseline.renew(vaults(&[("a", "Zoo", 2)]), &mut names, &[reference]), [false]);
    }
}
