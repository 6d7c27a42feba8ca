//! A Connect server: its REST interface as far as secrets are read through it.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::account::{Account, Field, FieldValue, Item, NO_SECTION, Seal, Vault};
use super::hook::Hook;
use super::http::{Request, Response, Server, Site, Tls};

/// A made-up token: Connect's are JSON web tokens.
pub const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJtYWRlIjoidXAifQ.made-up-signature";
const DATE: &str = "2026-11-24T00:00:00Z";

pub struct Connect {
    pub server: Server,
    site: Arc<Backend>,
}

struct Backend {
    account: Mutex<Account>,
    hook: Hook,
}

impl Connect {
    pub fn start(listener: TcpListener, tls: Option<&Tls>, account: Account) -> Self {
        let site = Arc::new(Backend { account: Mutex::new(account), hook: Hook::default() });
        Self { server: Server::start(listener, tls, site.clone()), site }
    }

    pub fn local(account: Account) -> Self {
        Self::start(TcpListener::bind(("127.0.0.1", 0)).unwrap(), None, account)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    pub fn account(&self) -> Account {
        self.site.account.lock().unwrap().clone()
    }

    /// Gets every answer with JSON in it.
    pub fn hook(&self) -> &Hook {
        &self.site.hook
    }

    pub fn change(&self, change: impl FnOnce(&mut Account)) {
        change(&mut self.site.account.lock().unwrap());
    }
}

fn error(status: u16, message: &str) -> Response {
    Response::json(status, &json!({"status": status, "message": message}))
}

impl Site for Backend {
    fn answer(&self, request: &Request) -> Response {
        let parts: Vec<&str> = request.path.split('/').filter(|part| !part.is_empty()).collect();
        match &parts[..] {
            ["heartbeat"] => return Response::bytes(b".".to_vec()),
            ["health"] => {
                return Response::json(200, &json!({"name": "1Password Connect API", "version": "1.7.1"}));
            }
            _ => {}
        }
        if request.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
            return error(401, "Invalid bearer token");
        }
        if request.method != "GET" {
            return error(405, "only reading is simulated");
        }
        let ids = parts.iter().skip(2).step_by(2);
        if !ids.into_iter().all(|id| is_id(id)) {
            return error(400, "Invalid UUID");
        }
        let account = self.account.lock().unwrap();
        self.read(&account, &parts, &request.query).unwrap_or_else(|response| response)
    }
}

impl Backend {
    fn read(&self, account: &Account, parts: &[&str], query: &str) -> Result<Response, Response> {
        let ok = |value: Value| {
            let body = self.hook.text(&parts.join("/"), &value).into_bytes();
            Ok(Response { body, ..Response::json(200, &Value::Null) })
        };
        match parts {
            ["v1", "vaults"] => {
                let wanted = filter(query, &["name", "title"])?;
                let shared = account.vaults.iter().filter(|vault| vault.shared);
                ok(shared
                    .filter(|v| wanted.as_ref().is_none_or(|name| *name == v.name))
                    .map(vault_json)
                    .collect())
            }
            ["v1", "vaults", id] => ok(vault_json(vault(account, id)?)),
            ["v1", "vaults", id, "items"] => {
                let (vault, wanted) = (vault(account, id)?, filter(query, &["title"])?);
                let named = |item: &&Item| wanted.as_ref().is_none_or(|title| *title == item.title);
                let listed = vault.items.iter().filter(named);
                ok(listed.map(|item| overview(vault, item)).collect())
            }
            ["v1", "vaults", id, "items", item] => {
                let vault = vault(account, id)?;
                let item = find(vault, item)?;
                match item.seal {
                    Seal::Good => ok(whole(vault, item)),
                    Seal::BadDetails | Seal::Bad => Err(error(500, "failed to decrypt item")),
                }
            }
            ["v1", "vaults", id, "items", item, "files"] => {
                let vault = vault(account, id)?;
                let item = find(vault, item)?;
                ok(item.files.iter().map(|file| file_json(vault, item, file)).collect())
            }
            ["v1", "vaults", id, "items", item, "files", file, rest @ ..] => {
                let vault = vault(account, id)?;
                let item = find(vault, item)?;
                let file = item
                    .files
                    .iter()
                    .find(|known| known.id == *file)
                    .ok_or_else(|| error(404, "file not found"))?;
                match rest {
                    [] => ok(file_json(vault, item, file)),
                    ["content"] => Ok(Response::bytes(file.content.clone())),
                    _ => Err(error(404, "no such path")),
                }
            }
            _ => Err(error(404, "no such path")),
        }
    }
}

