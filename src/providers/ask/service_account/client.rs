//! A client of 1Password's SDK that is signed in, with the methods that opnix uses.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::core::Core;
use super::failure::Failure;
use super::item::SdkItem;
use super::token::Token;
use crate::providers::ask::items::{File, Item};
use crate::providers::ask::{Account, Counter, Json, Listed, Target, value};
use crate::providers::error::FetchError;
use crate::reference::Reference;
use crate::secret::{Draft, Secret};

/// The version of 1Password's SDK that we claim to be: that of the library that this is written for (0.4.2).
const SDK_VERSION: &str = "0040201";
/// How many requests signing in takes.
const SIGN_IN: usize = 4;
/// How many items one request may ask for.
const BATCH: usize = 50;

pub struct Client<'c> {
    core: &'c Core,
    id: u64,
    /// How long one request may take.
    limit: Duration,
    counter: Counter<'c>,
    /// Whether the core has fetched the keys, which it does with the first vault.
    has_keys: Cell<bool>,
    /// The vaults that the core knows; it fetches others when they are first used.
    vaults: RefCell<HashSet<String>>,
}

/// The answer to a request for several items.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemsGetAll<'a> {
    #[serde(borrow)]
    individual_responses: Vec<Individual<'a>>,
}

#[derive(Deserialize)]
struct Individual<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<IndividualError<'a>>,
}

#[derive(Deserialize)]
struct Identified<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct IndividualError<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

impl<'c> Client<'c> {
    /// Signs in: [`SIGN_IN`] requests, and one more for the keys with the first vault.
    pub fn sign_in(
        core: &'c Core,
        token: &Token,
        limit: Duration,
        counter: Counter<'c>,
    ) -> Result<Self, FetchError> {
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
            counter(SIGN_IN);
            let settings = draft.finish().map_err(|_| broken("no settings"))?;
            let id = core.init_client(settings.expose(), Instant::now() + limit)?;
            let id = id.parse().map_err(|_| broken("a client id that is not a number"))?;
            Ok(Self { core, id, limit, counter, has_keys: Cell::new(false), vaults: RefCell::default() })
        };
        sign_in().map_err(|failure: Failure| failure.explain(&Target::Account))
    }

    fn batch(&self, vault: &str, ids: &[String]) -> Result<Vec<Option<Json>>, Failure> {
        let answer = self.invoke("ItemsGetAll", json!({"vault_id": vault, "item_ids": ids}))?;
        let ItemsGetAll { individual_responses } = read(&answer)?;
        // The server leaves out items that do not exist, so the answers can be told apart by their ids only.
        let mut answered = HashMap::new();
        for response in individual_responses {
            match (response.content, response.error) {
                (Some(item), _) => {
                    answered.insert(read::<Identified<'_>>(item.get().as_bytes())?.id, item);
                }
                (None, Some(error)) if error.kind == "itemNotFound" => {}
                _ => return Err(Failure::Broken("a batch with an item that could not be read".into())),
            }
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
        (self.counter)(1 + additional + usize::from(new) + usize::from(keys));
        let call = json!({"name": method, "parameters": parameters});
        let invocation = json!({"invocation": {"clientId": self.id, "parameters": call}});
        self.core.invoke(invocation.to_string().as_bytes(), Instant::now() + self.limit)
    }
}

impl Account for Client<'_> {
    fn vaults(&self) -> Result<Vec<Listed>, FetchError> {
        let list = self.invoke("VaultsList", json!({})).and_then(|list| read::<Vec<Listed>>(&list));
        let list = list.map_err(|failure| failure.explain(&Target::Account))?;
        self.vaults.borrow_mut().extend(list.iter().map(|vault| vault.id.clone()));
        Ok(list)
    }

    fn list(&self, vault: &str, target: &Target<'_>) -> Result<Vec<Listed>, FetchError> {
        let list = self.invoke("ItemsList", json!({"vault_id": vault, "filters": []}));
        list.and_then(|list| read(&list)).map_err(|failure| failure.explain(target))
    }

    /// One item is one request, several are one for each 50.
    fn items(
        &self,
        vault: &str,
        ids: &[String],
        target: &Target<'_>,
    ) -> Result<Vec<Option<Json>>, FetchError> {
        if let [id] = ids {
            return match self.invoke("ItemsGet", json!({"vault_id": vault, "item_id": id})) {
                Ok(item) => Ok(vec![Some(item)]),
                Err(failure) if failure.is_item_not_found() => Ok(vec![None]),
                Err(failure) => Err(failure.explain(target)),
            };
        }
        let mut found = Vec::with_capacity(ids.len());
        for batch in ids.chunks(BATCH) {
            found.extend(self.batch(vault, batch).map_err(|failure| failure.explain(target))?);
        }
        Ok(found)
    }

    fn parse<'a>(&self, json: &'a Json) -> Result<Item<'a>, FetchError> {
        let item = read::<SdkItem<'_>>(json).map_err(|failure| failure.explain(&Target::Account))?;
        Ok(Item::from(item))
    }

    fn file(
        &self,
        vault: &str,
        item: &Item<'_>,
        file: &File<'_>,
        reference: &Reference,
    ) -> Result<Secret, FetchError> {
        let attributes = json!({"id": file.id, "name": file.name, "size": file.size});
        let parameters = json!({"vault_id": vault, "item_id": item.id, "attr": attributes});
        let content = self.invoke("ItemsFilesRead", parameters);
        numbers(&content.map_err(|failure| failure.explain(&target_of(reference)))?, reference)
    }

    /// By the core's own resolver. Its errors do not tell outages and limits apart, so it is used only for what cannot be had
    /// otherwise, and after the item was read.
    fn derive(&self, by_id: &Reference, reference: &Reference) -> Result<Secret, FetchError> {
        let answer = self.invoke("SecretsResolve", json!({"secret_reference": by_id.to_string()}));
        let answer = answer.map_err(|failure| match failure {
            Failure::Reported { message, .. } => {
                FetchError::Unsupported { reference: reference.to_string(), what: message }
            }
            other => other.explain(&target_of(reference)),
        })?;
        let text = read(&answer).map_err(|failure| failure.explain(&target_of(reference)))?;
        value::text(text, reference)
    }
}

fn target_of(reference: &Reference) -> Target<'_> {
    Target::Item { vault: &reference.vault, item: &reference.item }
}

fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Failure> {
    // Without serde's message, which can quote a value.
    serde_json::from_slice(json).map_err(|error| {
        Failure::Broken(format!("an answer that is not understood (column {})", error.column()))
    })
}

/// The bytes of a JSON list of numbers, which is how the core returns files, decoded into a buffer that is wiped.
fn numbers(json: &[u8], reference: &Reference) -> Result<Secret, FetchError> {
    let malformed = || FetchError::Malformed {
        reference: reference.to_string(),
        what: "the content of the file is not a list of bytes".into(),
    };
    let inside = json.trim_ascii().strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    let inside = inside.ok_or_else(malformed)?;
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
