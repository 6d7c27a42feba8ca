//! The methods of 1Password's SDK that are used, typed, on one authenticated client.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::core::{Core, Failure};
use super::token::Token;
use crate::secret::Draft;

/// An authenticated client of the core.
pub struct Client<'c> {
    core: &'c Core,
    id: u64,
}

/// A vault or an item in a list, as far as it is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub id: String,
    pub title: String,
}

/// A vault, and how often its content has changed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Vault {
    #[serde(flatten)]
    pub listed: Listed,
    pub content_version: u64,
}

/// What each of several items came to.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemsGetAll<'a> {
    #[serde(borrow)]
    individual_responses: Vec<Individual<'a>>,
}

#[derive(Deserialize)]
struct Individual<'a> {
    #[serde(borrow)]
    content: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow)]
    error: Option<IndividualError<'a>>,
}

/// What names a file.
#[derive(Debug, Serialize)]
pub struct FileAttributes<'a> {
    pub id: &'a str,
    pub name: &'a str,
    /// In bytes.
    pub size: u64,
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

/// As which version of 1Password's SDK we ask: that of the library that this is written for (0.4.2).
const SDK_VERSION: &str = "0040201";
/// How many items one request may ask for.
const BATCH: usize = 50;

impl<'c> Client<'c> {
    /// Signs in: four requests, and a fifth for the keys with the first vault.
    pub fn sign_in(core: &'c Core, token: &Token, deadline: Instant) -> Result<Self, Failure> {
        // The token goes from its own buffer into this one, which is wiped as well. It needs no escapes: base64.
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
        let settings = draft.finish().map_err(|_| Failure::Broken("no settings".into()))?;
        let id = core.init_client(settings.expose(), deadline)?;
        let id = id.parse().map_err(|_| Failure::Broken("a client id that is no number".into()))?;
        Ok(Self { core, id })
    }

    /// All vaults that the account may read.
    pub fn vaults(&self, deadline: Instant) -> Result<Vec<Vault>, Failure> {
        let list = self.invoke("VaultsList", json!({}), deadline)?;
        read(&list)
    }

    /// All items of a vault that are not archived, without their fields.
    pub fn list(&self, vault: &str, deadline: Instant) -> Result<Vec<Listed>, Failure> {
        let list = self.invoke("ItemsList", json!({"vault_id": vault, "filters": []}), deadline)?;
        read(&list)
    }

    /// Whole items, as JSON; those that are not there are missing. One item is one request, several are one for each 50.
    pub fn items(
        &self,
        vault: &str,
        items: &[String],
        deadline: Instant,
    ) -> Result<Vec<Option<Zeroizing<Vec<u8>>>>, Failure> {
        if let [item] = items {
            return match self.invoke("ItemsGet", json!({"vault_id": vault, "item_id": item}), deadline) {
                Ok(item) => Ok(vec![Some(item)]),
                Err(failure) if failure.is_item_not_found() => Ok(vec![None]),
                Err(failure) => Err(failure),
            };
        }
        let mut found = Vec::with_capacity(items.len());
        for batch in items.chunks(BATCH) {
            let answer =
                self.invoke("ItemsGetAll", json!({"vault_id": vault, "item_ids": batch}), deadline)?;
            let ItemsGetAll { individual_responses } = read(&answer)?;
            // The server leaves out what is not there, so that only the ids tell which is which.
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
            let json =
                |id: &String| answered.get(id.as_str()).map(|item| item.get().as_bytes().to_vec().into());
            found.extend(batch.iter().map(json));
        }
        Ok(found)
    }

    /// The content of a file, which arrives as a list of numbers.
    pub fn file(
        &self,
        vault: &str,
        item: &str,
        file: &FileAttributes<'_>,
        deadline: Instant,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let parameters = json!({"vault_id": vault, "item_id": item, "attr": file});
        self.invoke("ItemsFilesRead", parameters, deadline)
    }

    /// What the core itself makes of a reference. Its errors hide outages and limits, so this is only for what we cannot
    /// make of an item ourselves, after the item was read.
    pub fn resolve(&self, reference: &str, deadline: Instant) -> Result<Zeroizing<Vec<u8>>, Failure> {
        self.invoke("SecretsResolve", json!({"secret_reference": reference}), deadline)
    }

    fn invoke(
        &self,
        method: &str,
        parameters: serde_json::Value,
        deadline: Instant,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let invocation = json!({"invocation": {"clientId": self.id, "parameters": {"name": method, "parameters": parameters}}});
        self.core.invoke(invocation.to_string().as_bytes(), deadline)
    }
}

fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Failure> {
    // Not serde's own words, which can quote a value.
    serde_json::from_slice(json).map_err(|error| {
        Failure::Broken(format!("an answer that is not understood (column {})", error.column()))
    })
}
