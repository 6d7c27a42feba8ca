//! The provider `connect`: a 1Password Connect server, by its REST interface.

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::items::{File, Item};
use super::{ANSWER_MAX, Account, Counter, Json, Listed, Target};
use crate::files;
use crate::providers::budget::LONGEST_LIMIT;
use crate::providers::error::FetchError;
use crate::reference::Reference;
use crate::secret::Secret;

/// How long one request may take, if the deadline is not shorter.
const REQUEST_MAX: Duration = Duration::from_secs(20);

/// The largest file of certificates that is read, in bytes.
const AUTHORITY_MAX: usize = 1 << 20;

/// Where a Connect server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// `https://host[:port]`, or `http://…`.
    pub url: String,
    /// Certificates, in PEM, of the authority that signed the server's, if it is not a public one.
    pub authority: Option<PathBuf>,
}

pub struct Connect<'c> {
    client: Client,
    base: Url,
    counter: Counter<'c>,
    /// Runs each request while its caller waits: the trait is not asynchronous, because 1Password's core is not. It is the one
    /// that the process waits for its next call with, so that a connection which the server closes meanwhile is not reused.
    runtime: &'c Runtime,
}

impl<'c> Connect<'c> {
    pub fn new(
        server: &Server,
        token: &Secret,
        limit: Duration,
        counter: Counter<'c>,
        runtime: &'c Runtime,
    ) -> Result<Self, FetchError> {
        let malformed = || FetchError::TokenMalformed {
            what: "the token is not a Connect token: it has a byte in it that no HTTP header can have".into(),
            remedy: Some("copy it again, whole".into()),
        };
        let bearer = Zeroizing::new([b"Bearer ", token.expose()].concat());
        let mut bearer = HeaderValue::from_bytes(&bearer).map_err(|_| malformed())?;
        bearer.set_sensitive(true);
        let unusable = |why: String| FetchError::HttpClient { why };
        // Fails if it is installed already, which is fine: there is only this one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("opnix/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, bearer)]))
            // The token goes to nobody else.
            .redirect(reqwest::redirect::Policy::none())
            .timeout(limit.min(REQUEST_MAX));
        if let Some(path) = &server.authority {
            let named = |why: String| FetchError::Certificates { path: path.display().to_string(), why };
            let pem = files::read(path, AUTHORITY_MAX).map_err(|error| named(error.to_string()))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| named(cause(&error)))?;
            if certificates.is_empty() {
                return Err(named("there are none in it".into()));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        let client = builder.build().map_err(|error| unusable(cause(&error)))?;
        let base = Url::parse(&server.url)
            .map_err(|error| unusable(format!("{:?} is not a URL: {error}", server.url)))?;
        Ok(Self { client, base, counter, runtime })
    }

    fn get(&self, path: &[&str], target: &Target<'_>) -> Result<Response, FetchError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        (self.counter)(1);
        // Made inside of the runtime, because it sets its timer at once.
        let request = async { self.client.get(url).send().await };
        let response = self.runtime.block_on(request).map_err(|error| unreachable(&error))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(refusal(status, response.headers(), target)),
        }
    }

    /// The body, in a buffer that is wiped.
    fn body(&self, mut response: Response) -> Result<Json, FetchError> {
        let announced = response.content_length().unwrap_or(0).min(ANSWER_MAX as u64) as usize;
        let next = || self.runtime.block_on(response.chunk()).map_err(io::Error::other);
        let body = Body { next, chunk: None, read: 0 };
        files::read_from(body, announced, ANSWER_MAX).map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => broken("an answer over 64 MiB"),
            _ => {
                let error = error.downcast::<reqwest::Error>();
                let why = error.map_or_else(|error| error.to_string(), |error| cause(&error));
                FetchError::Unreachable { why: format!("the connection broke off: {why}") }
            }
        })
    }

    fn read<T: DeserializeOwned>(&self, path: &[&str], target: &Target<'_>) -> Result<T, FetchError> {
        let body = self.body(self.get(path, target)?)?;
        serde_json::from_slice(&body).map_err(|_| broken("an answer that is not understood"))
    }
}

/// The body of an answer, which comes in chunks.
struct Body<F, C> {
    next: F,
    chunk: Option<C>,
    /// How much of the chunk was read.
    read: usize,
}

