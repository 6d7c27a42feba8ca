//! A client of 1Password's SDK that is signed in, with the methods that opnix uses.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::time::Instant;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::core::Core;
use super::failure::Failure;
use super::item;
use super::token::Token;
use crate::providers::ask::items::{File, Item};
use crate::providers::ask::members::{Members, Unreadable};
use crate::providers::ask::{ANSWER_MAX, Account, Counter, FILE_MAX, Json, List, REQUEST_MAX, Target, value};
use crate::providers::error::FetchError;
use crate::reference::Reference;
use crate::secret::{Draft, Secret};

/// The version of 1Password's SDK that we claim to be: that of the library that this is written for (0.4.2).
const SDK_VERSION: &str = "0040201";
/// How many requests signing in takes.
const SIGN_IN: usize = 4;

pub struct Client<'c> {
    core: &'c Core,
    id: u64,
    counter: Counter<'c>,
    /// Whether the core has fetched the keys, which it does with the first vault.
    has_keys: Cell<bool>,
    /// The vaults that the core knows; it fetches others when they are first used.
    vaults: RefCell<HashSet<String>>,
}

impl<'c> Client<'c> {
    /// Signs in: [`SIGN_IN`] requests, and one more for the keys with the first vault.
    pub fn sign_in(core: &'c Core, token: &Token, counter: Counter<'c>) -> Result<Self, FetchError> {
        // The token is copied into this buffer, which is wiped as well. It is base64, so it needs no escapes.
        let settings = json!({
            "programmingLanguage": "Rust",
            "sdkVersion": SDK_VERSION,
            "integrationName": "opnix",
            "integrationVersion": env!("CARGO_PKG_VERSION"),
            "requestLibraryName": "reqwest",
            "requestLibraryVersion": "0",
            "os": std::env::consts::OS,
            "osVersion": "0.0.0",
            "architecture": std::env::consts::ARCH,
        });
        let settings = settings.to_string();
        let (head, rest) = (b"{\"serviceAccountToken\":\"", settings.replacen('{', "\",", 1));
        let token = token.secret().expose();
        let mut draft = Draft::with_capacity(head.len() + token.len() + rest.len());
        [head, token, rest.as_bytes()].into_iter().for_each(|part| draft.push(part));
        let broken = |what: &str| Failure::Broken(what.into());
        let sign_in = || {
            let settings = draft.finish().map_err(|_| broken("no settings"))?;
            // If the first is in vain, there are no others.
            counter.count(1);
            let id = core.init_client(settings.expose(), within(SIGN_IN))?;
            counter.count(SIGN_IN - 1);
            let id = id.parse().map_err(|_| broken("a client id that is not a number"))?;
            Ok(Self { core, id, counter, has_keys: Cell::new(false), vaults: RefCell::default() })
        };
        sign_in().map_err(|failure: Failure| failure.explain(&Target::Account))
    }

    fn batch(&self, vault: &str, ids: &[String]) -> Result<Vec<Option<Json>>, Failure> {
        let answer = self.invoke("ItemsGetAll", json!({"vault_id": vault, "item_ids": ids}))?;
        let responses = Members::of(read(&answer)?).and_then(|answer| answer.list("individualResponses"));
        let responses = responses.map_err(|Unreadable| not_understood())?;
        // The server leaves out items that do not exist, so the answers can be told apart by their ids only.
        let mut answered: HashMap<Cow<'_, str>, &RawValue> = HashMap::new();
        for response in responses {
            let item = identified(response).map_err(|Unreadable| not_understood())?;
            answered.extend(item);
        }
        let json = |id: &String| answered.get(id.as_str()).map(|item| item.get().as_bytes().to_vec().into());
        Ok(ids.iter().map(json).collect())
    }

    fn invoke(&self, method: &str, parameters: serde_json::Value) -> Result<Json, Failure> {
        let additional = match method {
            // The core reads the item once more.
            "ItemsFilesRead" => 1,
            _ => 0,
        };
        let vault = parameters["vault_id"].as_str();
        let new = vault.is_some_and(|vault| self.vaults.borrow_mut().insert(vault.to_owned()));
        let keys = !self.has_keys.replace(true);
        let requests = 1 + additional + usize::from(new) + usize::from(keys);
        self.counter.count(requests);
        let call = json!({"name": method, "parameters": parameters});
        let invocation = json!({"invocation": {"clientId": self.id, "parameters": call}});
        let deadline = if additional > 0 { Instant::now() + FILE_MAX } else { within(requests) };
        let answer = self.core.invoke(invocation.to_string().as_bytes(), deadline);
        answer.inspect_err(|failure| {
            if failure.is_of_the_way() {
                // One was tried.
                (1..requests).for_each(|_| self.counter.never_sent());
                self.has_keys.set(false);
                self.vaults.borrow_mut().clear();
            }
        })
    }
}

/// The deadline of so many requests.
fn within(requests: usize) -> Instant {
    Instant::now() + REQUEST_MAX * u32::try_from(requests).unwrap_or(1)
}

