//! From references to values: names to ids, ids to items, items to fields and files. The same for 1Password itself and for
//! Connect servers.
//!
//! Vaults are listed for each fetch, because nothing that a vault's id leads to says whether the vault still has the name.
//! The names of items are remembered, so that a value whose item was found before costs one request more. A remembered name
//! is looked up again when its item no longer exists, or no longer has that name.

use std::collections::{BTreeMap, BTreeSet};

use super::items::{Found, Item};
use super::known::Names;
use super::naming::Nameable;
use super::{Account, Json, Target, value};
use crate::providers::error::FetchError;
use crate::reference::{Reference, is_id};
use crate::secret::Secret;

/// Where a value is, in ids.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Location {
    vault: String,
    item: String,
}

pub struct Resolver<'a, A> {
    account: &'a A,
    pub names: Names,
    /// How it went to list the vaults for this fetch, and the items of each vault, if that was done. What failed is not tried
    /// again for each reference.
    vaults: Option<Listing>,
    items: BTreeMap<String, Listing>,
}

type Listing = Result<(), FetchError>;

impl<'a, A: Account> Resolver<'a, A> {
    pub fn new(account: &'a A, names: Names) -> Self {
        let vaults = names.vaults_are_current().then_some(Ok(()));
        Self { account, names, vaults, items: BTreeMap::new() }
    }

    /// One result for each reference, in their order.
    pub fn resolve(&mut self, references: &[Reference]) -> Vec<Result<Secret, FetchError>> {
        let mut results: Vec<Option<Result<Secret, FetchError>>> = references.iter().map(|_| None).collect();
        // The second round is for references whose remembered names were outdated.
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

    /// Reads the items of one vault and takes the values from them. A result stays `None` if its item was found by an
    /// outdated name.
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
                // Look the names up again in the next round.
                self.names.forget_items(vault);
            }
        }
    }

    fn may_be_outdated(&self, vault: &str, reference: &Reference) -> bool {
        !is_id(&reference.item) && !self.items.contains_key(vault)
    }

    /// `None`: the item no longer has the name by which it was found.
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
            Found::Text(value) => value::text(value, reference),
            Found::File(file) => self.account.file(vault, item, file, reference),
            Found::Derived => {
                // By ids, so that it is made from the very item that was just read.
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
        if self.vaults.is_none() {
            self.vaults = Some(self.account.vaults().map(|vaults| self.names.set_vaults(vaults)));
        }
        self.vaults.clone().unwrap_or(Ok(()))?;
        let vault = self.names.vault(name)?;
        let vault = vault.ok_or_else(|| FetchError::VaultNotFound { vault: name.to_owned() })?;
        Ok(vault.id.clone())
    }

    fn item(&mut self, vault: &str, reference: &Reference) -> Result<String, FetchError> {
        if is_id(&reference.item) {
            return Ok(reference.item.clone());
        }
        if let Ok(Some(item)) = self.names.item(vault, &reference.item) {
            return Ok(item.id.clone());
        }
        if !self.items.contains_key(vault) {
            let listed = self.account.list(vault, &Target::Vault { vault: &reference.vault });
            let listed = listed.map(|items| self.names.set_items(vault, items));
            self.items.insert(vault.to_owned(), listed);
        }
        self.items.get(vault).cloned().unwrap_or(Ok(()))?;
        let item = self.names.item(vault, &reference.item)?;
        let item = item.ok_or_else(|| FetchError::ItemNotFound {
            vault: reference.vault.clone(),
            item: reference.item.clone(),
        })?;
        Ok(item.id.clone())
    }
}
