//! The units that may have a secret, and what to do with them when it changes.

use jsonc_parser::ast::Value;
use schemars::JsonSchema;

use crate::config::decode::{At, Decode, Reader, Required, choice, object};

/// A unit that may have a secret: its name, all instances of a template (`opencode@*.service`), or an object with options.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged, rename = "UnitEntry")]
pub enum Unit {
    Name(String),
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
        /// How long the unit's start waits for the value before it is refused: a duration, or `infinity`; as `deadline`
        /// says for all by default. The unit's own `TimeoutStartSec=` must be longer.
        "deadline" => deadline: Option<At<String>>,
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

impl Decode for Unit {
    const EXPECTED: &'static str = "a unit name or {\"unit\": …}";

    fn decode(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match value {
            Value::StringLit(_) => String::decode(value, reader).map(Self::Name),
            Value::Object(_) => UnitOptions::decode(value, reader).map(Self::Options),
            _ => reader.expected::<Self>(value),
        }
    }
}
