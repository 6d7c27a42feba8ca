//! The sealed envelopes that everything after the sign-in travels in, and the keys that vaults and items are sealed with.

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use num_bigint::BigUint;
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use rsa::{Oaep, PrivateKey};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::simulators::hook::Hook;

pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

pub fn random<const N: usize>() -> [u8; N] {
    rand::random()
}

/// A symmetric key with its name.
#[derive(Clone)]
pub struct Key {
    pub id: String,
    pub bytes: [u8; 32],
    /// Sees what is sealed with it as a part of an answer.
    pub hook: Hook,
}

impl Key {
    pub fn new(id: &str) -> Self {
        Self { id: id.into(), bytes: random(), hook: Hook::default() }
    }

    pub fn jwk(&self) -> Value {
        json!({"kty": "oct", "kid": self.id, "alg": "A256GCM", "k": encode(&self.bytes), "ext": true, "key_ops": ["encrypt", "decrypt"]})
    }

    pub fn seal(&self, plain: &Value) -> Value {
        self.seal_text(&plain.to_string())
    }

    /// `name` is for the hook.
    pub fn seal_part(&self, name: &str, plain: &Value) -> Value {
        self.seal_text(&self.hook.text(name, plain))
    }

    fn seal_text(&self, plain: &str) -> Value {
        let iv = random();
        let sealed = self.seal_with(&iv, plain.as_bytes());
        json!({"cty": "b5+jwk+json", "enc": "A256GCM", "kid": self.id, "iv": encode(&iv), "data": encode(&sealed)})
    }

    pub fn seal_with(&self, iv: &[u8; 12], plain: &[u8]) -> Vec<u8> {
        Aes256Gcm::new_from_slice(&self.bytes).unwrap().encrypt(&Nonce::from(*iv), plain).unwrap()
    }

    pub fn open(&self, envelope: &[u8]) -> Option<Value> {
        let envelope: Value = serde_json::from_slice(envelope).ok()?;
        if envelope["kid"] != self.id.as_str() {
            return None;
        }
        let iv: [u8; 12] = decode(envelope["iv"].as_str()?)?.try_into().ok()?;
        let cipher = Aes256Gcm::new_from_slice(&self.bytes).unwrap();
        let plain = cipher.decrypt(&Nonce::from(iv), decode(envelope["data"].as_str()?)?.as_slice()).ok()?;
        serde_json::from_slice(&plain).ok()
    }
}

/// The account's own key pair, to which vault keys are sealed.
pub struct Pair {
    id: String,
    private: PrivateKey,
}

impl Pair {
    pub fn new(id: &str) -> Self {
        Self { id: id.into(), private: PrivateKey::new(&mut rand::rng(), 2048).unwrap() }
    }

    pub fn public_jwk(&self) -> Value {
        let part = |number: &[u8]| encode(number);
        json!({"kty": "RSA", "kid": self.id, "alg": "RSA-OAEP-256", "n": part(&self.private.n_bytes()), "e": part(&self.private.e_bytes()), "ext": true, "key_ops": ["encrypt"]})
    }

    pub fn private_jwk(&self) -> Value {
        let big = |bytes: &[u8]| BigUint::from_bytes_be(bytes);
        let d = big(&self.private.d().to_be_bytes());
        let (p, q) =
            (big(&self.private.primes()[0].to_be_bytes()), big(&self.private.primes()[1].to_be_bytes()));
        let one = BigUint::from(1_u8);
        let (dp, dq) = (&d % (&p - &one), &d % (&q - &one));
        // By Fermat: p is a prime.
        let qi = q.modpow(&(&p - BigUint::from(2_u8)), &p);
        let part = |number: &BigUint| encode(&number.to_bytes_be());
        let mut jwk = self.public_jwk();
        for (name, number) in [("d", &d), ("p", &p), ("q", &q), ("dp", &dp), ("dq", &dq), ("qi", &qi)] {
            jwk[name] = part(number).into();
        }
        jwk["key_ops"] = json!(["decrypt"]);
        jwk
    }

    pub fn seal(&self, plain: &Value) -> Value {
        let sealed = self.private.to_public_key().encrypt(
            &mut rand::rng(),
            Oaep::<Sha256>::new(),
            plain.to_string().as_bytes(),
        );
        json!({"cty": "b5+jwk+json", "enc": "RSA-OAEP-256", "kid": self.id, "data": encode(&sealed.unwrap())})
    }
}
