//! From references to values: names to ids, ids to items, items to fields and files. The same for 1Password itself and for
//! Connect servers.
//!
//! Vaults are listed for each fetch, because nothing that a vault's id leads to says whether the vault still has the name, and
//! because their versions tell whether the remembered names of their items still hold. So a value whose item was found before
//! costs one request more. A remembered name is looked up again, too, when its item no longer exists or no longer has that name.
//!
//! Each reference has its own result, which is given as soon as it is there. What fails is the fault of its item, or its vault,
//! unless the provider answers nothing else either ([`Asking`]).

use std::collections::{BTreeMap, VecDeque};

use super::asking::Asking;
use super::items::Found;
use super::known::Names;
use super::members::Members;
use super::naming::Nameable;
use super::{Account, Json, List, Target, value};
use crate::providers::error::FetchError;
use crate::reference::{Kind, Reference, is_id};
use crate::secret::Secret;

/// How many requests more than usual the search for the items of one batch that make it fail may take.
const SEARCH_MAX: usize = 24;

pub type Fetched = Result<Secret, FetchError>;

/// What a fetch tells as soon as it is known.
pub enum Told {
    /// The vaults, listed before any value of this fetch was read. Told once at most.
    Vaults(List),
    /// The results for the references of these numbers, as far as they were read together.
    Results(Vec<(usize, Fetched)>),
}

pub type Tell<'g> = &'g mut dyn FnMut(Told);

pub struct Resolver<'a, A> {
    asking: Asking<'a, A>,
    references: &'a [Reference],
    tell: Tell<'a>,
    /// How it went to list the items of each vault in this fetch, if that was done. What failed is not tried again for each
    /// reference.
    listed: BTreeMap<String, Result<(), FetchError>>,
    /// What takes a request of its own after its item was read.
    later: Vec<Later>,
    /// The references whose remembered names were outdated.
    outdated: Vec<usize>,
}

struct Later {
    index: usize,
    vault: String,
    item: String,
    json: std::rc::Rc<Json>,
}

/// An item, and the references to it.
type Wanted = BTreeMap<String, Vec<usize>>;

impl<'a, A: Account> Resolver<'a, A> {
    pub fn new(account: &'a A, names: Names, references: &'a [Reference], tell: Tell<'a>) -> Self {
        let asking = Asking::new(account, names);
        Self { asking, references, tell, listed: BTreeMap::new(), later: Vec::new(), outdated: Vec::new() }
    }

    /// Gives one result for each reference, and returns the names to remember. Files come last, because they can take long.
    pub fn resolve(mut self) -> Names {
        let mut open: Vec<usize> = (0..self.references.len()).collect();
        // The second round is for references whose remembered names were outdated.
        for _ in 0..2 {
            let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
            for indices in self.by_item(open) {
                let mut failed = Vec::new();
                for index in indices {
                    match self.locate(&self.references[index]) {
                        Ok((vault, item)) => {
                            wanted.entry(vault).or_default().entry(item).or_default().push(index);
                        }
                        Err(error) => failed.push((index, Err(error))),
                    }
                }
                self.give(failed);
            }
            self.read_all(&wanted);
            open = std::mem::take(&mut self.outdated);
        }
        for indices in self.by_item(open) {
            let failed = indices.into_iter().map(|index| {
                let why = "names changed while they were looked up".into();
                let target = Target::item(&self.references[index]);
                (index, Err(FetchError::Unavailable { why }.of_part(&target)))
            });
            self.give(failed.collect());
        }
        let mut later = std::mem::take(&mut self.later);
        later.sort_by_key(|later| self.references[later.index].kind == Kind::File);
        for later in later {
            let result = self.value(&later);
            self.give(vec![(later.index, result)]);
        }
        self.asking.names
    }

    /// What is known of one item is told at once.
    fn give(&mut self, results: Vec<(usize, Fetched)>) {
        if !results.is_empty() {
            (self.tell)(Told::Results(results));
        }
    }

    /// The references of these numbers, by the item that they name.
    fn by_item(&self, indices: Vec<usize>) -> Vec<Vec<usize>> {
        let mut items: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for index in indices {
            let reference = &self.references[index];
            let item = (reference.vault.to_lowercase(), reference.item.to_lowercase());
            items.entry(item).or_default().push(index);
        }
        items.into_values().collect()
    }

