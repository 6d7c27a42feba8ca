//! What a signed-in client gets to see: key sets, vaults, items and files, each sealed with its key.

use serde_json::{Value, json};

use super::seal::Key;
use super::{Backend, State};
use crate::simulators::account::{self, Field, FieldValue, File, Item, Seal, Vault};

/// What belongs to the account's one SSH key.
const SSH_PUBLIC_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4";
const SSH_FINGERPRINT: &str = "SHA256:lbmsoA0yIEcEiVDRnMWuzm+nV+3ZEEpVIURqFoeSspg";
/// Each file has a key of its own, so that one number is enough.
const FILE_NONCE: [u8; 12] = [7; 12];
const DATE: &str = "2026-11-24T00:00:00Z";

impl Backend {
    /// The answer, or the status of an error.
    pub(super) fn content(
        &self,
        state: &mut State,
        method: &str,
        parts: &[&str],
        body: &Value,
    ) -> Result<Value, u16> {
        match (method, parts) {
            ("POST", ["v2", "auth", "complete"]) => Ok(
                json!({"accountUuid": account::id(4 << 40).to_uppercase(), "userUuid": account::id(5 << 40).to_uppercase()}),
            ),
            ("GET", ["v2", "account", "keysets"]) => Ok(self.keysets()),
            ("GET", ["v1", "vaults"]) => {
                let vaults: Vec<Vault> =
                    state.account.vaults.iter().filter(|vault| vault.shared).cloned().collect();
                Ok(vaults.iter().map(|vault| self.vault(state, vault)).collect())
            }
            ("GET", ["v3", "vault", id]) => {
                let vault = shared(state, id)?;
                Ok(self.vault(state, &vault))
            }
            ("GET", ["v1", "vault", id, "items", "overviews"]) => {
                let vault = shared(state, id)?;
                let key = key_of(state, &vault);
                let items: Vec<Value> = vault.items.iter().map(|item| overview(item, &key)).collect();
                Ok(
                    json!({"contentVersion": vault.content_version, "items": items, "batchComplete": true, "deletedItemUuids": []}),
                )
            }
            ("GET", ["v1", "vault", id, "item", item]) => {
                let vault = shared(state, id)?;
                let item = vault.items.iter().find(|known| known.id == *item).ok_or(404_u16)?;
                Ok(
                    json!({"contentVersion": vault.content_version, "item": whole(item, &key_of(state, &vault))}),
                )
            }
            ("POST", ["v3", "vault", id, "items", "batch"]) => {
                let vault = shared(state, id)?;
                let key = key_of(state, &vault);
                let asked = body["itemUuids"].as_array().ok_or(400_u16)?;
                if asked.len() > 50 {
                    return Err(400);
                }
                let known = |id: &Value| vault.items.iter().find(|item| *id == item.id.as_str());
                let items: Vec<Value> =
                    asked.iter().filter_map(known).map(|item| whole(item, &key)).collect();
                Ok(json!({"contentVersion": vault.content_version, "items": items}))
            }
            _ => Err(404),
        }
    }

    fn keysets(&self) -> Value {
        let keys = &self.keys;
        json!({"version": 1, "keysets": [{
            "uuid": keys.id, "encryptedBy": "mp", "sn": 1,
            "encSymKey": self.muk.seal(&keys.symmetric.jwk()),
            "encPriKey": keys.symmetric.seal(&keys.pair.private_jwk()),
            "pubKey": keys.pair.public_jwk(),
            "encSPriKey": null, "spubKey": null,
        }]})
    }

    fn vault(&self, state: &mut State, vault: &Vault) -> Value {
        let key = key_of(state, vault);
        let attributes = json!({"uuid": vault.id, "type": "U", "name": vault.name, "desc": "", "avatar": ""});
        json!({
            "uuid": vault.id, "type": "U", "createdAt": DATE, "updatedAt": DATE,
            "attrVersion": 1, "contentVersion": vault.content_version,
            "encAttrs": key.seal_part("encAttrs", &attributes),
            "activeItemCount": vault.items.iter().filter(|item| !item.archived).count(),
            "clientAccess": 4_294_967_295_u32,
            "combinedAccess": {
                "vaultUuid": vault.id, "accessorType": "user", "accessorUuid": account::id(5 << 40).to_uppercase(),
                "accessVersion": 1, "acl": 32, "leaseTimeout": 0, "vaultKeySN": 1, "encryptedBy": self.keys.id,
                "encVaultKey": self.keys.pair.seal(&key.jwk()),
            },
        })
    }
}

fn shared(state: &State, id: &str) -> Result<Vault, u16> {
    let vault = state.account.vaults.iter().find(|vault| vault.id == id).ok_or(404_u16)?;
    if vault.shared { Ok(vault.clone()) } else { Err(403) }
}

