//! A server for service accounts, as strict as the protocol: a wrong proof, signature or session is refused and counted.

mod content;
mod seal;
mod srp;

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, OnceLock};

use ed25519_dalek::{Signature, SigningKey, Verifier, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use self::seal::{Key, Pair, decode, encode, random};
use super::account::{self, Account};
use super::hook::Hook;
use super::http::{Request, Response, Server, Site, Tls};

const EMAIL: &str = "Made-Up@1passwordserviceaccounts.com";
const KEY_ID: &str = "ABCDEF";
const SECRET_KEY: &str = "A3-ABCDEF-GHJKLM-NPQRS-TVWXY-Z2345-67892";
/// What 1Password derives the key of a session's signatures from.
const MAC_SALT: &[u8] = b"He never wears a Mac, in the pouring rain. Very strange.";

/// A running simulator.
pub struct ServiceAccount {
    pub server: Server,
    site: Arc<Backend>,
}

struct Backend {
    state: Mutex<State>,
    x: [u8; 32],
    salt: [u8; 16],
    throttle: SigningKey,
    muk: Key,
    keys: Keys,
    device: String,
    throttle_id: String,
}

/// The account's key set, and a key for each vault.
struct Keys {
    id: String,
    symmetric: Key,
    pair: &'static Pair,
}

struct State {
    account: Account,
    sessions: HashMap<String, Session>,
    vault_keys: HashMap<String, Key>,
    device: Device,
    revoked: bool,
    /// What a client did that 1Password would not take.
    violations: Vec<String>,
    hook: Hook,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Registered,
    Unknown,
    Deleted,
}

struct Session {
    srp: srp::Server,
    agreed: Option<srp::Agreed>,
    confirmed: bool,
}

/// Making one takes long; its content does not matter.
fn pair() -> &'static Pair {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    PAIR.get_or_init(|| Pair::new(&account::id(1 << 40)))
}

impl ServiceAccount {
    pub fn start(listener: TcpListener, account: Account) -> Self {
        Self::start_with(listener, None, account)
    }

    pub fn start_with(listener: TcpListener, tls: Option<&Tls>, account: Account) -> Self {
        let keys_id = account::id(1 << 40);
        let state = State {
            account,
            sessions: HashMap::new(),
            vault_keys: HashMap::new(),
            device: Device::Registered,
            revoked: false,
            violations: Vec::new(),
            hook: Hook::default(),
        };
        let site = Arc::new(Backend {
            state: Mutex::new(state),
            x: random(),
            salt: random(),
            throttle: SigningKey::from_bytes(&random()),
            muk: Key::new("mp"),
            keys: Keys { symmetric: Key::new(&keys_id), id: keys_id, pair: pair() },
            device: account::id(2 << 40),
            throttle_id: account::id(3 << 40),
        });
        Self { server: Server::start(listener, tls, site.clone()), site }
    }

    /// A simulator of its own on this machine's loopback.
    pub fn local(account: Account) -> Self {
        Self::start(TcpListener::bind(("127.0.0.1", 0)).unwrap(), account)
    }

    /// The same account, reached here.
    pub fn reached_at(&self, listener: TcpListener) -> Self {
        Self { server: Server::start(listener, None, self.site.clone()), site: self.site.clone() }
    }

    /// The token of the machine's account.
    pub fn token(&self) -> String {
        self.token_for(&format!("http://{}", self.server.address()))
    }

