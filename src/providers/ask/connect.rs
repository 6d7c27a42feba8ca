//! The provider `connect`: a 1Password Connect server, by its REST interface.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use reqwest::blocking::{Client, Response};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::items::{File, Item};
use super::resolve::{Account, Json, Listed};
use crate::files;
use crate::providers::ask::Target;
use crate::providers::budget::LONGEST_LIMIT;
use crate::providers::child::process::{Counter, MESSAGE_MAX};
use crate::providers::error::FetchError;
use crate::reference::Reference;
use crate::secret::Secret;

/// How long one request may take, if the deadline is not shorter.
const REQUEST_MAX: Duration = Duration::from_secs(20);

/// A file of certificates that is larger than this, in bytes, is a mistake.
const AUTHORITY_MAX: usize = 1 << 20;

/// Where a Connect server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// `https://host[:port]`, or `http://…`.
    pub url: String,
    /// Certificates, in PEM, of who signed the server's, if that is no public authority.
    pub authority: Option<PathBuf>,
}

pub struct Connect<'c> {
    client: Client,
    base: Url,
    counter: &'c Counter,
}

impl<'c> Connect<'c> {
    pub fn new(
        server: &Server,
        token: &Secret,
        limit: Duration,
        counter: &'c Counter,
    ) -> Result<Self, FetchError> {
        let malformed = || FetchError::TokenMalformed {
            what: "the token is no Connect token: it holds what no header can".into(),
            remedy: Some("copy it again, whole".into()),
        };
        let bearer = Zeroizing::new([b"Bearer ", token.expose()].concat());
        let mut bearer = HeaderValue::from_bytes(&bearer).map_err(|_| malformed())?;
        bearer.set_sensitive(true);
        let unusable = |why: String| FetchError::HttpClient { why };
        // Only one provider of cryptography is there: a second attempt to name it changes nothing.
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
        Ok(Self { client, base, counter })
    }

    fn get(&self, path: &[&str], target: &Target<'_>) -> Result<Response, FetchError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        self.counter.count(1);
        let response = self.client.get(url).send().map_err(|error| unreachable(&error))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(refusal(status, response.headers(), target)),
        }
    }

    /// The body, in a buffer that is wiped.
    fn body(&self, response: Response) -> Result<Json, FetchError> {
        let announced = response.content_length().unwrap_or(0).min(MESSAGE_MAX as u64) as usize;
        files::read_from(response, announced, MESSAGE_MAX).map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => broken("an answer over 64 MiB"),
            kind => FetchError::Unreachable { why: format!("the connection broke off: {kind}") },
        })
    }

    fn read<T: DeserializeOwned>(&self, path: &[&str], target: &Target<'_>) -> Result<T, FetchError> {
        let body = self.body(self.get(path, target)?)?;
        serde_json::from_slice(&body).map_err(|_| broken("an answer that is not understood"))
    }
}

impl Account for Connect<'_> {
    fn vaults(&self) -> Result<Vec<Listed>, FetchError> {
        self.read(&["vaults"], &Target::Account)
    }

    fn list(&self, vault: &str, target: &Target<'_>) -> Result<Vec<Listed>, FetchError> {
        self.read(&["vaults", vault, "items"], target)
    }

    /// One request for each: Connect has no batches.
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
        // Not serde's own words, which can quote a value.
        let mut item: Item<'_> =
            serde_json::from_slice(json).map_err(|_| broken("an item of another shape than known"))?;
        // As 1Password's other tools call it.
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
            // Any number can stand there: more than a time can hold, or a year that no date is written in.
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

/// The innermost reason: the outer ones repeat the address, and say less.
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
