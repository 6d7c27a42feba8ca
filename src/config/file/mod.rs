//! The configuration file as written: `secrets.json` in the format of OpNix, extended.
//!
//! The types here become the JSON Schema (`opnix schema`) with their names and doc comments, which editors show.

mod entries;
mod opnix;
mod provider;
mod units;

use std::collections::BTreeMap;

pub use entries::{Common, Keep, Kind, SecretEntry, TemplateEntry};
pub use opnix::{ServiceOptions, Services, SystemdIntegration};
pub use provider::Provider;
pub use units::{Action, OnChange, SendSignal, Unit, UnitOptions};

use super::decode::{At, Decode, object};

object! {
    /// The secrets of a machine, and which units may have them. Holds references, never secrets.
    #[schemars(title = "opnix secrets.json")]
    File {
        /// The address of this schema, for editors.
        "$schema" => schema: Option<String>,
        /// Where the secrets come from. To be set in one file only.
        "provider" => provider: Option<At<Provider>>,
        /// How long a unit may wait for its secret before it is refused: a duration such as `30s` (the default) or `2m`.
        "deadline" => deadline: Option<At<String>>,
        /// How long a unit waits for 1Password when a value is at hand that would do; `3s` by default.
        "short_deadline" => short_deadline: Option<At<String>>,
        /// Where values are kept: `sealed` on disk (the default), in `memory`, or `never`. A secret can have its own.
        "cache" => cache: Option<Keep>,
        /// How long a value is served without asking 1Password: a duration such as `15m` (the default).
        "fresh_for" => fresh_for: Option<At<String>>,
        /// How long a value is served when 1Password cannot be asked: a duration such as `7d` (the default).
        "stale_for" => stale_for: Option<At<String>>,
        /// How long a value is served that 1Password says is gone, or not shared with us any more; `1h` by default.
        "grace" => grace: Option<At<String>>,
        /// How often all values are renewed in the background: a duration such as `2h` (the default), or `never`. It takes
        /// longer where the budget would not last.
        "refresh" => refresh: Option<At<String>>,
        /// The directory in memory that relative paths of files start from: below `/run`, `/run/secrets` by default. To be set in one
        /// file only.
        "mirror_root" => mirror_root: Option<At<String>>,
        /// A directory in which each file of `mirror_root` has a link at the same place, such as a home directory: an absolute path. To
        /// be set in one file only.
        "link_root" => link_root: Option<At<String>>,
        /// How many requests to 1Password this machine may make.
        "budget" => budget: Option<At<Budget>>,
        /// The secrets, and who may have them.
        "secrets" => secrets: Vec<At<SecretEntry>>,
        /// Texts with secrets in them, and who may have them.
        "templates" => templates: Vec<At<TemplateEntry>>,
        /// The path of a secret that has no `path`: text with `{service}` for a value of the secret's `variables` or the
        /// `defaults`, and `{name}` for the secret's own name, if these say nothing else.
        "pathTemplate" => path_template: Option<At<String>>,
        /// Values for `path` and `pathTemplate` that a secret's own `variables` override.
        "defaults" => defaults: BTreeMap<String, String>,
        /// Which services to act on when a mirrored secret changes.
        "systemdIntegration" => systemd_integration: Option<SystemdIntegration>,
    }
}

object! {
    /// Limits on requests to 1Password. Half of each is kept for units that start.
    Budget {
        /// Requests within an hour; 100 by default, without limit for a Connect server.
        "hourly" => hourly: Option<u32>,
        /// Requests within a day; 200 by default, without limit for a Connect server.
        "daily" => daily: Option<u32>,
    }
}
