//! Where values come from: what a provider makes of each reference and each fault, and what that costs in requests.

mod child;
pub mod connect;
mod oracle;
mod service_account;
mod spoiled;
mod table;
mod vaults;
