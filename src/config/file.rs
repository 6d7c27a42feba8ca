//! The configuration file as written: `secrets.json` in the format of OpNix, extended.
//!
//! The doc comments here are what editors show: they become the JSON Schema (`opnix schema`).

use std::collections::BTreeMap;

use jsonc_parser::ast::Value;
use schemars::JsonSchema;

use super::decode::{At, Decode, Reader, Required, choice, object};

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
        /// How many requests to 1Password this machine may make.
        "budget" => budget: Option<At<Budget>>,
        /// The secrets, and who may have them.
        "secrets" => secrets: Vec<At<SecretEntry>>,
        /// Texts with secrets in them, and who may have them.
        "templates" => templates: Vec<At<TemplateEntry>>,
        /// The path of a secret that has no `path`: text with `{name}` for the secret's `variables` and the `defaults`.
        "pathTemplate" => path_template: Option<At<String>>,
        /// Values for `pathTemplate` that a secret's own `variables` override.
        "defaults" => defaults: BTreeMap<String, String>,
        /// Which services to act on when a mirrored secret changes.
        "systemdIntegration" => systemd_integration: Option<SystemdIntegration>,
    }
}

object! {
    /// One secret of the vault, and who may have it: units as a credential, or a file in `/run/secrets`, or both.
    SecretEntry {
        /// The credential's name in `LoadCredential=NAME:/run/opnix/creds.sock`. Needed where there are `units`.
        "name" => name: Option<At<String>>,
        /// Where the value is: `op://vault/item/[section/]field`.
        "reference" => reference: Required<At<String>>,
        /// Whether the reference names a text field (the default) or a file.
        "kind" => kind: Option<Kind>,
        /// The units that may have this secret as a credential. Nobody else gets it.
        "units" => units: Vec<At<UnitEntry>>,
        /// Where the value is kept, if not as the file says for all.
        "cache" => cache: Option<Keep>,
        /// How long the value is served without asking 1Password.
        "fresh_for" => fresh_for: Option<At<String>>,
        /// How long the value is served when 1Password cannot be asked.
        "stale_for" => stale_for: Option<At<String>>,
        /// Never serve the value without asking 1Password; false by default.
        "always_fetch" => always_fetch: Option<bool>,
        /// Where to put it as a file: absolute, or relative to `/run/secrets`.
        "path" => path: Option<At<String>>,
        /// The file's owner; `root` by default.
        "owner" => owner: Option<At<String>>,
        /// The file's group; `root` by default.
        "group" => group: Option<At<String>>,
        /// The file's mode in 3 or 4 octal digits; `0600` by default.
        "mode" => mode: Option<At<String>>,
        /// Whether the mirror may go without this file; false by default: it fails, and says what is missing.
        "optional" => optional: Option<bool>,
        /// Absolute paths of symlinks that point at the file.
        "symlinks" => symlinks: Vec<At<String>>,
        /// Values for `pathTemplate`.
        "variables" => variables: BTreeMap<String, String>,
        /// The services to restart or signal when the file changes.
        "services" => services: Option<Services>,
    }
}