/// An item in the answer to a request for several, by its id; `None` for one that does not exist.
fn identified(response: &RawValue) -> Result<Option<(Cow<'_, str>, &RawValue)>, Unreadable> {
    let response = Members::of(response)?;
    if let Some(item) = response.raw("content")? {
        let id = Members::of(item)?.text("id")?.ok_or(Unreadable)?;
        return Ok(Some((id, item)));
    }
    match response.object("error")?.map(|error| error.text("type")).transpose()?.flatten().as_deref() {
        Some("itemNotFound") => Ok(None),
        _ => Err(Unreadable),
    }
}

impl Account for Client<'_> {
    const BATCH: usize = 50;

    fn vaults(&self) -> Result<List, FetchError> {
        let list = self.invoke("VaultsList", json!({})).and_then(|list| read_list(&list));
        let list = list.map_err(|failure| failure.explain(&Target::Account))?;
        self.vaults.borrow_mut().extend(list.entries.iter().map(|vault| vault.id.clone()));
        Ok(list)
    }

    fn list(&self, vault: &str, target: &Target<'_>) -> Result<List, FetchError> {
        let list = self.invoke("ItemsList", json!({"vault_id": vault, "filters": []}));
        list.and_then(|list| read_list(&list)).map_err(|failure| failure.explain(target))
    }

    fn items(
        &self,
        vault: &str,
        ids: &[String],
        target: &Target<'_>,
    ) -> Result<Vec<Option<Json>>, FetchError> {
        let [id] = ids else {
            return self.batch(vault, ids).map_err(|failure| failure.explain(target));
        };
        match self.invoke("ItemsGet", json!({"vault_id": vault, "item_id": id})) {
            Ok(item) => Ok(vec![Some(item)]),
            Err(failure) if failure.is_item_not_found() => Ok(vec![None]),
            Err(failure) => Err(failure.explain(target)),
        }
    }

    fn read<'a>(item: &Members<'a>) -> Item<'a> {
        item::read(item)
    }

    fn file(
        &self,
        vault: &str,
        item: &str,
        file: &File<'_>,
        reference: &Reference,
    ) -> Result<Secret, FetchError> {
        let attributes = json!({"id": file.id, "name": file.name, "size": file.size.unwrap_or_default()});
        let parameters = json!({"vault_id": vault, "item_id": item, "attr": attributes});
        let content = self.invoke("ItemsFilesRead", parameters);
        numbers(&content.map_err(|failure| failure.explain(&Target::file(reference)))?, reference)
    }

    /// By the core's own resolver. Its errors do not tell outages and limits apart, so it is used only for what cannot be had
    /// otherwise, and after the item was read.
    fn derive(&self, by_id: &Reference, reference: &Reference) -> Result<Secret, FetchError> {
        let target = Target::item(reference);
        let answer = self.invoke("SecretsResolve", json!({"secret_reference": by_id.to_string()}));
        let answer = answer.map_err(|failure| failure.explain_resolver(&target))?;
        value::text(read(&answer).map_err(|failure| failure.explain(&target))?, reference)
    }
}

fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Failure> {
    // Without serde's message, which can quote a value.
    serde_json::from_slice(json).map_err(|_| not_understood())
}

fn read_list(json: &[u8]) -> Result<List, Failure> {
    List::read(json, "title").map_err(|Unreadable| not_understood())
}

fn not_understood() -> Failure {
    Failure::Broken("an answer that is not understood".into())
}

/// The bytes of a JSON list of numbers, which is how the core returns files, decoded into a buffer that is wiped.
fn numbers(json: &[u8], reference: &Reference) -> Result<Secret, FetchError> {
    let malformed = || FetchError::Malformed {
        reference: reference.to_string(),
        what: "the content of the file is not a list of bytes".into(),
    };
    let inside = json.trim_ascii().strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    let inside = inside.ok_or_else(malformed)?;
    if inside.len() / 2 > ANSWER_MAX {
        return Err(FetchError::Malformed {
            reference: reference.to_string(),
            what: "the file is over 64 MiB".into(),
        });
    }
    let mut draft = Draft::with_capacity(inside.iter().filter(|byte| **byte == b',').count() + 1);
    for number in inside.split(|byte| *byte == b',').filter(|_| !inside.trim_ascii().is_empty()) {
        let digits = std::str::from_utf8(number.trim_ascii()).map_err(|_| malformed())?;
        draft.push(&[digits.parse().map_err(|_| malformed())?]);
    }
    draft.finish().map_err(|_| FetchError::Empty { reference: reference.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_from_a_list_of_numbers() {
        let reference = "op://v/i/f".parse().unwrap();
        let read = |json: &str| numbers(json.as_bytes(), &reference).map(|secret| secret.expose().to_vec());
        assert_eq!(read("[0, 7,255]\n").unwrap(), [0, 7, 255]);
        assert!(matches!(read("[]"), Err(FetchError::Empty { .. })));
        for wrong in ["", "[256]", "[1,]", "{\"a\":1}", "[-1]"] {
            assert!(matches!(read(wrong), Err(FetchError::Malformed { .. })), "{wrong}");
        }
    }
}