/// 26 letters and digits.
fn is_id(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// The value of `?filter=KEY eq "…"`; 1Password's clients do not agree on the key for a vault's name.
fn filter(query: &str, keys: &[&str]) -> Result<Option<String>, Response> {
    let Some(encoded) = query.split('&').find_map(|part| part.strip_prefix("filter=")) else {
        return Ok(None);
    };
    let text = percent_decoded(encoded);
    let value = keys
        .iter()
        .find_map(|key| text.strip_prefix(key))
        .and_then(|rest| rest.trim_start().strip_prefix("eq"));
    let value = value.and_then(|rest| rest.trim().strip_prefix('"')?.strip_suffix('"').map(str::to_owned));
    value.map(Some).ok_or_else(|| error(400, "a filter that is not understood"))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    String::from_utf8(bytes).unwrap()
}

fn vault<'a>(account: &'a Account, id: &str) -> Result<&'a Vault, Response> {
    let vault = account.vaults.iter().find(|vault| vault.id == id);
    match vault {
        Some(vault) if vault.shared => Ok(vault),
        Some(_) => Err(error(403, "Authorization: token does not have permission to perform this action")),
        None => Err(error(404, "vault not found")),
    }
}

fn find<'a>(vault: &'a Vault, id: &str) -> Result<&'a Item, Response> {
    vault.items.iter().find(|item| item.id == id).ok_or_else(|| error(404, "item not found"))
}

fn vault_json(vault: &Vault) -> Value {
    json!({
        "id": vault.id, "name": vault.name, "description": "", "attributeVersion": 1,
        "contentVersion": vault.content_version, "items": vault.items.len(), "type": "USER_CREATED",
        "createdAt": DATE, "updatedAt": DATE,
    })
}

fn overview(vault: &Vault, item: &Item) -> Value {
    let mut overview = json!({
        "id": item.id, "title": item.title, "vault": {"id": vault.id, "name": vault.name}, "category": item.category,
        "version": 1, "tags": [], "urls": [], "createdAt": DATE, "updatedAt": DATE, "lastEditedBy": vault.id,
    });
    if item.archived {
        // It is listed, and served, like any other.
        overview["state"] = "ARCHIVED".into();
    }
    overview
}

fn whole(vault: &Vault, item: &Item) -> Value {
    let mut titles: Vec<&str> = Vec::new();
    let of_fields = item.fields.iter().map(Field::section);
    for title in of_fields.chain(item.files.iter().map(|file| file.section.as_str())) {
        if !title.is_empty() && !titles.contains(&title) {
            titles.push(title);
        }
    }
    let notes = json!({"id": "notesPlain", "type": "STRING", "purpose": "NOTES", "label": "notesPlain", "value": item.notes});
    let mut whole = overview(vault, item);
    whole["sections"] = titles.iter().map(|title| section(title)).collect();
    whole["fields"] = item.fields.iter().map(field).chain([notes]).collect();
    whole["files"] = item.files.iter().map(|file| file_json(vault, item, file)).collect();
    whole
}

fn section(title: &str) -> Value {
    json!({"id": format!("section_{}", title.to_lowercase()), "label": title})
}

fn field(field: &Field) -> Value {
    let (kind, value) = match &field.value {
        FieldValue::Text(text) => ("STRING", json!(text)),
        FieldValue::Concealed(text) => ("CONCEALED", json!(text)),
        FieldValue::OneTimePassword(uri) => ("OTP", json!(uri)),
        FieldValue::Date(seconds) => ("DATE", json!(seconds.to_string())),
        FieldValue::MonthYear(month) => ("MONTH_YEAR", json!(month.to_string())),
        FieldValue::Address { street, city, state, zip, country } => {
            ("ADDRESS", json!(format!("{street}, {city}, {state}, {zip}, {country}")))
        }
        FieldValue::SshKey(pem) => ("SSHKEY", json!(pem)),
    };
    let mut json = json!({"id": field.id, "type": kind, "value": value});
    if !field.label.is_empty() {
        json["label"] = field.label.clone().into();
    }
    if field.section == NO_SECTION {
        json["section"] = json!({"id": NO_SECTION});
    } else if !field.section.is_empty() {
        // Its id alone, as the real one has it for some fields; the label is in the item's list.
        json["section"] = json!({"id": section(&field.section)["id"]});
    }
    if kind == "OTP" {
        json["totp"] = "123456".into();
    }
    json
}

fn file_json(vault: &Vault, item: &Item, file: &super::account::File) -> Value {
    let path = format!("/v1/vaults/{}/items/{}/files/{}/content", vault.id, item.id, file.id);
    let mut json =
        json!({"id": file.id, "name": file.name, "size": file.content.len(), "content_path": path});
    if !file.section.is_empty() {
        json["section"] = section(&file.section);
    }
    json
}
