//! The provider `connect`: a 1Password Connect server, by its REST interface.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, TRANSFER_ENCODING,
};
use reqwest::{Certificate, Client, Response, StatusCode, Url, Version};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::items::{File, Item};
use super::members::{Members, Unreadable};
use super::reaching::{self, innermost};
use super::{ANSWER_MAX, Account, Counter, FILE_MAX, Json, List, REQUEST_MAX, Target};
use crate::files;
use crate::moment::Moment;
use crate::providers::budget::LONGEST_LIMIT;
use crate::providers::error::{FetchError, Step};
use crate::reference::Reference;
use crate::secret::Secret;

/// The longest answer to a request that was refused, in bytes.
const REFUSAL_MAX: usize = 64 << 10;

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

/// How a request bears the token.
pub fn bearer(token: &Secret) -> Result<HeaderValue, FetchError> {
    let malformed = |_| FetchError::TokenMalformed {
        what: "the token is not a Connect token: it has a byte in it that no HTTP header can have".into(),
        remedy: Some("copy it again, whole".into()),
    };
    let bearer = Zeroizing::new([b"Bearer ", token.expose()].concat());
    let mut bearer = HeaderValue::from_bytes(&bearer).map_err(malformed)?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

/// The certificates of an authority.
pub fn certificates(path: &Path) -> Result<Vec<Certificate>, FetchError> {
    let unusable = |why: String| FetchError::Certificates { path: path.display().to_string(), why };
    let pem = files::read(path, AUTHORITY_MAX).map_err(|error| unusable(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(innermost(&error)))?;
    if certificates.is_empty() { Err(unusable("there are none in it".into())) } else { Ok(certificates) }
}

impl<'c> Connect<'c> {
    pub fn new(
        server: &Server,
        token: &Secret,
        counter: Counter<'c>,
        runtime: &'c Runtime,
    ) -> Result<Self, FetchError> {
        let bearer = bearer(token)?;
        let unusable = |why: String| FetchError::HttpClient { why };
        // Fails if it is installed already, which is fine: there is only this one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = Url::parse(&server.url)
            .map_err(|error| unusable(format!("{:?} is not a URL: {error}", server.url)))?;
        let authority = server.authority.as_deref().map(certificates).transpose()?.unwrap_or_default();
        let builder = || {
            Client::builder()
                .user_agent(concat!("opnix/", env!("CARGO_PKG_VERSION")))
                .default_headers(HeaderMap::from_iter([(AUTHORIZATION, bearer.clone())]))
                // The token goes to nobody else.
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(REQUEST_MAX)
                .read_timeout(REQUEST_MAX)
        };
        let client = builder().tls_certs_merge(authority).build();
        // A machine may have no certificates of public authorities, and they may not be needed.
        let client = client.or_else(|error| match base.scheme() {
            "http" => builder().tls_certs_only([]).build(),
            _ => Err(error),
        });
        let client = client.map_err(|error| unusable(innermost(&error)))?;
        Ok(Self { client, base, counter, runtime })
    }

    fn get(&self, path: &[&str], limit: Duration, target: &Target<'_>) -> Result<Response, FetchError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        self.counter.count(1);
        // Made inside of the runtime, because it sets its timer at once.
        let request = async { self.client.get(url.clone()).timeout(limit).send().await };
        let response = self.runtime.block_on(request).map_err(|error| {
            if error.is_connect() {
                self.counter.never_sent();
            }
            reaching::unreachable(&error, self.base.scheme() == "https" && reaching::proxy().is_some())
        })?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let (status, headers) = (response.status(), response.headers().clone());
        // Whatever it says, the status is known.
        let body = self.body(response, REFUSAL_MAX).unwrap_or_default();
        Err(Refusal { status, headers: &headers, is_connects: is_connects(status, &body) }
            .explain(&url, target))
    }

    /// The body, in a buffer that is wiped.
    fn body(&self, mut response: Response, most: usize) -> Result<Json, FetchError> {
        let announced = response.content_length().unwrap_or(0).min(most as u64) as usize;
        let next = || self.runtime.block_on(response.chunk()).map_err(io::Error::other);
        let body = Body { next, chunk: None, read: 0 };
        files::read_from(body, announced, most).map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => broken("an answer over 64 MiB"),
            _ => {
                let error = error.downcast::<reqwest::Error>();
                let why = error.map_or_else(|error| error.to_string(), |error| innermost(&error));
                FetchError::Unreachable { why: format!("the connection broke off: {why}"), at: Step::Unknown }
            }
        })
    }

    /// A list of what has its titles in this member.
    fn read_list(&self, path: &[&str], title: &str, target: &Target<'_>) -> Result<List, FetchError> {
        let response = self.get(path, REQUEST_MAX, target)?;
        let (url, kind) = (response.url().clone(), content_type(response.headers()));
        let body = self.body(response, ANSWER_MAX)?;
        List::read(&body, title).map_err(|Unreadable| match target {
            Target::Account => FetchError::NoConnect {
                url: url.to_string(),
                why: format!("what answers there ({kind}) gives no list of vaults"),
            },
            _ => broken("an answer that is no list"),
        })
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
    /// A Connect server takes requests for one only.
    const BATCH: usize = 1;

    fn vaults(&self) -> Result<List, FetchError> {
        self.read_list(&["vaults"], "name", &Target::Account)
    }

    fn list(&self, vault: &str, target: &Target<'_>) -> Result<List, FetchError> {
        self.read_list(&["vaults", vault, "items"], "title", target)
    }

    fn items(
        &self,
        vault: &str,
        ids: &[String],
        target: &Target<'_>,
    ) -> Result<Vec<Option<Json>>, FetchError> {
        let one = |id: &String| match self.get(&["vaults", vault, "items", id], REQUEST_MAX, target) {
            Ok(response) => self.body(response, ANSWER_MAX).map(Some),
            Err(FetchError::ItemNotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        ids.iter().map(one).collect()
    }

    fn read<'a>(item: &Members<'a>) -> Item<'a> {
        let mut item = Item::read(item);
        // The name that 1Password's other tools have for it.
        for field in item.fields.iter_mut().filter(|field| field.id == "notesPlain") {
            field.label = "notes".into();
        }
        item
    }

    fn file(
        &self,
        vault: &str,
        item: &str,
        file: &File<'_>,
        reference: &Reference,
    ) -> Result<Secret, FetchError> {
        if file.id.is_empty() {
            return Err(broken("a file without an id"));
        }
        let path = ["vaults", vault, "items", item, "files", &file.id, "content"];
        let response = self.get(&path, FILE_MAX, &Target::file(reference))?;
        // A file is never announced as a page, which only something in between can have sent.
        if content_type(response.headers()) == "text/html" {
            return Err(broken("a page of HTML in the place of a file"));
        }
        let is_whole = has_an_end(&response);
        let content = self.body(response, ANSWER_MAX)?;
        if !is_whole && file.size != Some(content.len() as u64) {
            return Err(broken("a file of which nobody can tell whether it is whole"));
        }
        let empty = |_| FetchError::Empty { reference: reference.to_string() };
        Secret::take(content).map_err(empty)
    }

    fn derive(&self, _: &Reference, reference: &Reference) -> Result<Secret, FetchError> {
        let what = "a Connect server converts no SSH keys".into();
        Err(FetchError::Unsupported { reference: reference.to_string(), what })
    }
}

fn broken(what: &str) -> FetchError {
    FetchError::Broken { why: format!("the Connect server gave {what}") }
}

/// Whether an answer that is cut off is an error. One that ends with its connection, as of a proxy that speaks HTTP/1.0, is not.
fn has_an_end(response: &Response) -> bool {
    let is_chunked = response.headers().get(TRANSFER_ENCODING).is_some_and(|coding| {
        coding.to_str().is_ok_and(|coding| coding.to_ascii_lowercase().contains("chunked"))
    });
    response.version() > Version::HTTP_11 || response.content_length().is_some() || is_chunked
}

/// Without its parameters.
fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("no content type");
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether a Connect server said so itself: its errors are JSON with the status in it. A proxy before it may say the same.
fn is_connects(status: StatusCode, body: &[u8]) -> bool {
    let members = serde_json::from_slice::<Members<'_>>(body);
    members.is_ok_and(|members| members.number("status") == Ok(Some(status.as_u16().into())))
}

/// An answer that is not the one that was asked for.
struct Refusal<'a> {
    status: StatusCode,
    headers: &'a HeaderMap,
    is_connects: bool,
}

