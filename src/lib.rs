//! opnix gives systemd units their 1Password secrets the way systemd hands out credentials.
//!
//! The way of one request through the modules, which is also the order to read them in:
//! [`peer`] says who asks, [`policy`] whether it may, [`store`] gets the value from memory or from [`providers`],
//! [`server`] answers, and [`records`] puts it on record. `docs/architecture.md` tells the same at more length.

// What everything is made of.
pub mod files;
pub mod kernel;
pub mod moment;
pub mod names;
pub mod place;
pub mod quote;
pub mod reference;
pub mod secret;
pub mod signal;
pub mod template;

// One request.
pub mod config;
pub mod peer;
pub mod policy;
pub mod providers;
pub mod records;
pub mod store;

// The service and the command line around it.
pub mod cli;
pub mod control;
pub mod mirror;
pub mod server;
pub mod systemd;
