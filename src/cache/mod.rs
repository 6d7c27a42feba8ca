//! Values that are kept: in memory, and sealed on disk; and how long each may be used.

pub mod freshness;
pub mod memory;
pub mod sealed;
