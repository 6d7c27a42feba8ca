//! Secrets and templates.

use std::collections::BTreeMap;

use schemars::Schema;

use super::opnix::Services;
use super::units::Unit;
use crate::config::decode::{At, Decode, Required, choice, object};

object! {
    /// One secret of the vault, and who may have it: units as a credential, or a file in `/run/secrets`, or both.
    SecretEntry {
        /// The credential's name in `LoadCredential=NAME:/run/opnix/creds.sock`. Needed where there are `units`.
        "name" => name: Option<At<String>>,
        /// Where the value is: `op://vault/item/[section/]field`.
        "reference" => reference: Required<At<String>>,
        /// Whether the reference names a text field (the default) or a file.
        "kind" => kind: Option<Kind>,
        ..common: Common,
        /// Values for `{name}` in `path` and `pathTemplate`.
        "variables" => variables: BTreeMap<String, String>,
        /// The services to restart or signal when the file changes.
        "services" => services: Option<Services>,
    }
}

object! {
    /// A text with secrets in it, as one credential or one file.
    #[schemars(transform = described("units", "The units that may have the rendered text as a credential. Nobody else gets it."))]
    #[schemars(transform = described("cache", "Where the values in it are kept, if not as the file says for all."))]
    #[schemars(transform = described("fresh_for", "How long they are served without asking 1Password."))]
    #[schemars(transform = described("stale_for", "How long they are served when 1Password cannot be asked."))]
    #[schemars(transform = described("always_fetch", "Never serve them without asking 1Password; false by default."))]
    TemplateEntry {
        /// The credential's name, as for a secret.
        "name" => name: Required<At<String>>,
        /// The text, with `{{ op://vault/item/field }}` where a secret goes. A form after the reference, such as `| env` or `| json`, quotes it.
        "template" => template: Option<At<String>>,
        /// A file with the text, instead of `template`: absolute, or beside this one.
        "template_file" => template_file: Option<At<String>>,
        ..common: Common,
        /// The services to restart or signal when the file changes.
        "services" => services: Option<Services>,
    }
}

object! {
    /// What secrets and templates have in common: who may have them, how their values are kept, and the file that they
    /// are written to. Described as for a secret.
    Common {
        /// The units that may have this secret as a credential. Nobody else gets it.
        "units" => units: Vec<At<Unit>>,
        /// Where the value is kept, if not as the file says for all.
        "cache" => cache: Option<Keep>,
        /// How long the value is served without asking 1Password.
        "fresh_for" => fresh_for: Option<At<String>>,
        /// How long the value is served when 1Password cannot be asked.
        "stale_for" => stale_for: Option<At<String>>,
        /// Never serve the value without asking 1Password; false by default.
        "always_fetch" => always_fetch: Option<bool>,
        /// Where to put it as a file: absolute, or relative to `/run/secrets`; with `{name}` for `variables` and `defaults`.
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
    }
}

/// Describes a key in the schema of one object otherwise than [`Common`] does.
fn described(key: &'static str, description: &'static str) -> impl FnMut(&mut Schema) {
    move |schema| {
        if let Some(known) = schema.pointer_mut(&format!("/properties/{key}/description")) {
            *known = description.into();
        }
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
