//! What is remembered between fetches: the ids of vaults and items by name, and the versions of vaults.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::naming::{Nameable, names, nearest, only};
use super::{List, Listed, Target};
use crate::providers::error::{FetchError, ObjectKind};
use crate::reference::Reference;

/// The vaults and items that were listed before.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Names {
    vaults: List,
    /// By the id of their vault.
    items: HashMap<String, Items>,
    /// Items that could not be had although the provider works, by the id of their vault: each is asked for alone.
    apart: BTreeMap<String, BTreeSet<String>>,
    /// Whether the vaults were listed for the fetch that is to come. Otherwise it lists them itself: a vault may have been
    /// renamed, and another one have its name.
    current: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Items {
    list: List,
    /// The vault's, when they were listed or before. As long as it has the same one, they have the same names.
    version: Option<u64>,
}

impl Names {
    pub fn vault(&self, wanted: &str) -> Result<Option<&Listed>, FetchError> {
        let vault = find_vault(&self.vaults.entries, wanted)?;
        found(vault, &self.vaults, &Target::Vault { vault: wanted })
    }

    /// `vault` is an id.
    pub fn item(&self, vault: &str, wanted: &Reference) -> Result<Option<&Listed>, FetchError> {
        let Some(Items { list, .. }) = self.items.get(vault) else { return Ok(None) };
        let items: Vec<_> = list.entries.iter().map(ListedItem).collect();
        let item = only(items.iter(), &wanted.item)?.map(|item| item.0);
        found(item, list, &Target::item(wanted))
    }

    /// There is none of this name, as far as is known.
    pub fn no_vault(&self, wanted: &str) -> FetchError {
        let known: Vec<_> = self.vaults.entries.iter().map(ListedVault).collect();
        FetchError::VaultNotFound { vault: wanted.to_owned(), has: names(wanted, &known) }
    }

    /// Likewise. `vault` is an id.
    pub fn no_item(&self, vault: &str, wanted: &Reference) -> FetchError {
        let items = self.items.get(vault);
        let known: Vec<_> = items.iter().flat_map(|items| &items.list.entries).map(ListedItem).collect();
        let has = nearest(&wanted.item, &known);
        FetchError::ItemNotFound { vault: wanted.vault.clone(), item: wanted.item.clone(), has }
    }

    pub fn set_vaults(&mut self, vaults: List) {
        self.vaults = vaults;
        self.current = true;
    }

    pub fn vaults(&self) -> &List {
        &self.vaults
    }

    pub fn vaults_are_current(&self) -> bool {
        self.current
    }

    /// Whether the items of this vault have the names that are remembered, as far as the vaults tell.
    pub fn items_are_current(&self, vault: &str) -> bool {
        let version = self.version(vault);
        version.is_some() && self.items.get(vault).is_some_and(|items| items.version == version)
    }

    /// From here on the vaults are listed anew before they are used.
    pub fn outdate_vaults(&mut self) {
        self.current = false;
    }

    pub fn set_items(&mut self, vault: &str, list: List) {
        let version = self.version(vault);
        self.items.insert(vault.to_owned(), Items { list, version });
    }

    fn version(&self, vault: &str) -> Option<u64> {
        let vault = self.vaults.entries.iter().find(|known| known.id == vault).filter(|_| self.current);
        vault.and_then(|vault| vault.version)
    }

    pub fn forget_items(&mut self, vault: &str) {
        self.items.remove(vault);
    }

    pub fn is_apart(&self, vault: &str, item: &str) -> bool {
        self.apart.get(vault).is_some_and(|items| items.contains(item))
    }

    pub fn set_apart(&mut self, vault: &str, item: &str, apart: bool) {
        if apart {
            self.apart.entry(vault.to_owned()).or_default().insert(item.to_owned());
        } else if let Some(items) = self.apart.get_mut(vault) {
            items.remove(item);
        }
    }
}

/// What is not in a list that could not be read whole may be there all the same.
fn found<'l>(
    found: Option<&'l Listed>,
    list: &List,
    target: &Target<'_>,
) -> Result<Option<&'l Listed>, FetchError> {
    if found.is_none() && list.spoiled {
        let why = "an entry of the list that it may be in cannot be read".into();
        return Err(FetchError::Broken { why }.of_part(target));
    }
    Ok(found)
}

/// The vaults as they were when the oldest value in memory was fetched, or before.
#[derive(Debug, Default)]
pub struct Baseline(Vec<Listed>);

impl Baseline {
    /// Adds vaults that were not known before. A known one keeps its version: this list may be newer than values
    /// that were fetched earlier. One with the name of a known one is not added: values may be from the other.
    pub fn note(&mut self, vaults: &List) {
        for vault in &vaults.entries {
            let is_like =
                |known: &Listed| known.id == vault.id || ListedVault(known).answers_to(&vault.title);
            if !self.0.iter().any(is_like) {
                self.0.push(vault.clone());
            }
        }
    }

    /// Says for each reference whether its value cannot have changed. The caller must not use the other values any more:
    /// from now on, later versions are compared with `vaults`.
    pub fn renew(&mut self, vaults: List, names: &mut Names, references: &[Reference]) -> Vec<bool> {
        let is_same = |vault: &Listed| vault.version.is_some() && self.0.contains(vault);
        let unchanged = |reference: &Reference| {
            let vault = find_vault(&vaults.entries, &reference.vault).ok().flatten();
            vault.is_some_and(is_same)
        };
        let unchanged = references.iter().map(unchanged).collect();
        self.0.clone_from(&vaults.entries);
        names.set_vaults(vaults);
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

    fn vaults(list: &[(&str, &str, u64)]) -> List {
        let listed = |(id, title, version): &(&str, &str, u64)| Listed {
            id: (*id).into(),
            title: (*title).into(),
            version: Some(*version),
        };
        List { entries: list.iter().map(listed).collect(), spoiled: false }
    }

    fn unchanged(before: &[(&str, &str, u64)], after: &[(&str, &str, u64)]) -> Vec<bool> {
        let references = ["op://Zoo/i/f", "op://b/i/f"].map(|text| text.parse().unwrap());
        let mut names = Names { vaults: vaults(before), ..Names::default() };
        let mut baseline = Baseline::default();
        baseline.note(&names.vaults);
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
    fn a_new_vault_confirms_no_value_of_the_one_that_had_its_name() {
        let mut baseline = Baseline::default();
        let mut names = Names { vaults: vaults(&[("a", "Zoo", 1)]), ..Names::default() };
        baseline.note(&names.vaults);
        names.vaults = vaults(&[("b", "zoo", 1)]);
        baseline.note(&names.vaults);
        let references = ["op://Zoo/i/f".parse().unwrap()];
        for confirmed in [false, true] {
            let new = vaults(&[("b", "zoo", 1)]);
            assert_eq!(baseline.renew(new, &mut names, &references), [confirmed]);
        }
    }

    #[test]
    fn a_newer_list_does_not_make_older_values_newer() {
        let mut baseline = Baseline::default();
        let mut names = Names { vaults: vaults(&[("a", "Zoo", 1)]), ..Names::default() };
        baseline.note(&names.vaults);
        // A fetch of something else listed the vaults again, after the change.
        names.vaults = vaults(&[("a", "Zoo", 2)]);
        baseline.note(&names.vaults);
        let reference = "op://Zoo/i/f".parse().unwrap();
        assert_eq!(baseline.renew(vaults(&[("a", "Zoo", 2)]), &mut names, &[reference]), [false]);
    }
}
