//! Where the secrets come from.

use jsonc_parser::ast::Value;
use schemars::JsonSchema;

use crate::config::decode::{At, Decode, Reader, choice, object};
use crate::remedy::Problem;

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
            let problem =
                Problem::new("key \"kind\" is missing", format!("the provider is {}", Self::EXPECTED));
            reader.fault(value, &problem);
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
                let what = format!("unknown provider {:?}", word.value);
                reader.fault(&kind.value, &Problem::new(what, "it is service_account, connect or local"));
                None
            }
            other => reader.expected::<String>(other).and(None),
        }
    }
}
