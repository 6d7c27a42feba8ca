//! Where values come from: what a provider makes of each reference and each fault, and what that costs in requests.

mod child;
mod connect;
mod service_account;
mod vaults;