    pub fn token_for(&self, address: &str) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let members = json!({
            "signInAddress": address,
            "userAuth": {"method": "SRPg-4096", "alg": "PBES2g-HS256", "iterations": 650_000, "salt": encode(&self.site.salt)},
            "email": EMAIL,
            "srpX": hex(&self.site.x),
            "muk": self.site.muk.jwk(),
            "secretKey": SECRET_KEY,
            "throttleSecret": {"seed": hex(self.site.throttle.as_bytes()), "uuid": self.site.throttle_id},
            "deviceUuid": self.site.device,
        });
        format!("ops_{}", encode(members.to_string().as_bytes()))
    }

    /// What clients did that 1Password would not take.
    pub fn violations(&self) -> Vec<String> {
        self.site.state.lock().unwrap().violations.clone()
    }

    /// Gets every answer after the sign-in before it is sealed, and before that its sealed parts.
    pub fn hook(&self) -> Hook {
        self.site.state.lock().unwrap().hook.clone()
    }

    pub fn account(&self) -> Account {
        self.site.state.lock().unwrap().account.clone()
    }

    pub fn change(&self, change: impl FnOnce(&mut Account)) {
        change(&mut self.site.state.lock().unwrap().account);
    }

    pub fn expire_sessions(&self) {
        self.site.state.lock().unwrap().sessions.clear();
    }

    pub fn revoke(&self, revoked: bool) {
        let mut state = self.site.state.lock().unwrap();
        state.revoked = revoked;
        state.sessions.clear();
    }

    pub fn set_device(&self, device: Device) {
        self.site.state.lock().unwrap().device = device;
    }
}

/// An error as 1Password words it.
fn refused(status: u16) -> Response {
    Response::json(
        status,
        &json!({"errorCode": 102, "errorMessage": "Authentication required.", "requestId": 1}),
    )
}

impl Site for Backend {
    fn answer(&self, request: &Request) -> Response {
        // What people see who open it in a browser, and doctor, which only wants to know whether it is there.
        if (request.method.as_str(), request.path.as_str()) == ("GET", "/") {
            return Response::bytes(b"<html><title>1Password</title></html>".to_vec());
        }
        let mut state = self.state.lock().unwrap();
        if let Err(what) = self.check_throttling(request) {
            state.violations.push(format!("{} {}: {what}", request.method, request.path));
            return refused(401);
        }
        let path = request.path.strip_prefix("/api").unwrap_or_default();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match (request.method.as_str(), &parts[..]) {
            ("POST", ["v3", "auth", "start"]) => self.start(&mut state, request),
            ("POST", ["v1", "device"]) | ("PUT", ["v1", "device", _, "reauthorize"]) => {
                state.device = Device::Registered;
                Response::json(200, &json!({"success": 1}))
            }
            ("POST", ["v2", "auth"]) => self.exchange(&mut state, request),
            ("POST", ["v2", "auth", "confirm-key"]) => confirm(&mut state, request),
            _ => self.signed(&mut state, request, &parts),
        }
    }