impl<C: AsRef<[u8]>, F: FnMut() -> io::Result<Option<C>>> Read for Body<F, C> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.chunk.as_ref().is_none_or(|chunk| chunk.as_ref().len() == self.read) {
            self.chunk = (self.next)()?;
            self.read = 0;
            if self.chunk.is_none() {
                return Ok(0);
            }
        }
        let rest = self.chunk.as_ref().map_or(&[][..], |chunk| &chunk.as_ref()[self.read..]);
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        self.read += length;
        Ok(length)
    }
}

impl Account for Connect<'_> {
    fn vaults(&self) -> Result<Vec<Listed>, FetchError> {
        self.read(&["vaults"], &Target::Account)
    }

    fn list(&self, vault: &str, target: &Target<'_>) -> Result<Vec<Listed>, FetchError> {
        self.read(&["vaults", vault, "items"], target)
    }

    /// One request for each: a Connect server has no batches.
    fn items(
        &self,
        vault: &str,
        ids: &[String],
        target: &Target<'_>,
    ) -> Result<Vec<Option<Json>>, FetchError> {
        let one = |id: &String| match self.get(&["vaults", vault, "items", id], target) {
            Ok(response) => self.body(response).map(Some),
            Err(FetchError::ItemNotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        ids.iter().map(one).collect()
    }

    fn parse<'a>(&self, json: &'a Json) -> Result<Item<'a>, FetchError> {
        // Without serde's message, which can quote a value.
        let mut item: Item<'_> =
            serde_json::from_slice(json).map_err(|_| broken("an item of another shape than known"))?;
        // The name that 1Password's other tools have for it.
        for field in item.fields.iter_mut().filter(|field| field.id == "notesPlain") {
            field.label = "notes".into();
        }
        Ok(item)
    }

    fn file(
        &self,
        vault: &str,
        item: &Item<'_>,
        file: &File<'_>,
        reference: &Reference,
    ) -> Result<Secret, FetchError> {
        let target = Target::Item { vault: &reference.vault, item: &reference.item };
        let response =
            self.get(&["vaults", vault, "items", &item.id, "files", &file.id, "content"], &target)?;
        let empty = |_| FetchError::Empty { reference: reference.to_string() };
        Secret::take(self.body(response)?).map_err(empty)
    }

    fn derive(&self, _: &Reference, reference: &Reference) -> Result<Secret, FetchError> {
        let what = "a Connect server converts no SSH keys".into();
        Err(FetchError::Unsupported { reference: reference.to_string(), what })
    }
}

fn broken(what: &str) -> FetchError {
    FetchError::Broken { why: format!("the Connect server gave {what}") }
}

fn refusal(status: StatusCode, headers: &HeaderMap, target: &Target<'_>) -> FetchError {
    match status {
        StatusCode::UNAUTHORIZED => FetchError::TokenRejected,
        StatusCode::FORBIDDEN => FetchError::Forbidden { what: target.to_string() },
        StatusCode::NOT_FOUND => target.item_not_found(),
        StatusCode::TOO_MANY_REQUESTS => {
            let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            // It can be any number: too large for a time, or for a date.
            let wait = seconds.map(|seconds| Duration::from_secs(seconds).min(LONGEST_LIMIT));
            FetchError::RateLimited { until: wait.and_then(|wait| SystemTime::now().checked_add(wait)) }
        }
        status => FetchError::Unavailable { why: format!("the Connect server answers with {status}") },
    }
}

fn unreachable(error: &reqwest::Error) -> FetchError {
    let why = if error.is_timeout() { "it did not answer in time".into() } else { cause(error) };
    FetchError::Unreachable { why }
}

/// The innermost error: the outer ones repeat the address, and say less.
fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(retry_after: &str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(retry_after).unwrap())]);
        let error = refusal(StatusCode::TOO_MANY_REQUESTS, &headers, &Target::Account);
        assert!(error.to_string().starts_with("1Password's limit on requests is reached"), "{error}");
        let FetchError::RateLimited { until } = error else { panic!("{error}") };
        until.map(|until| until.duration_since(SystemTime::now()).unwrap_or_default())
    }

    #[test]
    fn a_server_tells_when_to_come_back_within_a_day() {
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!(until("0"), Some(Duration::ZERO));
        assert!(until("60").is_some_and(|wait| wait.as_secs().abs_diff(60) <= 1));
        for long in ["86401", "300000000000", "9223372036854775807", "18446744073709551615"] {
            let wait = until(long).unwrap();
            assert!(wait <= day && wait > day - Duration::from_secs(60), "{long}: {wait:?}");
        }
        for none in ["", "-1", "soon", "18446744073709551616", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(until(none), None, "{none}");
        }
    }
}