impl Refusal<'_> {
    fn explain(&self, url: &Url, target: &Target<'_>) -> FetchError {
        let Self { status, headers, is_connects } = *self;
        let kind = content_type(headers);
        let who =
            if is_connects { "the Connect server" } else { "something in the place of the Connect server" };
        let why = match headers.get(LOCATION).filter(|_| status.is_redirection()) {
            Some(place) => format!("{who} answers with {status}, and points to {place:?}"),
            None if is_connects => format!("{who} answers with {status}"),
            None => format!("{who} answers with {status} ({kind})"),
        };
        match status {
            StatusCode::NOT_FOUND if matches!(target, Target::Account) => FetchError::NoConnect {
                url: url.to_string(),
                why: format!("the answer is {status} ({kind})"),
            },
            StatusCode::TOO_MANY_REQUESTS => {
                let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                // It can be any number. The clock may be set before the limit is over.
                let wait = seconds.map(|seconds| Duration::from_secs(seconds).min(LONGEST_LIMIT));
                FetchError::RateLimited { until: wait.map(|wait| Moment::now() + wait) }
            }
            StatusCode::UNAUTHORIZED if is_connects => FetchError::TokenRejected,
            StatusCode::FORBIDDEN if is_connects => target.forbidden(),
            StatusCode::NOT_FOUND if is_connects => target.not_found(),
            status if status.is_client_error() && is_connects => FetchError::NotTaken { why },
            _ => FetchError::Unavailable { why },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(retry_after: &str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(retry_after).unwrap())]);
        let refusal = Refusal { status: StatusCode::TOO_MANY_REQUESTS, headers: &headers, is_connects: true };
        let error = refusal.explain(&Url::parse("http://host/v1/vaults").unwrap(), &Target::Account);
        assert!(error.to_string().starts_with("1Password's limit on requests is reached"), "{error}");
        let FetchError::RateLimited { until } = error else { panic!("{error}") };
        until.map(|until| until.since(Moment::now()))
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
