//! The MESSAGE_ID of each kind of record, which `systemd/opnix.catalog` explains.

pub const GRANTED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c01";
pub const REFUSED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c02";
pub const ABANDONED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c03";
pub const FAULT: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c04";
pub const RELOADED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c05";
pub const KEPT_OLD: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c06";
pub const FOUND: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c07";
pub const LEFT: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c08";
pub const STOOD_IN: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c09";
pub const CACHE_UNUSED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c0a";
pub const PROVIDER_DOWN: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c0b";
pub const PROVIDER_UP: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c0c";
pub const SECRET_CHANGED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c0d";
pub const WAITS: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c0e";
pub const DROPPED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c0f";
pub const LEFT_BEHIND: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c10";
pub const HELD: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c11";
pub const CLOSED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c12";
pub const UNIT_STARTED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c13";
pub const WAITS_ON: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c14";
pub const TOKEN_TAKEN: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c15";
pub const OBSTACLE: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c16";
pub const UNIT_TOLD: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c17";
pub const UNIT_NOT_TOLD: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c18";
pub const UNIT_REFUSED: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c20";
pub const UNIT_WAITS: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c21";
pub const UNIT_LACKS_FILE: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c22";
pub const UNIT_WAITS_FOR_SERVICE: &str = "8e3f0c5f5c0f4d5c9f0b7b0f3a1d6c23";

/// The targets of events that are about requests. All others are faults, or news, of the service.
pub const GRANT: &str = "grant";
pub const REFUSAL: &str = "refusal";
