//! From references to values: names to ids, ids to items, items to fields and files. The same for every provider at the
//! other end of a network.
//!
//! Names are remembered, so that a value whose item was found before costs one request. What was remembered is looked up
//! anew when the item is not there any more or does not bear the name any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::providers::ask::Target;
use crate::providers::ask::items::{self, File, Found, Item, Nameable, only};
use crate::providers::error::{FetchError, ObjectKind};
use crate::reference::{Reference, is_id};
use crate::secret::Secret;

/// What a provider can be asked for, by ids.
pub trait Account {
    /// All vaults that the token may read.
    fn vaults(&self) -> Result<Vec<Listed>, FetchError>;

    /// All items of a vault that are not archived, without their fields.
    fn list(&self, vault: &str, target: &Target<'_>) -> Result<Vec<Listed>, FetchError>;

    /// Whole items, as JSON; `None` for those that are not there. In as few requests as there is a way for.
    fn items(
        &self,
        vault: &str,
        ids: &[String],
        target: &Target<'_>,
    ) -> Result<Vec<Option<Json>>, FetchError>;

    /// One of these.
    fn parse<'a>(&self, json: &'a Json) -> Result<Item<'a>, FetchError>;

    fn file(
        &self,
        vault: &str,
        item: &Item<'_>,
        file: &File<'_>,
        reference: &Reference,
    ) -> Result<Secret, FetchError>;

    /// What only the provider makes of a field, such as an SSH key in another format. `by_id` names the field by ids of
    /// vault and item, `reference` as the user did.
    fn derive(&self, by_id: &Reference, reference: &Reference) -> Result<Secret, FetchError>;
}

/// JSON with values in it.
pub type Json = Zeroizing<Vec<u8>>;

/// A vault or an item in a list, as far as it is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub id: String,
    #[serde(alias = "name")]
    pub title: String,
    /// Of a vault: goes up with every change of its items.
    #[serde(default, alias = "contentVersion", skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// The vaults and items that are known by name.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Names {
    vaults: Vec<Listed>,
    /// By the id of their vault.
    items: HashMap<String, Vec<Listed>>,
}

/// The vaults as they were when the oldest value in memory was fetched, or before.
#[derive(Debug, Default)]
pub struct Baseline(Vec<Listed>);

impl Baseline {
    /// Takes note of vaults that were not known before. What is known stays as it was: a list may be newer than values that
    /// were fetched before it.
    pub fn note(&mut self, names: &Names) {
        for vault in &names.vaults {
            if self.0.iter().all(|known| known.id != vault.id) {
                self.0.push(vault.clone());
            }
        }
    }

    /// Says of which references the values cannot have changed. The others are not to be used any more: from here on,
    /// `vaults` is what changes are measured against.
    pub fn renew(&mut self, vaults: Vec<Listed>, names: &mut Names, references: &[Reference]) -> Vec<bool> {
        let is_same = |vault: &Listed| vault.version.is_some() && self.0.contains(vault);
        for changed in vaults.iter().filter(|vault| !is_same(vault)) {
            names.items.remove(&changed.id);
        }
        let all: Vec<ListedVault<'_>> = vaults.iter().map(ListedVault).collect();
        let unchanged = |reference: &Reference| {
            let vault = only(all.iter(), &reference.vault).ok().flatten();
            vault.is_some_and(|vault| is_same(vault.0))
        };
        let unchanged = references.iter().map(unchanged).collect();
        names.vaults.clone_from(&vaults);
        self.0 = vaults;
        unchanged
    }
}

/// Where a value is, in ids.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Location {
    vault: String,
    item: String,
}

pub struct Resolver<'a, A> {
    account: &'a A,
    pub names: Names,
    /// Whether the vaults were listed during this fetch, and the items of which of them.
    listed_vaults: bool,
    listed_items: BTreeSet<String>,
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

impl<'a, A: Account> Resolver<'a, A> {
    pub fn new(account: &'a A, names: Names) -> Self {
        Self { account, names, listed_vaults: false, listed_items: BTreeSet::new() }
    }

    /// One result for each reference, in their order.
    pub fn resolve(&mut self, references: &[Reference]) -> Vec<Result<Secret, FetchError>> {
        let mut results: Vec<Option<Result<Secret, FetchError>>> = references.iter().map(|_| None).collect();
        // The second round is for what the remembered names did not lead to.
        for _ in 0..2 {
            let open: Vec<usize> = (0..references.len()).filter(|index| results[*index].is_none()).collect();
            let mut wanted: BTreeMap<String, Vec<(usize, String)>> = BTreeMap::new();
            for index in open {
                match self.locate(&references[index]) {
                    Ok(Location { vault, item }) => wanted.entry(vault).or_default().push((index, item)),
                    Err(error) => results[index] = Some(Err(error)),
                }
            }
            for (vault, places) in wanted {
                self.read(&vault, &places, references, &mut results);
            }
        }
        let unfound = |reference: &Reference| FetchError::ItemNotFound {
            vault: reference.vault.clone(),
            item: reference.item.clone(),
        };
        results
            .into_iter()
            .zip(references)
            .map(|(result, r)| result.unwrap_or_else(|| Err(unfound(r))))
            .collect()
    }

