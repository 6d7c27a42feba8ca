//! What to do with services when secrets change, as OpNix has it configured.

use std::collections::BTreeMap;

use jsonc_parser::ast::Value;
use schemars::JsonSchema;

use super::units::OnChange;
use crate::config::decode::{At, Decode, Reader, object};

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
        /// Restart it; true by default. Otherwise it is reloaded.
        "restart" => restart: Option<bool>,
        /// Send it this signal instead.
        "signal" => signal: Option<At<String>>,
        /// What to do instead of both, as in `units`. It gives the service no right to the secret.
        "on_change" => on_change: Option<OnChange>,
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
