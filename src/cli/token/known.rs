//! What can be told of a token without asking anybody; never any of its secret parts.

use std::path::PathBuf;

use crate::config::{self, Config, Faults, Provider};
use crate::providers::FetchError;
use crate::providers::ask::connect_token;
use crate::providers::ask::service_account::token::Token;
use crate::remedy::{Problem, Remedy};
use crate::secret::Secret;

/// A token that is one.
pub enum Known {
    ServiceAccount(Token),
    Connect {
        secret: Secret,
        /// Of the server, if it is configured. The token does not say.
        url: Option<String>,
        /// In seconds since 1970, if it says so.
        expires: Option<u64>,
    },
}

/// The provider that the configuration names. `None`: there is no configuration.
pub fn provider(paths: &[PathBuf]) -> Result<Option<Provider>, Faults> {
    // A directory without files is no configuration either.
    let is_there = |path: &PathBuf| match path.read_dir() {
        Ok(mut files) => files.next().is_some(),
        Err(_) => path.exists(),
    };
    if !paths.iter().any(is_there) {
        return Ok(None);
    }
    config::load_from_anybody(paths).map(|Config { provider, .. }| Some(provider))
}

impl Known {
    /// What it is, by the provider that is configured, or else by how it looks.
    pub fn of(token: Secret, provider: Option<&Provider>) -> Result<Self, FetchError> {
        let is_service_accounts = token.expose().starts_with(b"ops_");
        match provider {
            Some(Provider::ServiceAccount { .. }) if !is_service_accounts && is_connects(&token) => {
                Err(another(
                    "it is the token of a Connect server, and the configuration's provider is a service account",
                    "copy the service account's (ops_…), or configure the provider: {\"kind\": \"connect\", \"host\": …}",
                ))
            }
            Some(Provider::Connect(_)) if is_service_accounts => Err(another(
                "it is the token of a service account, and the configuration's provider is a Connect server",
                "copy the Connect server's (eyJ…), or configure the provider: {\"kind\": \"service_account\"}",
            )),
            Some(Provider::ServiceAccount { hosts, .. }) => Self::service_account(token, hosts),
            Some(Provider::Connect(server)) => Self::connect(token, Some(server.url.clone())),
            Some(Provider::Local { .. }) | None if is_service_accounts => Self::service_account(token, &[]),
            Some(Provider::Local { .. }) | None if is_connects(&token) => Self::connect(token, None),
            Some(Provider::Local { .. }) | None => Err(another(
                "it is neither a service account's token, which begins with `ops_`, nor a Connect server's, which begins with `eyJ`",
                "copy it again from 1Password, whole",
            )),
        }
    }

    fn service_account(token: Secret, hosts: &[String]) -> Result<Self, FetchError> {
        Ok(Self::ServiceAccount(Token::check(token, hosts)?))
    }

    fn connect(secret: Secret, url: Option<String>) -> Result<Self, FetchError> {
        let expires = connect_token::check(secret.expose()).map_err(|error| malformed(&(&error).into()))?;
        Ok(Self::Connect { secret, url, expires })
    }

    pub fn secret(&self) -> &Secret {
        match self {
            Self::ServiceAccount(token) => token.secret(),
            Self::Connect { secret, .. } => secret,
        }
    }

    pub fn into_secret(self) -> Secret {
        match self {
            Self::ServiceAccount(token) => token.into_secret(),
            Self::Connect { secret, .. } => secret,
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::ServiceAccount(_) => "service account",
            Self::Connect { .. } => "Connect server",
        }
    }

    /// Of the service account. A Connect token names nobody.
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::ServiceAccount(token) => Some(token.email()),
            Self::Connect { .. } => None,
        }
    }

    /// Where it is sent to.
    pub fn host(&self) -> Option<String> {
        match self {
            Self::ServiceAccount(token) => match token.endpoint() {
                (host, 443) => Some(host.to_owned()),
                (host, port) => Some(format!("{host}:{port}")),
            },
            Self::Connect { url, .. } => url.clone(),
        }
    }

    pub fn expires(&self) -> Option<u64> {
        match self {
            Self::ServiceAccount(_) => None,
            Self::Connect { expires, .. } => *expires,
        }
    }

    /// Whose it is, in a sentence.
    pub fn whose(&self) -> String {
        let host = self.host();
        match (self.account(), host) {
            (Some(email), Some(host)) => format!("the token of {email} at {host}"),
            (_, Some(url)) => format!("the token for the Connect server {url}"),
            (_, None) => "the token for a Connect server".to_owned(),
        }
    }
}

/// What follows `ops_` in the other kind begins in the same way, but has no dots.
fn is_connects(token: &Secret) -> bool {
    let token = token.expose();
    token.starts_with(b"eyJ") && token.contains(&b'.')
}

fn another(what: &str, remedy: &str) -> FetchError {
    malformed(&Problem::new(what, remedy))
}

fn malformed(problem: &Problem) -> FetchError {
    FetchError::TokenMalformed { what: problem.what.clone(), remedy: problem.remedy() }
}