    fn locate(&mut self, reference: &Reference) -> Result<(String, String), FetchError> {
        if is_id(&reference.vault) && is_id(&reference.item) {
            return Ok((reference.vault.clone(), reference.item.clone()));
        }
        let are_first = self.asking.nothing_is_known();
        self.asking.list_vaults()?;
        if are_first {
            (self.tell)(Told::Vaults(self.asking.names.vaults().clone()));
        }
        let vault = if is_id(&reference.vault) {
            reference.vault.clone()
        } else {
            let vault = self.asking.names.vault(&reference.vault)?;
            vault.ok_or_else(|| self.asking.names.no_vault(&reference.vault))?.id.clone()
        };
        let item = self.item(&vault, reference)?;
        Ok((vault, item))
    }

    fn item(&mut self, vault: &str, reference: &Reference) -> Result<String, FetchError> {
        if is_id(&reference.item) {
            return Ok(reference.item.clone());
        }
        if self.asking.names.items_are_current(vault)
            && let Ok(Some(item)) = self.asking.names.item(vault, reference)
        {
            return Ok(item.id.clone());
        }
        self.list_items(vault, reference)?;
        let item = self.asking.names.item(vault, reference)?;
        Ok(item.ok_or_else(|| self.asking.names.no_item(vault, reference))?.id.clone())
    }

    fn list_items(&mut self, vault: &str, reference: &Reference) -> Result<(), FetchError> {
        if let Some(listed) = self.listed.get(vault) {
            return listed.clone();
        }
        let target = Target::vault(reference);
        let listed = self.asking.ask(target, |account| account.list(vault, &target));
        let listed = listed.map(|items| self.asking.names.set_items(vault, items));
        self.listed.insert(vault.to_owned(), listed.clone());
        listed
    }

    /// Reads items, in as few requests as possible, and takes the values from them. A request that fails because of one of its
    /// items is made again by halves, so that the others are had. What failed, now or before, comes last: it may take long to fail.
    fn read_all(&mut self, wanted: &BTreeMap<String, Wanted>) {
        let mut queue = VecDeque::new();
        let mut apart = Vec::new();
        for (vault, items) in wanted {
            let ids = items.keys().cloned();
            let (alone, together): (Vec<_>, Vec<_>) =
                ids.partition(|item| self.asking.names.is_apart(vault, item));
            queue.extend(together.chunks(A::BATCH).map(|batch| (vault, batch.to_vec())));
            apart.extend(alone.into_iter().map(|item| (vault, vec![item])));
        }
        queue.extend(apart);
        let mut search = SEARCH_MAX;
        while let Some((vault, ids)) = queue.pop_front() {
            let Some(error) = self.read(vault, &ids, &wanted[vault]) else { continue };
            let is_part = !error.consequences().provider_is_down;
            if is_part && ids.len() > 1 && search > 1 {
                search -= 2;
                let (half, other) = ids.split_at(ids.len() / 2);
                queue.extend([(vault, half.to_vec()), (vault, other.to_vec())]);
            } else if ids.len() > 1 && !error.consequences().cached_may_stand_in {
                // It was said of one of them, and which that is was not found out.
                let error = FetchError::NotTaken { why: error.to_string() };
                self.fail(vault, &ids, &wanted[vault], &error.of_part(&"one of several items"));
            } else {
                self.fail(vault, &ids, &wanted[vault], &error);
            }
        }
    }

    /// One request. Returns why it failed.
    fn read(&mut self, vault: &str, ids: &[String], items: &Wanted) -> Option<FetchError> {
        let first = &self.references[items[&ids[0]][0]];
        let target = Target::item(first);
        match self.asking.ask(target, |account| account.items(vault, ids, &target)) {
            Ok(found) => {
                for (id, json) in ids.iter().zip(found) {
                    self.asking.names.set_apart(vault, id, false);
                    self.pick(vault, id, json, &items[id]);
                }
                None
            }
            // The vault may be gone, or not ours any more.
            Err(error) if ids.len() > 1 && !error.consequences().cached_may_stand_in => {
                let of_vault = self.list_items(vault, first).err();
                // Which of them it is about is not known yet.
                if let Some(of_vault) = of_vault {
                    self.fail(vault, ids, items, &of_vault);
                    return None;
                }
                Some(error)
            }
            Err(error) => Some(error),
        }
    }

