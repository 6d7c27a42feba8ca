//! The provider `service_account`: 1Password's own service, through the core of its official SDK.

mod address;
mod client;
pub mod core;
mod failure;
mod item;
pub mod library;
pub mod token;
mod waker;

pub use client::Client;
