//! The provider `service_account`: 1Password's own service, through the core of its official SDK.
pub mod core;
pub mod token;
