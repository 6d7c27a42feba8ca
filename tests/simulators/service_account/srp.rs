//! The server's side of SRP-6a as 1Password's service accounts use it ("SRPg-4096"): the token holds x itself.

use num_bigint::BigUint;
use sha2::{Digest, Sha256};

/// The 4096-bit group of RFC 5054 (group 16 of RFC 3526), with generator 5.
const N: &str = "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404ddef95\
    19b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7edee386bfb\
    5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f83655d23dca3\
    ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3be39e772c180e8603\
    9b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa051015728e5a8aaac42dad33\
    170d04507a33a85521abdf1cba64ecfb850458dbef0a8aea71575d060c7db3970f85a6e1e4c7abf5ae8cdb0933d71e8c94e0\
    4a25619dcee3d2261ad2ee6bf12ffa06d98a0864d87602733ec86a64521f2b18177b200cbbe117577a615d6c770988c0bad9\
    46e208e24fa074e5ab3143db5bfce0fd108e4b82d120a92108011a723c12a787e6d788719a10bdba5b2699c327186af4e23c\
    1a946834b6150bda2583e9ca2ad44ce8dbbbc2db04de8ef92e8efc141fbecaa6287c59474e6bc05d99b2964fa090c3a2233b\
    a186515be7ed1f612970cee2d7afb81bdd762170481cd0069127d5b05aa993b4ea988d8fddc186ffb7dc90a6c08f4df435c9\
    34063199ffffffffffffffff";
const PADDED: usize = 512;

/// What one sign-in has agreed on.
pub struct Agreed {
    /// What the client must prove that it knows the key with.
    pub client_proof: [u8; 32],
    pub server_proof: [u8; 32],
    pub session_key: [u8; 32],
}

/// The server's secret and public numbers.
pub struct Server {
    b: BigUint,
    pub public: BigUint,
    verifier: BigUint,
}

fn prime() -> BigUint {
    BigUint::parse_bytes(N.as_bytes(), 16).unwrap()
}

fn sha(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

fn pad(number: &BigUint) -> Vec<u8> {
    let bytes = number.to_bytes_be();
    let mut padded = vec![0; PADDED - bytes.len()];
    padded.extend(bytes);
    padded
}

fn number(hash: [u8; 32]) -> BigUint {
    BigUint::from_bytes_be(&hash)
}

impl Server {
    pub fn new(x: &[u8; 32], b: &[u8]) -> Self {
        let (n, g) = (prime(), BigUint::from(5_u8));
        let b = BigUint::from_bytes_be(b);
        let verifier = g.modpow(&BigUint::from_bytes_be(x), &n);
        let k = number(sha(&[&n.to_bytes_be(), &pad(&g)]));
        let public = (k * &verifier + g.modpow(&b, &n)) % &n;
        Self { b, public, verifier }
    }

    /// B as it goes on the wire: an even number of hexadecimal digits.
    pub fn public_hex(&self) -> String {
        let hex = self.public.to_str_radix(16);
        if hex.len().is_multiple_of(2) { hex } else { format!("0{hex}") }
    }

    /// `None` for an A that would make the key known to anybody.
    pub fn agree(&self, a_hex: &str, key_id: &str, email: &str, salt: &[u8]) -> Option<Agreed> {
        let n = prime();
        let a = BigUint::parse_bytes(a_hex.as_bytes(), 16)?;
        if &a % &n == BigUint::ZERO {
            return None;
        }
        let u = number(sha(&[&pad(&a), &pad(&self.public)]));
        let shared = (&a * self.verifier.modpow(&u, &n)).modpow(&self.b, &n);
        // The key is made of the number's hexadecimal text, without leading zeros.
        let session_key = sha(&[shared.to_str_radix(16).as_bytes()]);
        let identity = super::seal::encode(&sha(&[
            &sha(&[key_id.as_bytes()]),
            &sha(&[email.to_lowercase().as_bytes()]),
        ]));
        let (hash_n, hash_g) = (sha(&[&n.to_bytes_be()]), sha(&[&[5]]));
        let mixed: Vec<u8> = hash_n.iter().zip(hash_g).map(|(left, right)| left ^ right).collect();
        let (a, b) = (a.to_bytes_be(), self.public.to_bytes_be());
        let client_proof = sha(&[&mixed, &sha(&[identity.as_bytes()]), salt, &a, &b, &session_key]);
        let server_proof = sha(&[&a, &client_proof, &session_key]);
        Some(Agreed { client_proof, server_proof, session_key })
    }
}
