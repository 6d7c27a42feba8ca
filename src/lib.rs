//! opnix gives systemd units their 1Password secrets the way systemd hands out credentials.
//!
//! The way of one request through the modules, which is also the order to read them in: `peer` says who asks, `policy`
//! whether it may, `store` gets the value from memory or from `providers`, `server` answers, and `records` puts it on
//! record. `docs/architecture.md` tells the same at more length.

// What everything is made of.
mod boot;
mod counted;
mod counters;
mod documents;
mod files;
mod fingerprint;
mod kernel;
mod moment;
mod names;
mod place;
mod process;
mod quote;
mod reference;
mod remedy;
mod scope;
mod secret;
mod signal;
mod similar;
mod template;

// One request.
mod config;
mod peer;
mod policy;
mod providers;
mod records;
mod store;

// The service and the command line around it.
mod cli;
mod control;
mod mirror;
mod server;
mod systemd;

pub use cli::main;

/// What the tests, the benchmarks and the examples of this package use: no interface for anybody else.
#[doc(hidden)]
pub mod internals {
    pub use crate::cli::{Command, command_line, statuses};
    pub use crate::control::SOCKET as CONTROL_SOCKET;
    pub use crate::mirror::install::in_memory;
    pub use crate::moment::{Moment, Now};
    pub use crate::providers::Provider;
    pub use crate::providers::ask::service_account::core::Core;
    pub use crate::providers::budget::{Budget, Purpose};
    pub use crate::providers::ledger::Ledger;
    pub use crate::providers::local::Local;
    pub use crate::reference::{Kind, Reference};
    pub use crate::secret::Secret;
    pub use crate::store::background::{Outlook, next_round};
    pub use crate::store::decide::{Decision, Health, Keep, Known, Settings, decide};
    pub use crate::store::disk::KEY_CREDENTIAL;
    pub use crate::store::kept::Kept;
    pub use crate::systemd::store::STORE_MAX;
    pub use crate::template::Template;

    pub mod asker {
        pub use crate::systemd::asker::{ask, connect_as};
    }
    pub mod config {
        pub use crate::config::{
            Config, DEFAULT_PATH, Faults, MirrorFile, OnChange, SETTINGS, TIMING, load_from_anybody, schema,
        };
    }
    pub mod sealed {
        pub use crate::store::sealed::{Key, open, seal};
    }
    pub mod status {
        pub use crate::cli::status::describe;
    }
}
