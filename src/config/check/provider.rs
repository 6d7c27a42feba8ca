//! The provider, and how many requests it may be asked.

use std::path::{Path, PathBuf};

use reqwest::Url;

use super::state::Check;
use super::values::absolute_path;
use crate::config::file;
use crate::config::valid::Provider;
use crate::providers::ask::connect;
use crate::providers::budget::Budget;
use crate::reference::{Query, Reference};
use crate::remedy::Problem;

impl Check<'_> {
    /// A Connect server makes nothing of an SSH key.
    pub(super) fn nothing_is_of_an_ssh_key(&mut self) {
        for entry in self.entries.clone() {
            let of_a_key = |reference: &&Reference| matches!(reference.query, Some(Query::SshFormat(_)));
            for reference in entry.content.references().filter(of_a_key) {
                self.warning(
                    &entry.place,
                    format!("a Connect server does not give {reference}"),
                    "the provider service_account does; or leave ?ssh-format= out, for the key as it is kept",
                );
            }
        }
    }

    pub(super) fn provider(&mut self, file: &Path, provider: &file::Provider) -> Provider {
        match provider {
            file::Provider::ServiceAccount(settings) => {
                let library =
                    settings.library.as_ref().and_then(|library| self.valid(library, absolute_path));
                let hosts = settings.hosts.iter().filter_map(|host| self.valid(host, host_name)).collect();
                Provider::ServiceAccount { library, hosts }
            }
            file::Provider::Connect(settings) => {
                let url = self.valid(&settings.host, server_url).unwrap_or_default();
                let authority = settings.authority.as_ref().and_then(|path| self.valid(path, absolute_path));
                Provider::Connect(connect::Server { url, authority })
            }
            file::Provider::Local(settings) => {
                let beside = file.parent().unwrap_or(Path::new("")).to_owned();
                Provider::Local { path: PathBuf::from(&settings.path.value), beside }
            }
        }
    }
}

/// The default is 1Password's own limit. A Connect server does not limit its clients.
pub fn budget(provider: &Provider, written: Option<&file::Budget>) -> Budget {
    let default = match provider {
        Provider::ServiceAccount { .. } => Budget::SMALLEST_PLAN,
        Provider::Connect(_) | Provider::Local { .. } => Budget::NONE,
    };
    written.map_or(default, |written| Budget {
        hourly: written.hourly.or(default.hourly),
        daily: written.daily.or(default.daily),
    })
}

fn server_url(text: &str) -> Result<String, Problem> {
    let remedy = "write https://host or https://host:port";
    let wrong =
        |why: &str| Problem::new(format!("{text:?} is no address of a Connect server: {why}"), remedy);
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !plain {
        // The address is not repeated: it may hold a password.
        let what = "the address of a Connect server has no user, password, query or fragment";
        return Err(Problem::new(what, remedy));
    }
    match url.scheme() {
        "https" | "http" => Ok(text.to_owned()),
        scheme => Err(wrong(&format!("{scheme} is not https"))),
    }
}

fn host_name(text: &str) -> Result<String, Problem> {
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if text.contains('.') && text.split('.').all(label) {
        return Ok(text.to_owned());
    }
    Err(Problem::new(
        format!("{text:?} is no host name"),
        "write one such as op.example.org, without scheme, port or path",
    ))
}
