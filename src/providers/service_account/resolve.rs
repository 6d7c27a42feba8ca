//! From references to values: names to ids, ids to items, items to fields and files.
//!
//! Names are remembered, so that a value whose item was found before costs one request. What was remembered is looked up
//! anew when the item is not there any more or does not bear the name any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::client::{Client, FileAttributes, Listed};
use super::core::Failure;
use super::failure::Asked;
use super::item::SdkItem;
use super::token::is_id;
use crate::providers::FetchError;
use crate::providers::error::Named;
use crate::providers::items::{self, Found, Item, Nameable, only};
use crate::reference::Reference;
use crate::secret::{Draft, Secret};

/// The vaults and items that are known by name.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Names {
    vaults: Vec<Listed>,
    /// By the id of their vault.
    items: HashMap<String, Vec<Listed>>,
}

/// Where a value is, in ids.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Location {
    vault: String,
    item: String,
}

pub struct Resolver<'c> {
    pub client: Client<'c>,
    pub names: Names,
    pub deadline: Instant,
    /// Whether the vaults were listed during this fetch, and the items of which of them.
    listed_vaults: bool,
    listed_items: BTreeSet<String>,
}

struct ListedVault<'a>(&'a Listed);
struct ListedItem<'a>(&'a Listed);

impl Nameable for ListedVault<'_> {
    const WHAT: Named = Named::Vault;

    fn id(&self) -> &str {
        &self.0.id
    }

    fn name(&self) -> &str {
        &self.0.title
    }
}

impl Nameable for ListedItem<'_> {
    const WHAT: Named = Named::Item;

    fn id(&self) -> &str {
        &self.0.id
    }

    fn name(&self) -> &str {
        &self.0.title
    }
}

impl<'c> Resolver<'c> {
    pub fn new(client: Client<'c>, names: Names, deadline: Instant) -> Self {
        Self { client, names, deadline, listed_vaults: false, listed_items: BTreeSet::new() }
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
        let found = match self.client.items(vault, &ids, self.deadline) {
            Ok(found) => found,
            Err(failure) => {
                let first = &references[places[0].0];
                let error = failure.explain(&Asked::Item { vault: &first.vault, item: &first.item });
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
    fn pick(
        &self,
        vault: &str,
        json: &Zeroizing<Vec<u8>>,
        reference: &Reference,
    ) -> Option<Result<Secret, FetchError>> {
        let item = match serde_json::from_slice::<SdkItem<'_>>(json) {
            Ok(item) => Item::from(item),
            // Not serde's own words, which can quote a value.
            Err(error) => {
                let why = format!("an item of another shape than known (column {})", error.column());
                return Some(Err(Failure::Broken(why).explain(&Asked::Account)));
            }
        };
        if !item.answers_to(&reference.item) && self.may_be_outdated(vault, reference) {
            return None;
        }
        Some(self.value(vault, &item, reference))
    }

    fn value(&self, vault: &str, item: &Item<'_>, reference: &Reference) -> Result<Secret, FetchError> {
        let asked = Asked::Item { vault: &reference.vault, item: &reference.item };
        match item.find(reference)? {
            Found::Text(value) => items::text(value, reference),
            Found::File(file) => {
                let attributes = FileAttributes { id: &file.id, name: &file.name, size: file.size };
                let content = self.client.file(vault, &item.id, &attributes, self.deadline);
                numbers(&content.map_err(|failure| failure.explain(&asked))?, reference)
            }
            Found::Derived => {
                // The core converts keys; ids make sure that it takes the very item that was read just now.
                let by_id =
                    Reference { vault: vault.to_owned(), item: item.id.clone().into(), ..reference.clone() };
                let key = self.client.resolve(&by_id.to_string(), self.deadline);
                let key = key.map_err(|failure| failure.explain(&asked))?;
                let raw =
                    serde_json::from_slice(&key).map_err(|_| Failure::Broken("a key that is no text".into()));
                items::text(raw.map_err(|failure| failure.explain(&asked))?, reference)
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
            let vaults =
                self.client.vaults(self.deadline).map_err(|failure| failure.explain(&Asked::Account))?;
            self.names.vaults = vaults.into_iter().map(|vault| vault.listed).collect();
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
            let asked = Asked::Vault { vault: &reference.vault };
            let items = self.client.list(vault, self.deadline).map_err(|failure| failure.explain(&asked))?;
            self.names.items.insert(vault.to_owned(), items);
            self.listed_items.insert(vault.to_owned());
        }
    }
}

/// The bytes of a JSON list of numbers, written straight into their own buffer.
fn numbers(json: &[u8], reference: &Reference) -> Result<Secret, FetchError> {
    let malformed = || FetchError::Malformed {
        reference: reference.to_string(),
        what: "the content of the file is no list of bytes".into(),
    };
    let inside = json
        .trim_ascii()
        .strip_prefix(b"[")
        .and_then(|rest| rest.strip_suffix(b"]"))
        .ok_or_else(malformed)?;
    let mut draft = Draft::with_capacity(inside.iter().filter(|byte| **byte == b',').count() + 1);
    for number in inside.split(|byte| *byte == b',').filter(|_| !inside.trim_ascii().is_empty()) {
        let digits = std::str::from_utf8(number.trim_ascii()).map_err(|_| malformed())?;
        draft.push(&[digits.parse().map_err(|_| malformed())?]);
    }
    draft.finish().map_err(|_| FetchError::Empty { reference: reference.to_string() })
}
