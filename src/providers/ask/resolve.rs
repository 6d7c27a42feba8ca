//! From references to values: names to ids, ids to items, items to fields and files. The same for 1Password itself and for
//! Connect servers.
//!
//! Names are remembered, so that a value whose item was found before costs one request. A remembered name is looked up
//! again when its item no longer exists, or no longer has that name.

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
    /// Whether the vaults were listed during this fetch, and of which vaults the items were.
    listed_vaults: bool,
    listed_items: BTreeSet<String>,
}

impl<'a, A: Account> Resolver<'a, A> {
    pub fn new(account: &'a A, names: Names) -> Self {
        Self { account, names, listed_vaults: false, listed_items: BTreeSet::new() }
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
        !is_id(&reference.item) && !self.listed_items.contains(vault)
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
        loop {
            match self.names.vault(name) {
                Ok(Some(vault)) => return Ok(vault.id.clone()),
                other if self.listed_vaults => {
                    other?;
                    return Err(FetchError::VaultNotFound { vault: name.to_owned() });
                }
                _ => {}
            }
            self.names.set_vaults(self.account.vaults()?);
            self.listed_vaults = true;
        }
    }

    fn item(&mut self, vault: &str, reference: &Reference) -> Result<String, FetchError> {
        if is_id(&reference.item) {
            return Ok(reference.item.clone());
        }
        loop {
            match self.names.item(vault, &reference.item) {
                Ok(Some(item)) => return Ok(item.id.clone()),
                other if self.listed_items.contains(vault) => {
                    other?;
                    let Reference { vault, item, .. } = reference.clone();
                    return Err(FetchError::ItemNotFound { vault, item });
                }
                _ => {}
            }
            let target = Target::Vault { vault: &reference.vault };
            let items = self.account.list(vault, &target)?;
            self.names.set_items(vault, items);
            self.listed_items.insert(vault.to_owned());
        }
    }
}