    /// Tells all who want these items that they cannot be had.
    fn fail(&mut self, vault: &str, ids: &[String], items: &Wanted, error: &FetchError) {
        for id in ids {
            let target = Target::item(&self.references[items[id][0]]);
            let error = match error {
                FetchError::PartFails { cause, .. } => (**cause).clone().of_part(&target),
                error => error.clone(),
            };
            if ids.len() == 1 && matches!(error, FetchError::PartFails { .. }) {
                self.asking.names.set_apart(vault, id, true);
            }
            self.give(items[id].iter().map(|index| (*index, Err(error.clone()))).collect());
        }
    }

    /// Takes the values of these references from their item.
    fn pick(&mut self, vault: &str, id: &str, json: Option<Json>, of: &[usize]) {
        let json = json.map(std::rc::Rc::new);
        let members = json.as_ref().map(|json| serde_json::from_slice::<Members<'_>>(json));
        let item = members.map(|members| members.ok().map(|members| A::read(&members)));
        // They are of one version of the item, and are given as such.
        let mut together = Vec::new();
        for index in of {
            let reference = &self.references[*index];
            let may_be_outdated = !is_id(&reference.item) && !self.listed.contains_key(vault);
            let result = match &item {
                None if may_be_outdated => None,
                None => Some(Err(Target::item(reference).not_found())),
                Some(None) => Some(Err(unreadable("an answer that is no item", reference))),
                // Whatever is served must be what was asked for.
                Some(Some(item)) if !item.id.is_empty() && item.id != id => {
                    Some(Err(unreadable("another item than was asked for", reference)))
                }
                Some(Some(item)) if may_be_outdated && (item.gone || !item.answers_to(&reference.item)) => {
                    None
                }
                Some(Some(item)) if item.gone => Some(Err(Target::item(reference).not_found())),
                Some(Some(item)) => match item.find(reference) {
                    Ok(Found::Text(text)) => Some(value::text(text, reference)),
                    Ok(Found::File(_) | Found::Derived(_)) => {
                        if let Some(json) = &json {
                            let (vault, item, json) = (vault.to_owned(), id.to_owned(), json.clone());
                            self.later.push(Later { index: *index, vault, item, json });
                        }
                        continue;
                    }
                    Err(error) => Some(Err(error)),
                },
            };
            match result {
                Some(result) => together.push((*index, result)),
                None => {
                    // Look the names up again in the next round.
                    self.asking.names.forget_items(vault);
                    self.outdated.push(*index);
                }
            }
        }
        self.give(together);
    }

    fn value(&mut self, later: &Later) -> Fetched {
        let Later { index, vault, item: id, json } = later;
        let reference = &self.references[*index];
        let members = serde_json::from_slice::<Members<'_>>(json);
        let item = members.map(|members| A::read(&members));
        let item = item.map_err(|_| unreadable("an answer that is no item", reference))?;
        match item.find(reference)? {
            Found::Text(text) => value::text(text, reference),
            Found::File(file) => {
                self.asking.ask(Target::file(reference), |account| account.file(vault, id, file, reference))
            }
            Found::Derived(field) => {
                // By ids, so that it is made from the very item that was just read.
                let mut by_id = Reference { vault: vault.clone(), item: id.clone(), ..reference.clone() };
                let sections = reference.section.iter();
                if !sections.chain([&reference.field]).all(|name| Reference::is_plain(name)) {
                    by_id = Reference { section: None, field: field.id.clone().into_owned(), ..by_id };
                }
                self.asking.ask(Target::item(reference), |account| account.derive(&by_id, reference))
            }
        }
    }
}

fn unreadable(what: &str, reference: &Reference) -> FetchError {
    FetchError::Broken { why: format!("it gave {what}") }.of_part(&Target::item(reference))
}
