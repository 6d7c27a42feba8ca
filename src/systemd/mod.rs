//! What systemd hands to us and what we tell it: sockets, state, stored descriptors, and the journal.

pub mod activation;
pub mod asker;
pub mod journal;
pub mod notify;