fn key_of(state: &mut State, vault: &Vault) -> Key {
    let hook = &state.hook;
    let new = || Key { hook: hook.clone(), ..Key::new(&vault.id) };
    state.vault_keys.entry(vault.id.clone()).or_insert_with(new).clone()
}

/// The vault's key, or for these seals another one that is called the same.
fn key_for(item: &Item, key: &Key, bad: &[Seal]) -> Key {
    if bad.contains(&item.seal) { Key::new(&key.id) } else { key.clone() }
}

fn overview(item: &Item, key: &Key) -> Value {
    let template = match item.category {
        "DOCUMENT" => "006",
        "SSH_KEY" => "114",
        "API_CREDENTIAL" => "112",
        _ => "001",
    };
    json!({
        "uuid": item.id, "templateUuid": template, "trashed": if item.archived { "Y" } else { "N" },
        "createdAt": DATE, "updatedAt": DATE, "changerUuid": account::id(5 << 40).to_uppercase(), "itemVersion": 1,
        "encryptedBy": key.id,
        "encOverview": key_for(item, key, &[Seal::Bad]).seal_part("encOverview", &json!({"title": item.title, "ainfo": "", "url": "", "URLs": [], "tags": []})),
    })
}

fn whole(item: &Item, key: &Key) -> Value {
    let mut titles: Vec<&str> = Vec::new();
    for field in &item.fields {
        if !titles.contains(&field.section()) {
            titles.push(field.section());
        }
    }
    let sections: Vec<Value> = titles
        .iter()
        .map(|title| {
            let fields: Vec<Value> =
                item.fields.iter().filter(|field| field.section() == *title).map(field).collect();
            let id = if title.is_empty() {
                "add more".to_owned()
            } else {
                format!("Section_{}", title.to_lowercase())
            };
            json!({"name": id, "title": title, "fields": fields})
        })
        .collect();
    let mut details = json!({"fields": [], "notesPlain": item.notes, "sections": sections});
    for file in &item.files {
        if item.category == "DOCUMENT" && file.section.is_empty() {
            details["documentAttributes"] = file_attributes(file);
        } else {
            let sections = details["sections"].as_array_mut().unwrap();
            let field = json!({"k": "file", "n": file.id, "t": file.name, "v": file_attributes(file)});
            let place = sections.iter_mut().find(|section| section["title"] == file.section.as_str());
            place.unwrap()["fields"].as_array_mut().unwrap().push(field);
        }
    }
    let mut whole = overview(item, key);
    whole["encDetails"] =
        key_for(item, key, &[Seal::Bad, Seal::BadDetails]).seal_part("encDetails", &details);
    whole
}

fn field(field: &Field) -> Value {
    let (kind, value, id) = match &field.value {
        FieldValue::Text(text) => ("string", json!(text), field.id.clone()),
        FieldValue::Concealed(text) => ("concealed", json!(text), field.id.clone()),
        FieldValue::OneTimePassword(uri) => ("concealed", json!(uri), format!("TOTP_{}", field.id)),
        FieldValue::Date(seconds) => ("date", json!(seconds), field.id.clone()),
        FieldValue::MonthYear(month) => ("monthYear", json!(month), field.id.clone()),
        FieldValue::Address { street, city, state, zip, country } => (
            "address",
            json!({"street": street, "city": city, "state": state, "zip": zip, "country": country}),
            field.id.clone(),
        ),
        FieldValue::SshKey(pem) => ("sshKey", json!(pem), field.id.clone()),
    };
    let mut content = json!({"k": kind, "n": id, "t": field.label, "v": value});
    if let FieldValue::SshKey(pem) = &field.value {
        content["a"] = json!({"sshKeyAttributes": {
            "privateKey": pem, "publicKey": SSH_PUBLIC_KEY, "fingerprint": SSH_FINGERPRINT, "keyType": {"t": "ed25519"},
        }});
    }
    content
}

/// What an item tells of a file; its content is sealed with a key of its own.
fn file_attributes(file: &File) -> Value {
    json!({
        "fileName": file.name, "documentId": file.id, "unencryptedSize": file.content.len(),
        "encryptedSize": file.content.len() + 16, "integrityHash": "", "nonce": super::seal::encode(&FILE_NONCE),
        "encryptionKey": file_key(file).jwk(), "signingKey": file_key(file).jwk(),
    })
}

/// The same each time, so that an item and its file agree.
fn file_key(file: &File) -> Key {
    let mut bytes = [0; 32];
    bytes[..26].copy_from_slice(file.id.as_bytes());
    Key { bytes, ..Key::new(&file.id) }
}

/// The sealed content of a file.
pub(super) fn file(state: &State, vault: &str, item: &str, file: &str) -> Result<Vec<u8>, u16> {
    let vault = shared(state, vault)?;
    let item = vault.items.iter().find(|known| known.id == item).ok_or(404_u16)?;
    let file = item.files.iter().find(|known| known.id == file).ok_or(404_u16)?;
    Ok(file_key(file).seal_with(&FILE_NONCE, &file.content))
}
