//! What a 1Password can be asked: vaults, items and files by their ids; and how a reference finds its way among them.

pub mod connect;
pub mod items;
pub mod resolve;
pub mod service_account;