object! {
    /// A text with secrets in it, as one credential or one file.
    TemplateEntry {
        /// The credential's name, as for a secret.
        "name" => name: Required<At<String>>,
        /// The text, with `{{ op://vault/item/field }}` where a secret goes. `| env` or `| json` after the reference quotes it.
        "template" => template: Option<At<String>>,
        /// A file with the text, instead of `template`: absolute, or beside this one.
        "template_file" => template_file: Option<At<String>>,
        /// The units that may have the rendered text as a credential. Nobody else gets it.
        "units" => units: Vec<At<UnitEntry>>,
        /// Where the values in it are kept, if not as the file says for all.
        "cache" => cache: Option<Keep>,
        /// How long they are served without asking 1Password.
        "fresh_for" => fresh_for: Option<At<String>>,
        /// How long they are served when 1Password cannot be asked.
        "stale_for" => stale_for: Option<At<String>>,
        /// Never serve them without asking 1Password; false by default.
        "always_fetch" => always_fetch: Option<bool>,
        /// Where to put it as a file: absolute, or relative to `/run/secrets`.
        "path" => path: Option<At<String>>,
        /// The file's owner; `root` by default.
        "owner" => owner: Option<At<String>>,
        /// The file's group; `root` by default.
        "group" => group: Option<At<String>>,
        /// The file's mode in 3 or 4 octal digits; `0600` by default.
        "mode" => mode: Option<At<String>>,
        /// Whether the mirror may go without this file; false by default: it fails, and says what is missing.
        "optional" => optional: Option<bool>,
        /// Absolute paths of symlinks that point at the file.
        "symlinks" => symlinks: Vec<At<String>>,
        /// The services to restart or signal when the file changes.
        "services" => services: Option<Services>,
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

choice! {
    /// Where a value is kept.
    Keep {
        /// In memory, and sealed on disk, so that units start without 1Password after a reboot too.
        "sealed" => Sealed,
        /// In memory only.
        "memory" => Memory,
        /// Nowhere: every start asks 1Password.
        "never" => Never,
    }
}

choice! {
    /// What a reference names.
    Kind {
        /// A text field.
        "field" => Field,
        /// A Document or an attachment, as raw bytes.
        "file" => File,
    }
}

/// A unit that may have a secret: its name, all instances of a template (`opencode@*.service`), or an object with options.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
pub enum UnitEntry {
    Unit(String),
    Options(UnitOptions),
}

object! {
    /// A unit with options.
    UnitOptions {
        /// The unit, or all instances of a template.
        "unit" => unit: Required<String>,
        /// The credential's name in that unit; the secret's own by default.
        "credential" => credential: Option<String>,
        /// What to do with the unit when the value changes; `none` by default. Needs opnix-mirror.service.
        "on_change" => on_change: Option<OnChange>,
    }
}

choice! {
    /// What to do with a unit whose secret changed.
    Action {
        /// Nothing.
        "none" => None,
        /// Reload it. From systemd 260 on, a unit with `RefreshOnReload=credentials` gets the new value so.
        "reload" => Reload,
        /// Restart it.
        "restart" => Restart,
        /// Reload it if it can be reloaded, else restart it.
        "reload-or-restart" => ReloadOrRestart,
    }
}

object! {
    /// A signal to a unit's main process.
    SendSignal {
        /// The signal's name, such as `SIGHUP`.
        "signal" => signal: At<String>,
    }
}

/// What to do with a unit whose secret changed: a word, or a signal.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
pub enum OnChange {
    Action(Action),
    Signal(SendSignal),
}

impl Decode for OnChange {
    const EXPECTED: &'static str = "none, reload, restart, reload-or-restart or {\"signal\": …}";

    fn decode(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match value {
            Value::StringLit(_) => Action::decode(value, reader).map(Self::Action),
            Value::Object(_) => SendSignal::decode(value, reader).map(Self::Signal),
            _ => reader.expected::<Self>(value),
        }
    }
}

impl Decode for UnitEntry {
    const EXPECTED: &'static str = "a unit name or {\"unit\": …}";

    fn decode(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match value {
            Value::StringLit(_) => String::decode(value, reader).map(Self::Unit),
            Value::Object(_) => UnitOptions::decode(value, reader).map(Self::Options),
            _ => reader.expected::<Self>(value),
        }
    }
}

/// Services by name, without `.service`: a list, or an object with options.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
pub enum Services {
    Names(Vec<At<String>>),
    Options(BTreeMap<String, At<ServiceOptions>>),
}

object! {
    /// What to do with a service when its secret changes.
    ServiceOptions {
        /// Restart it; true by default.
        "restart" => restart: Option<bool>,
        /// Send it this signal instead.
        "signal" => signal: Option<At<String>>,
        /// Units that come first.
        "after" => after: Vec<String>,
    }
}

impl Decode for Services {
    const EXPECTED: &'static str = "a list of service names, or an object from service name to options";

    fn decode(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match value {
            Value::Array(_) => Decode::decode(value, reader).map(Self::Names),
            Value::Object(_) => Decode::decode(value, reader).map(Self::Options),
            _ => reader.expected::<Self>(value),
        }
    }
}

object! {
    /// OpNix's settings for what happens to services when secrets change.
    SystemdIntegration {
        /// True by default.
        "enable" => enable: Option<bool>,
        /// The services that every change concerns.
        "services" => services: Vec<At<String>>,
        /// True by default.
        "restartOnChange" => restart_on_change: Option<bool>,
        /// How OpNix finds changes.
        "changeDetection" => change_detection: Option<ChangeDetection>,
        /// How OpNix polls.
        "polling" => polling: Option<Polling>,
        /// How OpNix handles errors.
        "errorHandling" => error_handling: Option<ErrorHandling>,
    }
}

object! {
    /// OpNix's change detection. Accepted for compatibility.
    ChangeDetection {
        /// True by default.
        "enable" => enable: Option<bool>,
        /// Not used: opnix keeps no hashes of secrets on disk.
        "hashFile" => hash_file: Option<String>,
    }
}

object! {
    /// OpNix's polling. Accepted for compatibility.
    Polling {
        /// False by default.
        "enable" => enable: Option<bool>,
        /// A duration such as `6h`.
        "interval" => interval: Option<At<String>>,
    }
}

object! {
    /// OpNix's error handling. Accepted for compatibility.
    ErrorHandling {
        /// Reserved.
        "rollbackOnFailure" => rollback_on_failure: Option<bool>,
        /// True by default.
        "continueOnError" => continue_on_error: Option<bool>,
        /// 3 by default.
        "maxRetries" => max_retries: Option<u32>,
    }
}

/// Where the secrets come from.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
pub enum Provider {
    ServiceAccount(ServiceAccountProvider),
    Connect(ConnectProvider),
    Local(LocalProvider),
}

choice! {
    /// 1Password itself, with a service account's token.
    ServiceAccountKind {
        /// 1Password itself, with a service account's token.
        "service_account" => ServiceAccount,
    }
}

choice! {
    /// A 1Password Connect server.
    ConnectKind {
        /// A 1Password Connect server.
        "connect" => Connect,
    }
}

choice! {
    /// A JSON file, for development and tests.
    LocalKind {
        /// A JSON file, for development and tests.
        "local" => Local,
    }
}

object! {
    /// 1Password itself, with a service account's token (`ops_…`), through the core of its official SDK.
    ServiceAccountProvider {
        /// `service_account`
        "kind" => kind: ServiceAccountKind,
        /// Where the core is: the absolute path of `libop_uniffi_core.so`, if `opnix core install` did not put it in place.
        "library" => library: Option<At<String>>,
        /// Hosts that the token may name besides those of 1password.com, 1password.ca and 1password.eu.
        "hosts" => hosts: Vec<At<String>>,
    }
}

object! {
    /// A 1Password Connect server, with a Connect token.
    ConnectProvider {
        /// `connect`
        "kind" => kind: ConnectKind,
        /// Where it is: `https://host` or `https://host:port`.
        "host" => host: At<String>,
        /// Certificates in PEM of who signed the server's, if that is no public authority: an absolute path.
        "authority" => authority: Option<At<String>>,
    }
}

object! {
    /// A JSON file with made-up secrets, for development and tests.
    LocalProvider {
        /// `local`
        "kind" => kind: LocalKind,
        /// The file. A relative path is looked for in `$CREDENTIALS_DIRECTORY`, then beside the configuration file.
        "path" => path: At<String>,
    }
}

impl Decode for Provider {
    const EXPECTED: &'static str = "an object with a kind: service_account, connect or local";

    fn decode(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::Object(object) = value else { return reader.expected::<Self>(value) };
        let Some(kind) = object.properties.iter().find(|property| property.name.as_str() == "kind") else {
            reader.fault(value, format!("key \"kind\" is missing\nthe provider is {}", Self::EXPECTED));
            return None;
        };
        match &kind.value {
            Value::StringLit(word) if word.value == "local" => {
                LocalProvider::decode(value, reader).map(Self::Local)
            }
            Value::StringLit(word) if word.value == "connect" => {
                ConnectProvider::decode(value, reader).map(Self::Connect)
            }
            Value::StringLit(word) if word.value == "service_account" => {
                ServiceAccountProvider::decode(value, reader).map(Self::ServiceAccount)
            }
            Value::StringLit(word) => {
                let message =
                    format!("unknown provider {:?}\nit is service_account, connect or local", word.value);
                reader.fault(&kind.value, message);
                None
            }
            other => reader.expected::<String>(other).and(None),
        }
    }
}