    /// Reads the items of one vault and picks from them. What is left open was found by an outdated name.
    fn read(
        &mut self,
        vault: &str,
        places: &[(usize, String)],
        references: &[Reference],
        results: &mut [Option<Result<Secret, FetchError>>],
    ) {
        let ids: BTreeSet<&String> = places.iter().map(|(_, item)| item).collect();
        let ids: Vec<String> = ids.into_iter().cloned().collect();
        let first = &references[places[0].0];
        let target = Target::Item { vault: &first.vault, item: &first.item };
        let found = match self.account.items(vault, &ids, &target) {
            Ok(found) => found,
            Err(error) => {
                return places.iter().for_each(|(index, _)| results[*index] = Some(Err(error.clone())));
            }
        };
        for (index, id) in places {
            let reference = &references[*index];
            let json = ids.iter().position(|other| other == id).and_then(|position| found[position].as_ref());
            results[*index] = match json {
                None if self.may_be_outdated(vault, reference) => None,
                None => Some(Err(FetchError::ItemNotFound {
                    vault: reference.vault.clone(),
                    item: reference.item.clone(),
                })),
                Some(json) => self.pick(vault, json, reference),
            };
            if results[*index].is_none() {
                // Look the names up anew in the next round.
                self.names.items.remove(vault);
            }
        }
    }

    fn may_be_outdated(&self, vault: &str, reference: &Reference) -> bool {
        !is_id(&reference.item) && !self.listed_items.contains(vault)
    }

    /// `None`: the item does not bear the name any more by which it was found.
    fn pick(&self, vault: &str, json: &Json, reference: &Reference) -> Option<Result<Secret, FetchError>> {
        let item = match self.account.parse(json) {
            Ok(item) => item,
            Err(error) => return Some(Err(error)),
        };
        if !item.answers_to(&reference.item) && self.may_be_outdated(vault, reference) {
            return None;
        }
        Some(self.value(vault, &item, reference))
    }

    fn value(&self, vault: &str, item: &Item<'_>, reference: &Reference) -> Result<Secret, FetchError> {
        match item.find(reference)? {
            Found::Text(value) => items::text(value, reference),
            Found::File(file) => self.account.file(vault, item, file, reference),
            Found::Derived => {
                // Ids make sure that it is made of the very item that was read just now.
                let by_id =
                    Reference { vault: vault.to_owned(), item: item.id.clone().into(), ..reference.clone() };
                self.account.derive(&by_id, reference)
            }
        }
    }

    fn locate(&mut self, reference: &Reference) -> Result<Location, FetchError> {
        let vault = self.vault(&reference.vault)?;
        let item = self.item(&vault, reference)?;
        Ok(Location { vault, item })
    }

    fn vault(&mut self, name: &str) -> Result<String, FetchError> {
        if is_id(name) {
            return Ok(name.to_owned());
        }
        loop {
            let vaults: Vec<ListedVault<'_>> = self.names.vaults.iter().map(ListedVault).collect();
            match only(vaults.iter(), name) {
                Ok(Some(vault)) => return Ok(vault.id().to_owned()),
                other if self.listed_vaults => {
                    other?;
                    return Err(FetchError::VaultNotFound { vault: name.to_owned() });
                }
                _ => {}
            }
            self.names.vaults = self.account.vaults()?;
            self.listed_vaults = true;
        }
    }

    fn item(&mut self, vault: &str, reference: &Reference) -> Result<String, FetchError> {
        if is_id(&reference.item) {
            return Ok(reference.item.clone());
        }
        loop {
            let known = self.names.items.get(vault).map(Vec::as_slice).unwrap_or_default();
            let known: Vec<ListedItem<'_>> = known.iter().map(ListedItem).collect();
            match only(known.iter(), &reference.item) {
                Ok(Some(item)) => return Ok(item.id().to_owned()),
                other if self.listed_items.contains(vault) => {
                    other?;
                    let Reference { vault, item, .. } = reference.clone();
                    return Err(FetchError::ItemNotFound { vault, item });
                }
                _ => {}
            }
            let target = Target::Vault { vault: &reference.vault };
            let items = self.account.list(vault, &target)?;
            self.names.items.insert(vault.to_owned(), items);
            self.listed_items.insert(vault.to_owned());
        }
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