    fn items(&self, request: &Request) -> Vec<String> {
        let parts: Vec<&str> = request.path.split('/').skip(1).collect();
        match &parts[..] {
            [.., "item", item] => vec![(*item).to_owned()],
            [.., "items", "batch"] => {
                let state = self.state.lock().unwrap();
                let body = state.session_key(request).and_then(|key| key.open(&request.body));
                let body = body.unwrap_or_default();
                let asked = body["itemUuids"].as_array().into_iter().flatten();
                asked.filter_map(|item| Some(item.as_str()?.to_owned())).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl State {
    /// The key of the session that a request is made in.
    fn session_key(&self, request: &Request) -> Option<Key> {
        let id = request.header("x-agilebits-session-id")?;
        let session = self.sessions.get(id).filter(|session| session.confirmed)?;
        Some(Key { id: id.to_owned(), bytes: session.agreed.as_ref()?.session_key, hook: self.hook.clone() })
    }
}

impl Backend {
    /// A PASETO of version 4, signed with the token's throttling seed.
    fn check_throttling(&self, request: &Request) -> Result<(), &'static str> {
        let token = request.header("op-throttling-token").ok_or("no throttling token")?;
        let (body, footer) =
            token.strip_prefix("v4.public.").and_then(|rest| rest.split_once('.')).ok_or("no PASETO")?;
        let (body, footer) = (decode(body).ok_or("no base64")?, decode(footer).ok_or("no base64")?);
        let claims: Value = serde_json::from_slice(&footer).map_err(|_| "a footer without JSON")?;
        if claims["kid"] != self.throttle_id.as_str() {
            return Err("another throttling key");
        }
        let (message, signature) = body.split_last_chunk::<64>().ok_or("too short")?;
        let mut signed = Vec::new();
        let pieces: [&[u8]; 4] = [b"v4.public.", message, &footer, b"B5_THROTTLING_TOKEN"];
        signed.extend((pieces.len() as u64).to_le_bytes());
        for piece in pieces {
            signed.extend((piece.len() as u64).to_le_bytes());
            signed.extend(piece);
        }
        let key: VerifyingKey = self.throttle.verifying_key();
        key.verify(&signed, &Signature::from_bytes(signature)).map_err(|_| "a wrong signature")
    }

    fn start(&self, state: &mut State, request: &Request) -> Response {
        let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let known = asked["email"] == EMAIL.to_lowercase()
            && asked["skid"] == KEY_ID
            && asked["deviceUuid"] == self.device.as_str();
        if state.revoked || !known {
            return refused(401);
        }
        let session = account::id(rand::random()).to_uppercase();
        let status = match state.device {
            Device::Registered => "ok",
            Device::Unknown => "device-not-registered",
            Device::Deleted => "device-deleted",
        };
        let srp = srp::Server::new(&self.x, &random::<32>());
        state.sessions.insert(session.clone(), Session { srp, agreed: None, confirmed: false });
        Response::json(
            200,
            &json!({
                "status": status, "sessionID": session, "accountKeyFormat": "A3", "accountKeyUuid": KEY_ID,
                "userAuth": {"method": "SRPg-4096", "alg": "PBES2g-HS256", "iterations": 650_000, "salt": encode(&self.salt)},
            }),
        )
    }

    fn exchange(&self, state: &mut State, request: &Request) -> Response {
        let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let session = request.header("x-agilebits-session-id").and_then(|id| state.sessions.get_mut(id));
        let Some(session) = session else { return refused(401) };
        session.agreed =
            session.srp.agree(asked["userA"].as_str().unwrap_or_default(), KEY_ID, EMAIL, &self.salt);
        match session.agreed {
            Some(_) => Response::json(200, &json!({"userB": session.srp.public_hex()})),
            None => refused(400),
        }
    }

    /// Everything after the key is confirmed: signed, and sealed with the session's key.
    fn signed(&self, state: &mut State, request: &Request, parts: &[&str]) -> Response {
        let path = &parts.join("/");
        let Some(key) = state.session_key(request) else { return refused(401) };
        if let Err(what) = check_mac(request, &key) {
            state.violations.push(format!("{} {}: {what}", request.method, request.path));
            return refused(401);
        }
        let body = if request.body.is_empty() { Some(Value::Null) } else { key.open(&request.body) };
        let Some(body) = body else {
            state.violations.push(format!("{} {}: a body that is not sealed", request.method, request.path));
            return refused(400);
        };
        // Files come as they are: they are sealed already.
        if let ("GET", ["v2", "file", vault, item, file]) = (request.method.as_str(), parts) {
            return content::file(state, vault, item, file).map_or_else(refused, Response::bytes);
        }
        match self.content(state, &request.method, parts, &body) {
            Ok(content) => Response::json(200, &key.seal_part(path, &content)),
            Err(status) => refused(status),
        }
    }
}

fn confirm(state: &mut State, request: &Request) -> Response {
    let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let session = request.header("x-agilebits-session-id").and_then(|id| state.sessions.get_mut(id));
    let Some((session, agreed)) = session.map(|session| (&mut session.confirmed, &session.agreed)) else {
        return refused(401);
    };
    match agreed {
        Some(agreed) if asked["clientVerifyHash"] == encode(&agreed.client_proof) => {
            *session = true;
            Response::json(200, &json!({"serverVerifyHash": encode(&agreed.server_proof)}))
        }
        _ => {
            state.violations.push("a wrong proof of the session's key".into());
            refused(401)
        }
    }
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn check_mac(request: &Request, session: &Key) -> Result<(), &'static str> {
    let mac = request.header("x-agilebits-mac").ok_or("no signature")?;
    let (number, given) =
        mac.strip_prefix("v1|").and_then(|rest| rest.split_once('|')).ok_or("no signature of version 1")?;
    let host = request.header("host").unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let message =
        format!("{}|{}|{host}{}?{}|v1|{number}", session.id, request.method, request.path, request.query);
    let expected = hmac(&hmac(&session.bytes, MAC_SALT), message.as_bytes());
    if given == encode(&expected[..12]) { Ok(()) } else { Err("a wrong signature of a request") }
}
